"""A run of VMs as people see it: who looked when, what each attempt cost, and the boot before its own phases."""

from typing import Any

import pytest
from report_runs import BEGAN_S, PHASES, begin, metric, record, rows, save

from job.run.claims import Claim, SeenEnd, update_claims
from job.run.console import VmPhase
from job.run.head import Owner, Status
from job.run.looked import Looked, write_looked
from job.storage import Bucket
from job.views.attempts import AttemptView, ending_words, where_words
from job.views.boots import with_boot
from job.views.report import report_page
from job.views.report_charts import figures
from job.views.report_data import read_report
from job.views.report_words import page_words, tiles
from job.views.status import describe_looked, read_status
from job.views.status_table import headline, looked_line

NOW_S = BEGAN_S + 10_000
URI = "gs://b/runs/x"


def vm(number: int, ended: SeenEnd | None, **more: Any) -> Claim:
    where = {"zone": "us-central1-a", "vm": f"baton-x-a{number:04d}", "machine_type": "g2-standard-4", "spot": True}
    at_s = BEGAN_S + 40 * number - 100
    return Claim.model_validate(
        {"number": number, "kind": "vm", "claimed_at_s": at_s, "usd_per_hour": 36.0, "ended": ended, **where, **more}
    )


def preempted(at_s: float, ran_s: float, how: str = "preempted") -> SeenEnd:
    return SeenEnd.model_validate({"how": how, "at_s": at_s, "ran_from_s": at_s - ran_s})


@pytest.fixture
def vm_run(bucket: Bucket) -> Bucket:
    """Preempted in its boot, stockout, preempted while it trained, finished."""
    begin(bucket, 4, usd_per_hour=36.0)
    claimed = (
        vm(1, preempted(BEGAN_S, 50), drill="me@box"),
        vm(2, SeenEnd(how="stockout", at_s=BEGAN_S + 1, detail="no L4")),
        vm(3, preempted(BEGAN_S + 160, 100)),
        vm(4, preempted(BEGAN_S + 300, 200, "finished")),
    )
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": claimed}))
    bucket.write("attempts/0001/console/000001.log", f"baton-phase boot {BEGAN_S - 30}\n".encode())
    at_s = BEGAN_S + 40 * 3
    console = f"baton-phase boot {at_s - 80}\nbaton-phase driver {at_s - 60}\nbaton-phase pull {at_s - 60}\n"
    bucket.write("attempts/0003/console/000001.log", f"{console}baton-phase container {at_s - 2}\n".encode())
    third = Owner.take_over(bucket, 3)
    record(bucket, 3, exit_code=75, reason="SIGTERM", step=10, kind="vm")
    at_10 = save(bucket, third, 10)
    rows(bucket, 3, "metrics", [metric(step) for step in range(1, 11)])
    fourth = Owner.take_over(bucket, 4)
    save(bucket, fourth, 20)
    fourth.publish(status=Status.FINISHED)
    record(bucket, 4, exit_code=0, reason="finished", step=20, resumed=at_10, kind="vm")
    return bucket


def test_status_tells_what_each_attempt_cost_and_all_together(vm_run: Bucket) -> None:
    run = read_status(vm_run, NOW_S)
    assert [attempt.usd for attempt in run.attempts] == [pytest.approx(usd) for usd in (0.5, 0.0, 1.0, 2.0)]
    assert run.machines_usd == pytest.approx(3.5)
    assert "machines: $3.50" in headline(run, NOW_S)
    assert [where_words(attempt) for attempt in run.attempts[:1]] == ["us-central1-a g2-standard-4 spot"]
    assert [ending_words(attempt) for attempt in run.attempts] == [
        "preempted (a drill by me@box)",
        "stockout: no L4",
        "preempted: SIGTERM",
        "finished",
    ]


def test_an_attempt_that_goes_on_costs_by_the_hour(bucket: Bucket) -> None:
    begin(bucket, 1)
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": (vm(1, None),)}))
    run = read_status(bucket, BEGAN_S - 60 + 3600)
    assert "machines: $36.00, $36.00 an hour now" in headline(run, NOW_S)


