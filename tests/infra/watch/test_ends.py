"""Every end of a VM is told apart from outside, and what is not known ends nothing."""

from dataclasses import replace
from typing import Any

import pytest
from seen import (
    INSERTED,
    NOW_S,
    POLICY,
    PREEMPTED,
    claim,
    head,
    last,
    operation,
    refused,
    seen,
    vm,
)
from seen import end as an_end

from infra.cloud.types import OperationKind, Trouble, TroubleKind, VmStatus
from infra.watch.ends import Found, durable_step, judge, ran_from_s
from infra.watch.observed import Damaged, Foreign, Observed, Unknown
from infra.watch.refusals import EVERYWHERE, NOT_HERE, refusal
from job.run.claims import SeenEnd
from job.run.head import Status

GONE: dict[str, Any] = {"vms": (), "looked_up": None, "heartbeat_s": NOW_S - 100}
STOPPED = vm(status=VmStatus.STOPPED, stopped_s=NOW_S - 30)
STOPPING = vm(status=VmStatus.STOPPING)
BY_ALICE = operation(OperationKind.DELETE, "alice@x")
BY_SYSTEM = operation(OperationKind.DELETE)
HOST = operation(OperationKind.HOST_ERROR)
GUEST = operation(OperationKind.GUEST)


def found(observed: Observed, *, wanted: bool = True) -> Found:
    newest = observed.claims.newest
    assert newest is not None
    return judge(newest, observed, POLICY, wanted=wanted)


def ended(observed: Observed, *, wanted: bool = True) -> SeenEnd:
    judged = found(observed, wanted=wanted)
    assert judged.end is not None, judged
    return judged.end


def test_a_vm_that_runs_and_beats_is_left_alone() -> None:
    assert found(seen()) == Found()
    assert found(seen(claim(doubted_at_s=NOW_S - 500))) == Found(doubt=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"vms": Unknown("503")},
        {"vms": (), "unreachable": frozenset({"us-central1-a"}), "operations": (PREEMPTED,)},
        {"vms": (), "unreachable": frozenset({"us-central1"}), "operations": (PREEMPTED,)},
        {"vms": (), "looked_up": None},
        {"vms": (), "looked_up": Unknown("503"), "operations": (INSERTED,), "heartbeat_s": NOW_S - 9000},
        {"vms": (), "looked_up": vm(), "operations": (INSERTED,), "heartbeat_s": NOW_S - 9000},
        {"vms": (), "looked_up": None, "operations": (INSERTED,), "heartbeat_s": Unknown("503")},
        {"vms": (STOPPED,)},
        {"vms": (STOPPED,), "operations": (PREEMPTED,), "head": Unknown("503")},
        {"vms": (STOPPED,), "operations": (PREEMPTED,), "exit": Unknown("503")},
        {"heartbeat_s": Unknown("503")},
        {"exit": last(1)},
    ],
)
def test_a_look_that_failed_ends_nothing(changes: dict[str, Any]) -> None:
    for doubted_at_s in (None, NOW_S - 9000):
        judged = found(seen(claim(doubted_at_s=doubted_at_s), **changes))
        assert (judged.end, judged.ask) == (None, False)


@pytest.mark.parametrize("shown", [(), (STOPPING,), (STOPPED,)])
def test_what_the_cloud_did_ends_it_at_once(shown: Any) -> None:
    def how(*operations: Any, **changes: Any) -> tuple[str, float]:
        over = ended(seen(vms=shown, operations=operations, looked_up=None, **changes))
        assert over.vouched
        return over.how, over.at_s

    assert how(PREEMPTED) == ("preempted", NOW_S - 10)
    assert how(replace(PREEMPTED, done=False)) == ("preempted", NOW_S - 10)
    assert how(HOST) == ("host error", NOW_S - 10)
    assert how(BY_SYSTEM) == ("preempted", NOW_S - 10)
    assert how(BY_ALICE) == ("deleted", NOW_S - 10)
    assert how(operation(OperationKind.STOP, "alice@x")) == ("deleted", NOW_S - 10)
    assert how(BY_ALICE, HOST, PREEMPTED)[0] == "preempted"
    assert how(BY_ALICE, HOST)[0] == "host error"
    assert "alice@x" in ended(seen(vms=shown, operations=(BY_ALICE,), looked_up=None)).detail
    drill = ended(seen(claim(drill="bob"), vms=shown, operations=(BY_ALICE,), looked_up=None))
    assert (drill.how, drill.vouched) == ("preempted", True)
    assert "bob" in drill.detail
    assert ended(seen(vms=shown, operations=(BY_ALICE,), looked_up=None), wanted=False).how == "stopped"


