"""What a run cost is told to the second and the cent: each paid second is in one part, and the parts are the sum."""

import json
from pathlib import Path

import pytest

from infra.cli.run import run
from infra.reading.costs import PARTS, RunCost, describe_cost
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, write_record
from job.run.claims import Claim, Claims, SeenEnd, update_claims
from job.run.head import CheckpointRef, Head, Status
from job.run.layout import HEAD
from job.run.spec import Machine, Spec, SpecModel, write_spec
from job.storage import open_bucket
from job.storage.usage import Usage
from job.views.status import describe

NOW_S = 1_790_000_000.0
HOUR_S = 3600.0
MACHINE = Machine(gpu="l4", project="p", image="i", boot_image="b", boot_disk_gb=100, service_account="a", max_usd=20.0)
SPEC = Spec(
    revision=1,
    recipe={"train": {"max_steps": 100}},
    model=SpecModel(name="tiny"),
    machine=MACHINE,
    fingerprint="f",
    started_by="me",
    created_at=NOW_S,
)
OPERATIONS = Usage(class_a=1000, class_b=1000)


def vm(number: int, ended: SeenEnd | None, spot: bool = True) -> Claim:
    where = {"zone": "us-central1-a", "vm": f"vm{number}", "machine_type": "g2-standard-4", "spot": spot}
    return Claim(number=number, kind="vm", claimed_at_s=NOW_S - 60, usd_per_hour=0.36, ended=ended, **where)


def lived(seconds: float, how: str = "preempted") -> SeenEnd:
    return SeenEnd(how=how, at_s=NOW_S + seconds, ran_from_s=NOW_S)  # type: ignore[arg-type]


def record(number: int, begun_s: float, step: int, *, train_s: float, resumed: ResumedFrom | None) -> AttemptRecord:
    phases = {"look": 1.0, "restore": 9.0, "import": 20.0, "check": 10.0, "model": 20.0, "train": train_s, "flush": 4.0}
    return AttemptRecord(
        number=number,
        kind="vm",
        host="h",
        pid=1,
        started_at_s=NOW_S + begun_s,
        phases=phases,
        resumed_from=resumed,
        storage=OPERATIONS,
        storage_usd=0.01,
        ended=Ended(exit_code=75, step=step, at_s=NOW_S + 5000),
    )


CLAIMS = Claims(attempts=(vm(1, lived(HOUR_S)), vm(2, lived(1800.0, "finished"))))
RECORDS = [
    record(1, 200.0, 40, train_s=3000.0, resumed=None),
    record(2, 200.0, 100, train_s=1500.0, resumed=ResumedFrom(step=40, folder="c", lost_steps=10)),
]
REF = CheckpointRef(folder="c", step=100, attempt=2, manifest_crc32c=0)
FINISHED = Head(attempt=2, incarnation=0, status=Status.FINISHED, checkpoint=REF, kept=(REF,), write_id="w")


def cost(claims: Claims = CLAIMS, records: list[AttemptRecord] = RECORDS, spec: Spec = SPEC) -> RunCost:
    status = describe("gs://b/runs/x", spec, claims, FINISHED, records, {}, None, NOW_S + 9000)
    return describe_cost(status, claims, spec)


def test_every_paid_second_is_in_one_part() -> None:
    first, second = cost().attempts
    assert first.seconds_by_part == pytest.approx(
        {"boot": 200.0, "restore": 60.0, "progress": 2400.0, "lost": 600.0, "other": 340.0}
    )
    assert second.seconds_by_part["lost"] == 0.0
    for attempt in (first, second):
        assert sum(attempt.seconds_by_part.values()) == pytest.approx(attempt.seconds)
        assert attempt.usd == pytest.approx(0.36 * attempt.seconds / HOUR_S)


def test_the_parts_and_the_rest_are_the_sum() -> None:
    found = cost()
    assert found.machines_usd == pytest.approx(0.36 * 1.5)
    assert sum(found.usd_by_part.values()) == pytest.approx(found.machines_usd)
    assert found.storage_operations_usd == pytest.approx(2 * (0.005 + 0.0004))
    assert found.network_usd == pytest.approx(0.02 - found.storage_operations_usd)
    assert found.usd == pytest.approx(found.machines_usd + 0.02)
    assert (found.judge_usd, found.idle_disks_usd, found.max_usd) == (0.0, 0.0, 20.0)
    assert found.boot_disks_usd == pytest.approx(100 * 0.10 / 730 * 1.5)
    assert found.usd_per_step == pytest.approx(found.usd / 100)


def test_on_demand_pays_the_steps_that_count_and_one_start() -> None:
    found = cost()
    price = found.attempts[0].on_demand_usd_per_hour
    assert price == pytest.approx(0.707 + 10 / 730, abs=0.001)
    assert found.on_demand_usd == pytest.approx(price * (2400 + 1500 + 260) / HOUR_S)
    assert found.saved_share == pytest.approx(1 - found.usd / found.on_demand_usd)


def test_what_no_price_is_known_of_is_not_made_up() -> None:
    gpu = SPEC.model_copy(update={"machine": MACHINE.model_copy(update={"gpu": "h100"})})
    claims = Claims(attempts=(vm(1, lived(HOUR_S)).model_copy(update={"machine_type": "a3-highgpu-1g"}),))
    found = cost(claims, RECORDS[:1], gpu)
    assert (found.on_demand_usd, found.saved_share) == (None, None)
    unpriced = cost(Claims(attempts=(vm(1, lived(HOUR_S)).model_copy(update={"usd_per_hour": None}),)), RECORDS[:1])
    assert (unpriced.attempts[0].usd, unpriced.machines_usd) == (None, 0.0)


def test_a_vm_that_never_began_an_attempt_only_booted_and_one_that_lies_takes_no_second_more() -> None:
    never = cost(Claims(attempts=(vm(1, lived(300.0)),)), [])
    assert never.attempts[0].seconds_by_part == {"boot": 300, "restore": 0, "progress": 0, "lost": 0, "other": 0}
    liar = record(1, -1e9, 40, train_s=1e9, resumed=None)
    parts = cost(Claims(attempts=(vm(1, lived(300.0)),)), [liar]).attempts[0].seconds_by_part
    assert sum(parts.values()) == pytest.approx(300)
    assert min(parts.values()) >= 0


def test_the_command_prints_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = open_bucket((tmp_path / "run").as_uri())
    write_spec(bucket, SPEC)
    update_claims(bucket, lambda claims: CLAIMS)
    bucket.write(HEAD, FINISHED.to_bytes())
    for one in RECORDS:
        write_record(bucket, one)
    assert run(["cost", bucket.uri, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["usd"] == pytest.approx(cost().usd)
    assert run(["cost", bucket.uri]) == 0
    shown = capsys.readouterr().out
    for words in (*PARTS.values(), "$0.56 of at most $20.00", "On demand, never preempted", "judge", "in all"):
        assert words in shown


def test_a_run_of_processes_costs_nothing_that_is_known_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = open_bucket((tmp_path / "run").as_uri())
    write_spec(bucket, SPEC.model_copy(update={"machine": None}))
    process = Claim(number=1, kind="process", claimed_at_s=NOW_S)
    update_claims(bucket, lambda claims: Claims(attempts=(process,)))
    assert run(["cost", bucket.uri]) == 0
    assert "It had no VMs" in capsys.readouterr().out
