"""What is done for a run's VMs: claims before VMs, ends before what follows, the cap, final states, leftovers."""

from dataclasses import replace
from typing import Any

import pytest
from seen import (
    INSERTED,
    NOW_S,
    POLICY,
    PREEMPTED,
    SPOT,
    URI,
    claim,
    head,
    last,
    offer,
    refused,
    seen,
    vm,
    wanted,
)
from seen import end as an_end

from infra.cloud.types import TroubleKind, VmStatus
from infra.naming import request_id, vm_name
from infra.recovery import Ask, Plan, decide
from infra.watch.observed import Observed, Unknown, Wanted
from infra.watch.spending import hourly_usd, left_usd, longest_run_s
from job.run.claims import Claim, Claims, SeenEnd
from job.run.head import Status

GONE: dict[str, Any] = {"vms": (), "looked_up": None, "operations": (PREEMPTED,)}


def decided(observed: Observed, of: Wanted | None = None) -> Plan:
    return decide(of or wanted(), observed, POLICY)


def newest(plan: Plan) -> Claim:
    assert plan.after.newest is not None
    return plan.after.newest


def over(plan: Plan, number: int) -> SeenEnd:
    found = plan.after.attempts[number - 1].ended
    assert found is not None
    return found


def nothing(plan: Plan) -> bool:
    return not (plan.rewrites or plan.asks or plan.stops or plan.deletes)


def test_a_run_that_is_well_is_left_alone() -> None:
    assert nothing(decided(seen()))
    assert decide(wanted(), seen()) == decided(seen())
    assert decide(wanted(), seen(), replace(POLICY, silent_s=1.0)).after.newest != seen().claims.newest


def test_a_run_of_processes_or_one_that_a_person_has_is_left_alone() -> None:
    process = Claim(number=1, kind="process", claimed_at_s=NOW_S - 50, host="h", pid=1)
    assert nothing(decided(seen(process, vms=(), operations=(), looked_up=None, heartbeat_s=None, head=None)))
    assert nothing(decided(seen(claim(ended=an_end()), vms=()), Wanted(URI, None)))
    assert nothing(decided(replace(seen(), claims=Claims(), vms=())))


def test_a_preempted_vm_is_recorded_and_the_next_one_claimed_and_asked_for_in_one_plan() -> None:
    plan = decided(seen(**GONE))
    assert over(plan, 1).how == "preempted"
    claimed = newest(plan)
    assert (claimed.number, claimed.kind, claimed.claimed_at_s, claimed.ended) == (2, "vm", NOW_S, None)
    assert (claimed.zone, claimed.machine_type, claimed.spot) == ("us-central1-b", "g2-standard-4", True)
    assert (claimed.vm, claimed.request_id) == (vm_name(URI, 2), request_id(URI, 2, NOW_S))
    assert claimed.usd_per_hour == pytest.approx(0.41)
    assert [ask.claim for ask in plan.asks] == [claimed]
    assert plan.asks[0].max_run_s == longest_run_s(wanted().machine, plan.after, claimed, POLICY)  # type: ignore[arg-type]
    assert plan.note == f"asking for {claimed.vm} in us-central1-b"
    assert plan.before == seen().claims


def test_an_open_claim_is_finished_with_its_own_name_and_number() -> None:
    unborn = claim(ago_s=30, instance_id=None)
    plan = decided(seen(unborn, vms=(), looked_up=None, operations=(), heartbeat_s=None, head=None))
    assert plan.asks == (Ask(unborn, int(20 / 0.4 * 3600)),)
    assert not plan.rewrites
    poor = wanted(max_usd=0.4 * POLICY.stop_s / 3600)
    plan = decided(seen(unborn, vms=(), looked_up=None, operations=(), heartbeat_s=None), poor)
    assert (plan.asks, plan.after.want) == ((), "stop")


def test_the_clouds_number_of_the_vm_is_kept() -> None:
    plan = decided(seen(claim(instance_id=None)))
    assert newest(plan).instance_id == "1001"
    assert not plan.asks
    assert newest(decided(seen(vms=(vm(instance_id="2002"),)))).instance_id == "2002"