def test_an_operation_that_failed_ended_nothing() -> None:
    failed = replace(BY_ALICE, trouble=Trouble(TroubleKind.FORBIDDEN, "c", "m"))
    assert found(seen(vms=(STOPPING,), operations=(failed,))).end is None


@pytest.mark.parametrize(
    ("exit_", "how", "vouched"),
    [
        (last(0), "crashed", True),
        (last(1), "crashed", True),
        (last(139), "crashed", True),
        (last(137, "out of memory"), "out of memory", True),
        (last(1, "sick gpu"), "sick gpu", True),
        (last(1, "pull"), "boot failure", True),
        (last(1, "boot"), "boot failure", True),
        (last(2), "refused", True),
        (last(3), "refused", True),
        (last(4), "fenced", True),
        (last(76), "waiting", True),
        (last(75), "preempted", False),
    ],
)
def test_the_last_word_of_the_container_says_how(exit_: Any, how: str, vouched: bool) -> None:
    for shown in ((vm(),), (STOPPED,)):
        over = ended(seen(vms=shown, operations=(GUEST,), exit=exit_))
        assert (over.how, over.vouched, over.exit_code) == (how, vouched, exit_.record.exit_code)
        assert (over.durable_step, over.ran_from_s) == (10, NOW_S - 3500)
    assert ended(seen(vms=(STOPPED,), operations=(PREEMPTED,), exit=exit_)).how == "preempted"


def test_a_last_word_from_before_its_vm_is_none() -> None:
    forged = replace(last(75), at_s=NOW_S - 3600)
    assert found(seen(vms=(vm(created_s=NOW_S - 3599),), operations=(INSERTED,), exit=forged)) == Found()
    asked = replace(INSERTED, done=False, at_s=NOW_S - 3599)
    late = claim(ago_s=60)
    assert found(seen(late, vms=(), operations=(asked,), looked_up=None, exit=forged)).end is None
    assert ended(seen(vms=(vm(created_s=NOW_S - 3600),), operations=(INSERTED,), exit=forged)).how == "preempted"


def test_a_drill_and_a_stop_explain_exit_75() -> None:
    drill = ended(seen(claim(drill="me"), operations=(), exit=last(75)))
    assert (drill.how, drill.vouched) == ("preempted", True)
    assert ended(seen(operations=(), exit=last(75)), wanted=False).how == "stopped"
    assert ended(seen(operations=(), exit=last(3)), wanted=False).how == "stopped"
    assert ended(seen(operations=(), exit=last(2)), wanted=False).how == "refused"
    assert ended(seen(operations=(), exit=last(75), head=head(Status.WAITING))).how == "waiting"
    assert ended(seen(operations=(), exit=last(75), head=head(Status.WAITING, attempt=2))).how == "preempted"
    assert ended(seen(operations=(), exit=last(1, "pull", "no such image"))).detail == "pull: no such image"
    assert ended(seen(operations=(), exit=last(76, detail="no judge"))).detail == "no judge"


def test_a_finished_run_has_a_moment_to_power_off() -> None:
    done = head(Status.FINISHED, ago_s=POLICY.finish_s - 1)
    assert found(seen(head=done)) == Found()
    assert found(seen(head=done, vms=Unknown())) == Found()
    assert ended(seen(head=done, exit=last(0))).how == "finished"
    assert ended(seen(head=done, vms=(STOPPING,))).how == "finished"
    assert ended(seen(head=done, vms=())).how == "finished"
    assert ended(seen(head=head(Status.FINISHED, ago_s=POLICY.finish_s))).how == "finished"
    assert ended(seen(head=done, vms=(vm(status=VmStatus.STARTING),), exit=last(1))).how == "finished"
    assert found(seen(head=done, vms=(vm(status=VmStatus.STARTING),))) == Found()


