"""Proves that `baton demo` tells the truth: VMs are taken away where it says, and it says NO when the bytes differ."""

import dataclasses
import io
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from infra.cli.demo import render
from infra.demo import Outcome, plan_preemptions
from job.run.attempt import AttemptRecord, Ended, ResumedFrom
from job.run.claims import Claim, Claims, SeenEnd
from job.views.status import RunStatus, describe

ROOT = Path(__file__).parents[2]


def status(codes: list[int | None], *, vms: bool = False) -> RunStatus:
    claims = Claims(
        attempts=tuple(
            Claim(
                number=i + 1,
                kind="vm" if vms else "process",
                claimed_at_s=0.0,
                zone=f"us-central1-{'abc'[i]}" if vms else None,
                usd_per_hour=1.8 if vms else None,
                ended=SeenEnd(how="finished" if code == 0 else "preempted", at_s=20.0, ran_from_s=0.0) if vms else None,
            )
            for i, code in enumerate(codes)
        )
    )
    records = [
        AttemptRecord(
            number=i + 1,
            host="here",
            pid=1,
            started_at_s=0.0,
            phases={"import": 4.0, "train": 10.0},
            resumed_from=ResumedFrom(step=10 * i, folder="f", lost_steps=i) if i else None,
            ended=None if code is None else Ended(exit_code=code, step=10 * i + 10, at_s=1.0),
        )
        for i, code in enumerate(codes)
    ]
    return describe("file:///run", None, claims, None, records, {}, None, 0.0)


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(
        preempted=status([75, None, 0], vms=True),
        untouched=status([0]),
        preempted_sha256="ab" * 32,
        untouched_sha256="ab" * 32,
        rewards=tuple(i / 30 for i in range(30)),
        preempted_s=80.0,
        untouched_s=60.0,
        result=Path("demo/result"),
    )


def shown(outcome: Outcome, columns: int = 80) -> str:
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(render(outcome))
    return console.export_text()


def test_the_report_names_each_end_and_says_yes_when_the_bytes_are_equal(outcome: Outcome) -> None:
    text = shown(outcome)
    for expected in (
        "us-central1-b",
        "preempted, exit 75",
        "finished, exit 0",
        "10 to 20",
        "import",
        "train",
        "$0.030",
    ):
        assert expected in text
    assert "weights identical to an uninterrupted run: yes" in text
    assert "reward: 0.15 (first 10 steps) to 0.82 (last 10)" in text
    assert "…" not in text, "nothing is cut off on 80 columns"


def test_the_report_says_no_when_the_bytes_differ(outcome: Outcome) -> None:
    other = dataclasses.replace(outcome, untouched_sha256="cd" * 32)
    assert not other.identical
    assert "weights identical to an uninterrupted run: NO" in shown(other)


def test_the_report_says_when_the_reward_did_not_rise(outcome: Outcome) -> None:
    assert "it should have risen by 0.3" in shown(dataclasses.replace(outcome, rewards=(0.5,) * 30))


def test_preemptions_fall_into_the_second_and_third_quarter() -> None:
    for seed in range(100):
        first, second = plan_preemptions(180, random.Random(seed))
        assert (first.notice_s, second.notice_s) == (120, 0)
        assert 45 <= first.step < 90 <= second.step < 135


@pytest.mark.long
def test_the_demo_itself_ends_with_identical_weights_and_a_risen_reward(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from infra.cli import main; main()", "demo", "--folder", str(tmp_path / "demo")],
        cwd=ROOT,
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},  # its two threads are not alone on these cores
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "weights identical to an uninterrupted run: yes" in done.stdout
    results = tmp_path / "demo/result", tmp_path / "demo/untouched/result"
    first, second = (folder / "adapter/adapter_model.safetensors" for folder in results)
    assert first.read_bytes() == second.read_bytes()
    assert "s of notice" in done.stderr
    assert "without notice" in done.stderr
    zones = re.findall(r"attempt \d: (\S+) ", done.stderr)
    assert len(zones) == 3
    assert zones[1] != zones[0]
    assert "attempts" in (results[0] / "report.html").read_text()