def test_a_doubt_is_written_kept_and_taken_back() -> None:
    silent = {"heartbeat_s": NOW_S - 400}
    assert newest(decided(seen(**silent))).doubted_at_s == NOW_S
    again = decided(seen(claim(doubted_at_s=NOW_S - 30), **silent))
    assert not again.rewrites
    assert newest(decided(seen(claim(doubted_at_s=NOW_S - 30)))).doubted_at_s is None
    plan = decided(seen(claim(doubted_at_s=NOW_S - 60), **silent))
    assert (over(plan, 1).how, plan.after.attempts[0].doubted_at_s) == ("hung", None)
    assert [delete.vm.name for delete in plan.deletes] == [vm_name(URI, 1)]
    assert newest(plan).number == 2


def test_a_refused_insert_is_followed_by_the_next_zone() -> None:
    stockout = refused(TroubleKind.STOCKOUT)
    plan = decided(seen(claim(instance_id=None), vms=(), heartbeat_s=None, operations=(stockout,)))
    assert (over(plan, 1).how, newest(plan).zone) == ("stockout", "us-central1-b")


def test_without_capacity_anywhere_it_says_when_it_tries_next() -> None:
    ends = [an_end("stockout", ran_s=None)] * 3
    claims = [claim(n, ended=e, zone=o.zone) for n, (e, o) in enumerate(zip(ends, SPOT, strict=True), 1)]
    plan = decided(seen(*claims, vms=()))
    assert nothing(plan)
    assert plan.next_try_s == NOW_S + 500
    assert plan.note.startswith("no capacity")
    assert len(plan.blocked) == 3


def test_a_run_without_quota_fails_and_says_which() -> None:
    quota = an_end("quota", ran_s=None, detail="L4_GPUS in us-central1, limit 0")
    one = replace(wanted(), spot=SPOT[:1])
    plan = decided(seen(claim(ended=quota), vms=()), one)
    assert (plan.after.want, len(plan.after.attempts)) == ("failed", 1)
    assert "L4_GPUS in us-central1, limit 0" in (plan.after.reason or "")
    assert plan.note == "no quota: L4_GPUS in us-central1, limit 0"
    assert len(plan.blocked) == 1


@pytest.mark.parametrize("want", ["stop", "failed"])
def test_final_states_are_final(want: Any) -> None:
    assert nothing(decided(seen(claim(ended=an_end()), vms=(), want=want)))
    done = decided(seen(claim(ended=an_end()), vms=(), head=head(Status.FINISHED)))
    assert nothing(done)
    assert done.note == "finished"
    unborn = {"vms": (), "looked_up": None, "operations": (), "heartbeat_s": None}
    assert nothing(decided(seen(claim(instance_id=None, ago_s=60), want=want, **unborn)))


def test_nothing_is_opened_while_head_is_unknown() -> None:
    assert nothing(decided(seen(claim(ended=an_end()), vms=(), head=Unknown("503"))))
    assert newest(decided(seen(claim(ended=an_end()), vms=(), head=None))).number == 2
    assert newest(decided(seen(claim(ended=an_end()), vms=Unknown("503")))).number == 2


def test_a_vm_that_a_person_ended_stops_the_run() -> None:
    deleted = an_end("deleted", detail="delete by alice@x")
    plan = decided(seen(claim(ended=deleted), vms=()))
    assert (plan.after.want, len(plan.after.attempts)) == ("stop", 1)
    assert "alice@x" in (plan.after.reason or "")
    assert plan.note == plan.after.reason
    resumed = decided(seen(claim(ended=deleted), vms=(), resumed_at_s=NOW_S - 99))
    assert newest(resumed).number == 2
    assert decided(seen(claim(ended=deleted), vms=(), resumed_at_s=NOW_S - 100)).after.want == "stop"


def test_an_attempt_that_needs_a_person_fails_the_run() -> None:
    plan = decided(seen(claim(ended=an_end("refused", exit_code=3, detail="no credentials")), vms=()))
    assert plan.after.want == "failed"
    assert plan.after.reason == "attempt 1 needs a person (exit 3): no credentials"
    without = decided(seen(claim(ended=an_end("refused")), vms=()))
    assert without.after.reason == "attempt 1 needs a person: refused"


def test_three_failures_in_a_row_fail_the_run() -> None:
    crash, hang = an_end("crashed"), an_end("hung")
    two = [claim(1, ended=crash), claim(2, ended=hang)]
    assert newest(decided(seen(*two, vms=()))).number == 3
    plan = decided(seen(*two, claim(3, ended=crash), vms=()))
    assert plan.after.want == "failed"
    assert plan.after.reason == "3 attempts in a row ended without a step after 10: crashed, hung"
    none = an_end("crashed", durable_step=None)
    plan = decided(seen(*(claim(n, ended=none) for n in (1, 2, 3)), vms=(), head=None))
    assert plan.after.reason == "3 attempts in a row ended without any step: crashed"