def test_silence_is_believed_at_the_second_look() -> None:
    silent = {"heartbeat_s": NOW_S - POLICY.silent_s - 1}
    assert found(seen(heartbeat_s=NOW_S - POLICY.silent_s)) == Found()
    assert found(seen(**silent)) == Found(doubt=True)
    assert found(seen(claim(doubted_at_s=NOW_S - POLICY.doubt_s + 1), **silent)) == Found(doubt=True)
    over = ended(seen(claim(doubted_at_s=NOW_S - POLICY.doubt_s), **silent))
    assert over.how == "hung"
    assert "301 s" in over.detail


def test_a_vm_that_never_gave_a_sign_of_life_failed_to_boot() -> None:
    young = {"heartbeat_s": None, "vms": (vm(ago_s=POLICY.boot_s),)}
    assert found(seen(**young)) == Found()
    old = {"heartbeat_s": None, "vms": (vm(ago_s=POLICY.boot_s + 1),)}
    assert found(seen(**old)) == Found(doubt=True)
    assert ended(seen(claim(doubted_at_s=NOW_S - 60), **old)).how == "boot failure"
    assert found(seen(claim(ago_s=10, doubted_at_s=NOW_S - 60), **old)) == Found(doubt=False)
    starting = vm(status=VmStatus.STARTING, ago_s=POLICY.insert_s - 20)
    assert found(seen(vms=(starting,), heartbeat_s=None)) == Found()
    assert found(seen(claim(doubted_at_s=NOW_S), vms=(starting,), heartbeat_s=None)) == Found(doubt=False)
    starting = vm(status=VmStatus.STARTING, ago_s=POLICY.insert_s)
    assert ended(seen(vms=(starting,), heartbeat_s=None)).how == "boot failure"


def test_an_attempt_that_left_in_order_is_over_though_its_vm_stays() -> None:
    for status, how, vouched in ((Status.RELEASED, "preempted", False), (Status.WAITING, "waiting", True)):
        assert found(seen(head=head(status, ago_s=POLICY.leave_s))) == Found()
        over = ended(seen(head=head(status, ago_s=POLICY.leave_s + 1)))
        assert (over.how, over.vouched) == (how, vouched)
        stopped = ended(seen(vms=(STOPPED,), operations=(), head=head(status)))
        assert (stopped.how, stopped.vouched) == (how, vouched)
        assert found(seen(head=head(status, attempt=2, ago_s=900))) == Found()
    assert found(seen(head=head(ago_s=9000))) == Found()
    assert ended(seen(head=head(Status.WAITING, ago_s=900))).detail == "the judge is down"


def test_a_vm_that_stopped_without_a_reason_is_doubted_first() -> None:
    doubted = claim(doubted_at_s=NOW_S - POLICY.doubt_s)
    assert found(seen(vms=(STOPPED,), operations=())) == Found(doubt=True)
    assert found(seen(claim(doubted_at_s=NOW_S - 59), vms=(STOPPED,), operations=())) == Found(doubt=True)
    over = ended(seen(doubted, vms=(STOPPED,), operations=()))
    assert (over.how, over.vouched, over.at_s) == ("preempted", False, NOW_S - 30)
    over = ended(seen(doubted, vms=(STOPPED,), operations=(GUEST,)))
    assert (over.how, over.at_s) == ("crashed", NOW_S - 30)
    assert found(seen(doubted, vms=(STOPPING,), operations=(GUEST,))) == Found()
    over = ended(seen(vms=(STOPPED,), operations=()), wanted=False)
    assert (over.how, over.at_s) == ("stopped", NOW_S - 30)
    assert found(seen(vms=(STOPPING,), operations=()), wanted=False) == Found()


def test_a_vm_that_is_gone_without_a_reason_is_doubted_first_and_never_while_it_beats() -> None:
    doubted = claim(doubted_at_s=NOW_S - POLICY.doubt_s)
    assert found(seen(operations=(INSERTED,), **GONE)) == Found(doubt=True)
    assert found(seen(claim(doubted_at_s=NOW_S - 59), operations=(INSERTED,), **GONE)) == Found(doubt=True)
    over = ended(seen(doubted, operations=(INSERTED,), **GONE))
    assert (over.how, over.vouched, over.ran_from_s) == ("preempted", False, INSERTED.at_s)
    beats = {**GONE, "heartbeat_s": NOW_S - POLICY.fresh_s}
    assert found(seen(doubted, operations=(INSERTED,), **beats)) == Found(doubt=False)
    beats = {**GONE, "heartbeat_s": NOW_S - POLICY.fresh_s - 1}
    assert found(seen(doubted, operations=(INSERTED,), **beats)).end is not None
    assert found(seen(operations=(), **GONE)) == Found(doubt=True)


