"""Proves that `baton demo` tells the truth: it kills where it says, and says NO when the bytes differ."""

import dataclasses
import io
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from infra.cli.demo import render
from infra.demo import Kill, Outcome, plan_kills
from job.run.attempt import AttemptRecord, Ended, ResumedFrom
from job.run.claims import Claim, Claims
from job.views.status import RunStatus, describe

ROOT = Path(__file__).parents[2]


def status(codes: list[int | None]) -> RunStatus:
    claims = Claims(attempts=tuple(Claim(number=i + 1, kind="process", claimed_at_s=0.0) for i in range(len(codes))))
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
        killed=status([None, 75, 0]),
        untouched=status([0]),
        kills=(Kill(signal.SIGKILL, 10), Kill(signal.SIGTERM, 20)),
        killed_sha256="ab" * 32,
        untouched_sha256="ab" * 32,
        rewards=tuple(i / 30 for i in range(30)),
        killed_s=80.0,
        untouched_s=60.0,
    )


def shown(outcome: Outcome, columns: int = 80) -> str:
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(render(outcome))
    return console.export_text()


def test_the_report_names_each_end_and_says_yes_when_the_bytes_are_equal(outcome: Outcome) -> None:
    text = shown(outcome)
    for expected in ("SIGKILL ", "SIGTERM, exit 75", "finished, exit 0", "10 to 20", "import", "train"):
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


def test_kills_fall_into_the_second_and_third_quarter() -> None:
    for seed in range(100):
        first, second = plan_kills(180, random.Random(seed))
        assert (first.signal, second.signal) == (signal.SIGKILL, signal.SIGTERM)
        assert 45 <= first.step < 90 <= second.step < 135


@pytest.mark.long
def test_the_demo_itself_ends_with_identical_weights_and_a_risen_reward(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from infra.cli import main; main()", "demo", "--folder", str(tmp_path / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "weights identical to an uninterrupted run: yes" in done.stdout
    first, second = (
        (tmp_path / "demo" / run / "result/adapter/adapter_model.safetensors") for run in ("killed", "untouched")
    )
    assert first.read_bytes() == second.read_bytes()
    assert "-> SIGKILL from outside" in done.stderr
    assert "-> SIGTERM from outside" in done.stderr