# --- the cap -----------------------------------------------------------------------------------------------------


def test_an_attempt_is_told_to_stop_in_time_before_the_cap() -> None:
    spent = 0.4 * 3500 / 3600
    margin = 0.4 * POLICY.stop_s / 3600
    assert nothing(decided(seen(), wanted(max_usd=spent + margin + 1e-6)))
    assert nothing(decided(seen(claim(usd_per_hour=None)), wanted(max_usd=1e-6)))
    plan = decided(seen(), wanted(max_usd=spent + margin - 1e-6))
    assert (plan.after.want, newest(plan).ended, plan.deletes) == ("stop", None, ())
    assert "cap" in (plan.after.reason or "")
    assert f"${spent:.2f} spent" in (plan.after.reason or "")


def test_at_the_cap_the_vm_is_deleted() -> None:
    plan = decided(seen(want="stop", claims_at_s=NOW_S - 5), wanted(max_usd=0.4 * 3500 / 3600))
    assert over(plan, 1).how == "capped"
    assert not plan.deletes  # its last minute: the container may still be saving
    later = decided(seen(claim(ended=an_end("capped", ago_s=POLICY.leave_s + 1)), want="stop", vms=(vm(),)))
    assert len(later.deletes) == 1


def test_no_vm_is_claimed_for_less_than_a_boot() -> None:
    ended = an_end(ago_s=100, ran_s=1000)
    spent = 0.4 * 1060 / 3600
    boot = 0.41 * POLICY.shortest_s / 3600
    assert newest(decided(seen(claim(ended=ended), vms=()), wanted(max_usd=spent + boot + 1e-6))).number == 2
    plan = decided(seen(claim(ended=ended), vms=()), wanted(max_usd=spent + boot - 1e-6))
    assert (plan.after.want, len(plan.after.attempts)) == ("stop", 1)
    assert plan.note == plan.after.reason


def test_money_is_counted_by_the_clouds_times() -> None:
    machine = wanted().machine
    assert machine is not None

    def spent(*claims: Claim, **changes: Any) -> float:
        return 20 - left_usd(machine, seen(*claims, **changes), POLICY)

    assert spent() == pytest.approx(0.4 * 3500 / 3600)
    assert spent(vms=(vm(started_s=None),)) == pytest.approx(0.4 * 3520 / 3600)
    assert spent(vms=Unknown("503")) == pytest.approx(0.4)
    assert spent(claim(instance_id=None), vms=Unknown("503")) == pytest.approx(0.4)
    assert spent(vms=()) == pytest.approx(0.4)
    assert spent(claim(instance_id=None), vms=()) == 0
    assert spent(claim(ended=an_end(ran_s=1000)), vms=()) == pytest.approx(0.4 * 1060 / 3600)
    assert spent(claim(ended=an_end(ran_s=None)), vms=()) == 0
    assert spent(claim(ended=an_end(ran_s=-5)), vms=()) == pytest.approx(0.4 * 60 / 3600)
    assert spent(claim(usd_per_hour=None)) == 0
    assert spent(claim(usd_per_hour=None, ended=an_end()), vms=()) == 0
    assert spent(claim(kind="process")) == 0
    assert spent(claim(1, ended=an_end(ran_s=1000)), claim(2)) == pytest.approx(0.4 * 4560 / 3600)
    future = vm(started_s=NOW_S + 50)
    assert spent(vms=(future,)) == 0


def test_the_platforms_own_limit_is_what_is_left_of_the_cap() -> None:
    machine = wanted().machine
    assert machine is not None
    claims = Claims(attempts=(claim(1, ended=an_end(ran_s=3600 - 60)), claim(2)))
    assert longest_run_s(machine, claims, claims.attempts[1], POLICY) == int((20 - 0.4) / 0.4 * 3600)
    assert longest_run_s(machine, claims, claims.attempts[0], POLICY) == int(20 / 0.4 * 3600)
    assert longest_run_s(machine, claims, claim(2, usd_per_hour=None), POLICY) == 0


def test_a_bucket_elsewhere_costs_its_traffic() -> None:
    assert hourly_usd(offer(), POLICY) == 0.4
    assert hourly_usd(offer(usd_per_gib=0.02), POLICY) == pytest.approx(0.42)


# --- stopping ----------------------------------------------------------------------------------------------------