def test_an_open_claim_is_asked_for_until_its_grace_has_passed() -> None:
    new: dict[str, Any] = {"vms": (), "looked_up": None, "heartbeat_s": None, "head": None, "operations": ()}
    assert found(seen(claim(ago_s=POLICY.grace_s, instance_id=None), **new)) == Found(ask=True, doubt=False)
    assert found(seen(claim(ago_s=POLICY.grace_s, instance_id=None), **new), wanted=False) == Found(doubt=False)
    over = ended(seen(claim(ago_s=POLICY.grace_s + 1, instance_id=None), **new))
    assert (over.how, over.ran_from_s, over.durable_step) == ("never created", None, None)
    beats = {**new, "heartbeat_s": NOW_S - 5}
    assert found(seen(claim(ago_s=700, instance_id=None), **beats)) == Found(doubt=False)
    known = {**new, "operations": (INSERTED,)}
    assert found(seen(claim(ago_s=100, instance_id=None), **known)) == Found(doubt=True)


def test_a_vm_of_the_name_that_is_not_ours_needs_a_person() -> None:
    """Its own past says nothing of the claim: neither how it ended nor what it cost."""
    deleted = operation(OperationKind.DELETE, "alice@x", ago_s=90_000)
    asked = replace(INSERTED, at_s=NOW_S - 80_000)
    new: dict[str, Any] = {
        "vms": (),
        "looked_up": Foreign(vm(labels={})),
        "heartbeat_s": None,
        "head": None,
        "operations": (deleted, asked),
    }
    one = claim(ago_s=5, instance_id=None)
    over = ended(seen(one, **new))
    assert (over.how, over.ran_from_s, over.exit_code) == ("refused", None, None)
    assert f"{one.vm} is in us-central1-a without the run's labels" in over.detail
    assert len(over.detail) < 190, "the verdict before it has to fit too"
    told = refusal(one, Trouble(TroubleKind.TAKEN, "alreadyExists", "it exists"), NOW_S, 7)
    assert told is not None
    assert (told.how, told.detail) == ("refused", over.detail)
    assert found(seen(one, **{**new, "operations": Unknown("503")})) == Found()


def test_a_vm_that_lost_its_labels_is_left_alone_while_it_lives() -> None:
    bare: dict[str, Any] = {"vms": (), "looked_up": Foreign(vm(labels={})), "operations": (INSERTED,)}
    assert found(seen(heartbeat_s=NOW_S - POLICY.fresh_s, **bare)) == Found(doubt=False)
    assert found(seen(heartbeat_s=Unknown("503"), **bare)) == Found()
    silent = {"heartbeat_s": NOW_S - POLICY.fresh_s - 1, **bare}
    assert found(seen(**silent)) == Found(doubt=True)
    assert found(seen(claim(doubted_at_s=NOW_S - POLICY.doubt_s + 1), **silent)) == Found(doubt=True)
    over = ended(seen(claim(doubted_at_s=NOW_S - POLICY.doubt_s), **silent))
    assert (over.how, over.ran_from_s) == ("refused", NOW_S - 3600)


def test_an_insert_under_way_is_waited_for() -> None:
    under_way = replace(INSERTED, done=False, ended_s=None)
    new: dict[str, Any] = {"vms": (), "looked_up": None, "heartbeat_s": None, "operations": (under_way,)}
    assert found(seen(claim(ago_s=POLICY.insert_s, instance_id=None), **new)) == Found(doubt=False)
    assert ended(seen(claim(ago_s=POLICY.insert_s + 1, instance_id=None), **new)).how == "never created"


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (TroubleKind.STOCKOUT, "stockout"),
        (TroubleKind.UNSUPPORTED, "stockout"),
        (TroubleKind.QUOTA, "quota"),
        (TroubleKind.QUOTA_EVERYWHERE, "quota"),
        (TroubleKind.RATE_LIMIT, "rate limit"),
        (TroubleKind.PREEMPTED, "preempted"),
        (TroubleKind.INVALID, "refused"),
        (TroubleKind.UNAVAILABLE, "never created"),
        (TroubleKind.FORBIDDEN, "never created"),
    ],
)
def test_a_refusal_inside_the_operation_ends_the_claim(kind: TroubleKind, how: str) -> None:
    over = ended(seen(claim(instance_id=None), vms=(), heartbeat_s=None, operations=(refused(kind),)))
    assert (over.how, over.ran_from_s, over.durable_step) == (how, None, 10)
    assert "CODE: words" in over.detail


