"""`baton ls` shows every run of a bucket with few calls each, also where one of them is damaged."""

import json
import time
from pathlib import Path

import pytest

from infra.cli.run import run
from job.run.claims import Claim, Claims, SeenEnd, update_claims
from job.run.head import CheckpointRef, Head, Status
from job.run.heartbeat import Heartbeat
from job.run.layout import CLAIMS, heartbeat_name
from job.run.spec import Machine, Spec, SpecModel, write_spec
from job.storage import Bucket, open_bucket
from job.views.overview import describe_line, read_overview

NOW_S = 1_790_000_000.0
MACHINE = Machine(gpu="l4", project="p", image="i", boot_image="b", boot_disk_gb=50, service_account="a", max_usd=20.0)


def spec(machine: Machine | None = MACHINE) -> Spec:
    return Spec(
        revision=1,
        recipe={"train": {"max_steps": 100}},
        model=SpecModel(name="tiny"),
        machine=machine,
        fingerprint="f",
        started_by="somebody",
        created_at=NOW_S,
    )


def vm(number: int, ended: SeenEnd | None = None) -> Claim:
    where = {"zone": "us-central1-a", "vm": f"baton-x-a{number}", "machine_type": "g2-standard-4"}
    return Claim(number=number, kind="vm", claimed_at_s=NOW_S - 1000, usd_per_hour=3.6, ended=ended, **where)


def head(step: int, status: Status = Status.RUNNING) -> Head:
    ref = CheckpointRef(folder="c", step=step, attempt=1, manifest_crc32c=0)
    return Head(attempt=1, incarnation=0, status=status, checkpoint=ref, kept=(ref,), write_id="w")


def beat(age_s: float, step: int = 12) -> tuple[Heartbeat, float]:
    told = Heartbeat(attempt=2, incarnation=0, phase="train", step=step, progress_s=0.0, beat_s=0.0, number=1)
    return told, NOW_S - age_s


def test_a_line_tells_step_vm_and_what_all_attempts_cost() -> None:
    preempted = SeenEnd(how="preempted", at_s=NOW_S - 1000, ran_from_s=NOW_S - 2000)
    claims = Claims(attempts=(vm(1, preempted), vm(2)))
    line = describe_line("gs://b/runs/x", spec(), claims, head(10), beat(5), NOW_S)
    assert (line.status, line.step, line.max_steps, line.attempts, line.at_work) == ("running", 12, 100, 2, True)
    assert (line.vm, line.zone, line.usd_per_hour, line.max_usd) == ("baton-x-a2", "us-central1-a", 3.6, 20.0)
    assert line.usd == pytest.approx(2.0)


def test_a_run_that_is_over_has_no_vm_and_costs_nothing_more() -> None:
    ended = SeenEnd(how="finished", at_s=NOW_S - 900, ran_from_s=NOW_S - 1000)
    line = describe_line("u", spec(), Claims(attempts=(vm(1, ended),)), head(100, Status.FINISHED), None, NOW_S)
    assert (line.status, line.vm, line.usd_per_hour, line.at_work) == ("finished", None, None, False)
    assert line.usd == pytest.approx(0.1)


def test_a_silent_attempt_is_not_at_work() -> None:
    line = describe_line("u", spec(), Claims(attempts=(vm(1),)), head(10), beat(500), NOW_S)
    assert (line.status, line.at_work, line.vm) == ("running", False, "baton-x-a1")


def make_run(bucket: Bucket, number: int = 1) -> None:
    write_spec(bucket, spec())
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": (vm(number),)}))
    beating = Heartbeat(attempt=number, incarnation=0, phase="train", step=3, progress_s=0, beat_s=0, number=1)
    bucket.write(heartbeat_name(number), beating.to_bytes())


def test_all_runs_of_a_bucket_are_listed_and_a_damaged_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"file://{tmp_path}"
    for name in ("one", "two words", "damaged"):
        make_run(open_bucket(f"{uri}/runs/{name}"))
    open_bucket(f"{uri}/runs/damaged").write(CLAIMS, b"\x1b[2J{")
    open_bucket(f"{uri}/runs/no-run").write("blobs/0", b"left over")
    monkeypatch.setenv("BATON_BUCKET", uri)
    assert run(["ls", "--json"]) == 0
    shown = {line["uri"].rpartition("/")[2]: line for line in json.loads(capsys.readouterr().out)}
    assert {name: line["status"] for name, line in shown.items()} == {
        "one": "starting",
        "two%20words": "starting",
        "damaged": "unreadable",
    }
    assert (shown["one"]["step"], shown["one"]["at_work"]) == (3, True)
    assert run(["ls", uri]) == 0
    table = capsys.readouterr().out
    assert "one" in table
    assert "\x1b" not in table


def test_a_run_takes_six_calls_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = open_bucket(f"file://{tmp_path}/runs/x")
    make_run(bucket)
    calls: list[str] = []
    for method in ("read", "list", "stat"):
        original = getattr(type(bucket), method)
        monkeypatch.setattr(
            type(bucket), method, lambda self, name, original=original: (calls.append(name), original(self, name))[1]
        )
    assert [line.step for line in read_overview([bucket.uri], time.time())] == [3]
    assert 0 < len(calls) <= 6, calls


def test_an_empty_bucket_and_no_bucket_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", f"file://{tmp_path}"]) == 0
    assert "There are no runs" in capsys.readouterr().err
    assert run(["ls"]) == 2
    assert "No bucket is named." in capsys.readouterr().err