def test_a_stopped_run_has_time_to_save_what_it_has() -> None:
    soon = {"want": "stop", "reason": "by me", "claims_at_s": NOW_S - POLICY.stop_s}
    assert nothing(decided(seen(**soon)))
    assert nothing(decided(seen(**{**soon, "vms": Unknown("503"), "claims_at_s": NOW_S - 9000})))
    assert nothing(decided(seen(**{**soon, "head": Unknown("503"), "claims_at_s": NOW_S - 9000})))
    late = decided(seen(**{**soon, "claims_at_s": NOW_S - POLICY.stop_s - 1}))
    assert (over(late, 1).how, over(late, 1).detail, len(late.after.attempts)) == ("stopped", "by me", 1)
    assert (over(late, 1).ran_from_s, over(late, 1).durable_step, over(late, 1).at_s) == (NOW_S - 3500, 10, NOW_S)
    released = decided(seen(**{**soon, "head": head(Status.RELEASED)}))
    assert over(released, 1).how == "stopped"
    assert nothing(decided(seen(**{**soon, "head": head(Status.RELEASED, attempt=7)})))
    assert nothing(decided(seen(**{**soon, "head": None})))
    starting = decided(seen(**{**soon, "vms": (vm(status=VmStatus.STARTING, ago_s=100),)}))
    assert over(starting, 1).how == "stopped"
    gone = decided(seen(**{**soon, **GONE}))
    assert over(gone, 1).how == "preempted"
    going = {"vms": (vm(status=VmStatus.STOPPING),), "operations": (PREEMPTED,), "claims_at_s": NOW_S - 900}
    assert over(decided(seen(**{**soon, **going})), 1).how == "preempted"


def test_a_vm_that_starts_after_the_clocks_moment_does_not_end_before_it() -> None:
    ahead = vm(status=VmStatus.STARTING, started_s=NOW_S + 9, created_s=NOW_S + 8)
    assert over(decided(seen(want="stop", vms=(ahead,))), 1).at_s == NOW_S + 9


# --- back to spot ------------------------------------------------------------------------------------------------


def test_an_on_demand_vm_makes_way_for_spot_after_some_hours() -> None:
    after = wanted(on_demand="after")
    dear = claim(spot=False, ago_s=20_000)
    old = (vm(ago_s=POLICY.spot_again_s, spot=False),)
    plan = decided(seen(dear, vms=old), after)
    assert (over(plan, 1).how, over(plan, 1).at_s, over(plan, 1).durable_step) == ("given back", NOW_S, 10)
    assert over(plan, 1).ran_from_s == NOW_S - POLICY.spot_again_s
    assert newest(plan).spot
    assert [stop.vm.name for stop in plan.stops] == [vm_name(URI, 1)]
    assert not plan.deletes
    assert nothing(decided(seen(dear, vms=(vm(ago_s=POLICY.spot_again_s - 1, spot=False),)), after))
    without = replace(old[0], started_s=None)
    assert over(decided(seen(dear, vms=(without,)), after), 1).how == "given back"
    assert nothing(decided(seen(claim(spot=True, ago_s=20_000), vms=old), after))
    assert nothing(decided(seen(dear, vms=old), wanted(spot=False)))
    for unsure in ({"heartbeat_s": Unknown("503")}, {"head": Unknown("503")}, {"vms": Unknown("503")}):
        assert nothing(decided(seen(dear, **{"vms": old, "heartbeat_s": NOW_S - 5, **unsure}), after))
    starting = (replace(old[0], status=VmStatus.STARTING, created_s=NOW_S - 100),)
    assert nothing(decided(seen(dear, vms=starting), after))
    assert nothing(decided(seen(dear, vms=old), wanted(on_demand="deadline", deadline_s=NOW_S)))
    assert nothing(decided(seen(dear, vms=old, want="stop", claims_at_s=NOW_S - 5), after))
    assert over(decided(seen(dear, vms=old, operations=(), exit=last(1)), after), 1).how == "crashed"
    slack = wanted(on_demand="deadline", deadline_s=NOW_S + 1e9)
    assert over(decided(seen(dear, vms=old), slack), 1).how == "given back"


# --- leftovers ---------------------------------------------------------------------------------------------------


def left(ended: SeenEnd, status: VmStatus = VmStatus.RUNNING) -> Plan:
    return decided(seen(claim(ended=ended), vms=(vm(status=status),), head=head(Status.FINISHED)))