def test_only_refusals_that_stand_end_a_claim_by_themselves() -> None:
    def of(kind: TroubleKind, **changes: Any) -> SeenEnd | None:
        return refusal(claim(), replace(Trouble(kind, "C", "m"), **changes), NOW_S, 7)

    for kind in (
        TroubleKind.UNAVAILABLE,
        TroubleKind.CREDENTIALS,
        TroubleKind.FORBIDDEN,
        TroubleKind.NOT_READY,
        TroubleKind.NOT_FOUND,
    ):
        assert of(kind) is None
    stockout = of(TroubleKind.STOCKOUT)
    assert stockout is not None
    assert (stockout.at_s, stockout.durable_step, stockout.detail) == (NOW_S, 7, "C: m")
    unsupported = of(TroubleKind.UNSUPPORTED)
    assert unsupported is not None
    assert unsupported.detail.startswith(NOT_HERE)
    quota = of(TroubleKind.QUOTA, metric="L4_GPUS", region="us-east4", limit=1.0)
    assert quota is not None
    assert quota.detail == "L4_GPUS in us-east4, limit 1 (C: m)"
    without = of(TroubleKind.QUOTA)
    assert without is not None
    assert without.detail == "quota in us-central1-a (C: m)"
    everywhere = of(TroubleKind.QUOTA_EVERYWHERE, metric="GPUS_ALL_REGIONS", limit=0.0)
    assert everywhere is not None
    assert EVERYWHERE in everywhere.detail


def test_the_durable_step_of_a_damaged_head_is_the_last_that_was_recorded() -> None:
    before = (claim(1, ended=an_end(durable_step=7)), claim(2, ended=an_end(durable_step=None)), claim(3))
    assert durable_step(seen(*before, head=Damaged("x"))) == 7
    assert durable_step(seen(head=Damaged("x"))) is None
    assert durable_step(seen(head=None)) is None
    assert durable_step(seen(head=head(step=None))) is None
    assert durable_step(seen()) == 10
    assert ended(seen(head=Damaged("x"), vms=(STOPPED,), operations=(PREEMPTED,))).how == "preempted"


def test_a_damaged_last_word_is_none() -> None:
    assert found(seen(exit=Damaged("x"))) == Found()


def test_a_vm_is_paid_for_from_its_start_and_else_from_the_earliest_time_known() -> None:
    one = claim(instance_id=None)
    assert ran_from_s(one, vm(), seen()) == NOW_S - 3500
    assert ran_from_s(one, vm(started_s=None), seen()) == NOW_S - 3520
    gone = {"heartbeat_s": None}
    assert ran_from_s(one, None, seen(**gone)) is None
    assert ran_from_s(one, None, seen(operations=(), **gone)) is None
    assert ran_from_s(claim(), None, seen(**gone)) == NOW_S - 3600
    assert ran_from_s(one, None, seen()) == NOW_S - 3600
    assert ran_from_s(one, None, seen(operations=(INSERTED,), **gone)) == NOW_S - 3550
    assert ran_from_s(one, None, seen(operations=(refused(TroubleKind.STOCKOUT),), **gone)) is None
    assert ran_from_s(one, None, seen(operations=(refused(TroubleKind.STOCKOUT),))) == NOW_S - 3600


def test_an_end_is_never_before_the_start_nor_in_the_future() -> None:
    early = operation(OperationKind.PREEMPTED, ago_s=5000)
    over = ended(seen(vms=(STOPPED,), operations=(early,)))
    assert over.at_s == over.ran_from_s == NOW_S - 3500
    late = operation(OperationKind.PREEMPTED, ago_s=-50)
    assert ended(seen(vms=(STOPPED,), operations=(late,))).at_s == NOW_S