def test_status_tells_when_somebody_last_looked(vm_run: Bucket) -> None:
    assert read_status(vm_run, NOW_S).looked is None, "nobody ever did, and no spec says that VMs are wanted"
    write_looked(vm_run, Looked(watcher="watch\x1b[2J", at_s=NOW_S - 4, next_at_s=NOW_S + 6, note="no capacity"))
    looked = read_status(vm_run, NOW_S).looked
    assert looked is not None
    assert looked_line(looked, NOW_S, URI) == "watch\ufffd[2J looked 4 s ago, next in 6 s: no capacity"
    late = describe_looked(Looked(watcher="w", at_s=NOW_S - 500, next_at_s=NOW_S - 400), NOW_S)
    assert looked_line(late, NOW_S, URI).startswith("nobody looks after it any more (w looked 8 min ago)")
    left = describe_looked(Looked(watcher="w", at_s=NOW_S - 5), NOW_S)
    assert left.overdue
    assert looked_line(describe_looked(None, NOW_S), NOW_S, URI).startswith("nobody has ever looked after it")


def test_the_report_begins_each_attempt_with_its_claim_and_its_boot(vm_run: Bucket) -> None:
    report = read_report(vm_run)
    third = report.run.attempts[2]
    assert third.started_at_s == BEGAN_S + 20
    before = {"create": 20.0, "boot": 20.0, "pull": 58.0, "container": 2.0}
    assert third.phases_s == before | PHASES
    first = report.run.attempts[0]
    assert (first.phases_s, first.how) == ({"create": 30.0, "boot": 30.0}, "preempted")
    assert report.verdict.cost_usd == pytest.approx(3.5)
    assert {tile["title"]: tile["value"] for tile in tiles(report)}["Cost"] == "about $3.50"
    assert [row["cost"] for row in page_words(report)["attempts"]] == ["$2.00", "$1.00", "$0.50"]
    bars = {trace["name"]: trace for trace in figures(report)["timeline"]["data"] if trace["type"] == "bar"}
    assert bars["boot"]["y"] == [1, 3]
    assert bars["create"]["y"] == [1, 3, 4]


def test_a_vm_that_was_taken_back_without_a_word_is_not_called_lost(bucket: Bucket) -> None:
    begin(bucket, 2)
    claimed = (vm(1, preempted(BEGAN_S + 75, 100)), vm(2, preempted(BEGAN_S + 115, 100, "host error")))
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": claimed}))
    record(bucket, 1, kind="vm")
    record(bucket, 2, kind="vm")
    verdict = read_report(bucket).verdict
    assert (verdict.preempted, verdict.lost) == (1, 1)


def test_the_page_names_cost_place_and_drill(vm_run: Bucket) -> None:
    page = report_page(vm_run)
    assert '<th class="number">cost</th>' in page
    assert "us-central1-a g2-standard-4 spot" in page
    assert "a drill by me@box" in page


def attempt(**more: Any) -> AttemptView:
    plain: dict[str, Any] = {"number": 1, "incarnation": 0, "kind": "vm", "host": "h", "started_at_s": NOW_S + 100}
    plain |= {"from_step": 0, "lost_steps": 0, "last_step": 1, "ended": True, "exit_code": 0, "how": "finished"}
    return AttemptView(**(plain | {"phases_s": {"train": 9.0}, "claimed_at_s": NOW_S} | more))


def test_clocks_that_differ_and_nonsense_make_no_phase_negative_or_longer_than_the_attempt() -> None:
    told = (VmPhase("boot", NOW_S - 50), VmPhase("pull", NOW_S + 40), VmPhase("container", NOW_S + 9e9))
    assert with_boot(attempt(), told).phases_s == {"boot": 40.0, "pull": 60.0, "train": 9.0}
    assert with_boot(attempt(started_at_s=NOW_S - 5), ()).phases_s == {"train": 9.0}
    assert with_boot(attempt(), ()).phases_s == {"create": 100.0, "train": 9.0}