def test_a_vm_of_a_claim_that_is_over_is_deleted_once_it_has_had_its_time() -> None:
    assert not left(an_end(ago_s=POLICY.leave_s)).deletes
    assert len(left(an_end(ago_s=POLICY.leave_s + 1)).deletes) == 1
    assert not left(an_end(ago_s=10), VmStatus.STOPPING).deletes
    assert len(left(an_end(ago_s=10), VmStatus.STOPPED).deletes) == 1
    assert len(left(an_end("hung", ago_s=10)).deletes) == 1
    assert len(left(an_end("boot failure", ago_s=10)).deletes) == 1
    assert not left(an_end("finished", ago_s=10)).deletes
    assert left(an_end(ago_s=900)).deletes[0].why == "attempt 1 is over: preempted"
    assert nothing(decided(seen(claim(ended=an_end()), vms=Unknown("503"), head=head(Status.FINISHED))))
    assert not left(an_end("given back", ago_s=10), VmStatus.STOPPING).stops
    assert len(left(an_end("given back", ago_s=10)).stops) == 1
    assert not left(an_end("preempted", ago_s=10)).stops


def test_a_vm_with_our_labels_that_no_claim_knows_is_deleted_after_a_boot() -> None:
    stranger = vm(9, ago_s=POLICY.superfluous_s - 20)
    assert nothing(decided(seen(vms=(vm(), stranger))))
    stranger = vm(9, ago_s=POLICY.superfluous_s - 19)
    plan = decided(seen(vms=(vm(), stranger)))
    assert [delete.vm.name for delete in plan.deletes] == [vm_name(URI, 9)]
    elsewhere = vm(zone="us-east4-a")
    plan = decided(seen(vms=(vm(), elsewhere)))
    assert [delete.vm.zone for delete in plan.deletes] == ["us-east4-a"]
    orphan = decided(seen(vms=(vm(), stranger)), Wanted(URI, None))
    assert len(orphan.deletes) == 1


def test_a_claim_below_the_newest_is_over() -> None:
    process = Claim(number=2, kind="process", claimed_at_s=NOW_S - 50, host="h", pid=1)
    plan = decided(seen(claim(1), process, vms=(vm(1),)))
    assert (over(plan, 1).how, over(plan, 1).ran_from_s) == ("fenced", NOW_S - 3500)
    assert (over(plan, 1).at_s, over(plan, 1).detail) == (NOW_S, "attempt 2 was claimed")
    assert (plan.asks, plan.deletes, len(plan.after.attempts)) == ((), (), 2)
    assert over(decided(seen(claim(1), process, vms=(vm(1, started_s=None),))), 1).ran_from_s == NOW_S - 3520
    assert over(decided(seen(claim(1, instance_id=None), process, vms=())), 1).ran_from_s is None
    assert over(decided(seen(claim(1), process, vms=())), 1).ran_from_s == NOW_S - 3600
    assert nothing(decided(seen(claim(1), process, vms=Unknown("503"))))
    assert nothing(decided(seen(claim(1), process, vms=(), unreachable=frozenset({"us-central1-a"}))))
    first = Claim(number=1, kind="process", claimed_at_s=NOW_S - 50, host="h", pid=1)
    assert nothing(decided(seen(first, claim(2), vms=(vm(2),))))
    before = decided(seen(claim(1, ended=an_end()), claim(2), vms=(vm(2),)))
    assert nothing(before)
    ahead = vm(1, started_s=NOW_S + 9)
    assert over(decided(seen(claim(1), process, vms=(ahead,))), 1).at_s == NOW_S + 9


def test_a_hostile_vm_stops_or_delays_itself_and_widens_nothing() -> None:
    words = last(75, detail="x" * 5000)
    plan = decided(seen(operations=(), exit=words))
    assert over(plan, 1).vouched is False
    assert len(over(plan, 1).detail) <= 200
    again = claim(1, ended=an_end(vouched=False))
    plan = decided(seen(again, claim(2), operations=(), exit=words))
    assert (len(plan.after.attempts), plan.asks) == (2, ())
    assert plan.next_try_s == NOW_S + 60
    asked = decided(seen(claim(ended=an_end()), vms=(), head=head(step=10**9))).asks[0]
    assert (asked.claim.machine_type, asked.claim.spot) == ("g2-standard-4", True)


def test_an_insert_that_arrived_is_not_asked_for_again() -> None:
    new = {"vms": (), "looked_up": None, "heartbeat_s": None}
    plan = decided(seen(claim(instance_id=None, ago_s=60), operations=(INSERTED,), **new))
    assert plan.asks == ()
    assert newest(plan).doubted_at_s == NOW_S
