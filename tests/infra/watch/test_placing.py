"""Where the next VM is asked for, and when: next zone, cool-down, next region; quotas; on demand; back-off."""

from dataclasses import replace
from typing import Any

import pytest
from seen import NOW_S, ON_DEMAND, POLICY, SPOT, ZONE, claim, head, offer, seen, wanted
from seen import end as an_end

from infra.expected import Work
from infra.watch.observed import Observed
from infra.watch.placing import Place, failures_in_a_row, last_vm_s, needed_s, not_before_s, on_demand_due, place
from infra.watch.refusals import EVERYWHERE, NOT_HERE
from job.run.claims import Claim, SeenEnd
from job.run.head import Status


def after(*ends: SeenEnd | tuple[SeenEnd, str], **changes: Any) -> Observed:
    """A run whose attempts ended so, the oldest first; a zone beside an end is where it was asked for."""
    claims: list[Claim] = []
    for number, one in enumerate(ends, 1):
        over, zone = one if isinstance(one, tuple) else (one, ZONE)
        claims.append(claim(number, ended=over, zone=zone))
    return seen(*claims, vms=(), **changes)


def placed(*ends: SeenEnd | tuple[SeenEnd, str], **changes: Any) -> Place:
    return place(wanted(), after(*ends, **changes), POLICY)


def zone(found: Place) -> str:
    assert found.offer is not None, found
    return found.offer.zone


def stockout(ago_s: float = 100.0) -> SeenEnd:
    return an_end("stockout", ago_s=ago_s, ran_s=None)


def test_the_near_and_cheap_zone_is_the_first() -> None:
    assert zone(placed(an_end("crashed"))) == "us-central1-a"


@pytest.mark.parametrize("how", ["hung", "host error", "sick gpu"])
def test_where_a_vm_came_to_harm_lately_is_liked_less(how: Any) -> None:
    assert zone(placed(an_end(how, ago_s=POLICY.shunned_s - 1))) == "us-central1-b"
    assert zone(placed(an_end(how, ago_s=POLICY.shunned_s))) == "us-central1-a"
    one = replace(wanted(), spot=SPOT[:1])
    assert zone(place(one, after(an_end(how)), POLICY)) == "us-central1-a"


def test_a_zone_that_preempts_is_dearer_the_more_the_sooner_it_does() -> None:
    assert zone(placed(an_end("preempted"))) == "us-central1-b"
    assert zone(placed(an_end("preempted", ran_s=30 * 3600))) == "us-central1-a", "a long life speaks for it"
    dear = replace(wanted(), spot=(offer(), offer("us-central1-b", 0.4 * 1.26)))
    assert zone(place(dear, after(an_end("preempted")), POLICY)) == "us-central1-a"
    often = [an_end("preempted", ago_s=1000 * number, ran_s=600, durable_step=10) for number in range(9, 0, -1)]
    assert zone(place(dear, after(*often), POLICY)) == "us-central1-b"


def test_what_is_left_to_do_decides_what_a_start_elsewhere_is_worth() -> None:
    far = replace(wanted(), spot=(offer(), offer("us-east4-a", 0.33, usd_per_gib=0.02)), work=Work(hours=40.0))
    begun, ended = (after(an_end("crashed"), head=head(step=step)) for step in (1, 99))
    assert zone(place(far, begun, POLICY)) == "us-east4-a"
    assert zone(place(far, ended, POLICY)) == "us-central1-a"


def test_harm_is_worth_a_dearer_zone() -> None:
    dear = replace(wanted(), spot=(offer(), offer("us-central1-b", 0.4 * 1.26)))
    assert zone(place(dear, after(an_end("sick gpu")), POLICY)) == "us-central1-b"
    assert zone(place(dear, after(an_end("host error")), POLICY)) == "us-central1-b"


def test_after_a_stockout_the_next_zone_then_the_next_region_then_patience() -> None:
    assert zone(placed(stockout())) == "us-central1-b"
    assert zone(placed(stockout(), (stockout(), "us-central1-b"))) == "us-east4-a"
    ends = (stockout(300), (stockout(200), "us-central1-b"), (stockout(100), "us-east4-a"))
    all_full = placed(*ends)
    assert (all_full.offer, all_full.hopeless) == (None, False)
    assert all_full.next_try_s == NOW_S - 300 + POLICY.stockout_s
    assert all_full.why.startswith("no capacity: us-central1-a: stockout")
    assert [block.where for block in all_full.blocked] == ["us-central1-a", "us-central1-b", "us-east4-a"]


def test_a_stockout_cools_down_half_as_long_again_each_time() -> None:
    one = replace(wanted(), spot=SPOT[:1])

    def until(*ago_s: float) -> float | None:
        return place(one, after(*(stockout(ago) for ago in ago_s)), POLICY).next_try_s

    assert until(599) == NOW_S + 1
    assert place(one, after(stockout(600)), POLICY).offer is not None
    assert until(2000, 100) == NOW_S - 100 + 900
    assert until(3000, 2000, 100) == NOW_S - 100 + 1350
    assert until(5000, 4000, 3000, 2000, 100) == NOW_S - 100 + 1800
    broken = after(stockout(2000), an_end("preempted", ago_s=1500), stockout(100))
    assert place(one, broken, POLICY).next_try_s == NOW_S - 100 + 600


def test_a_zone_without_such_a_machine_is_not_asked_again() -> None:
    absent = an_end("stockout", ago_s=86_400, ran_s=None, detail=f"{NOT_HERE} (x)")
    assert zone(placed(absent)) == "us-central1-b"
    one = replace(wanted(), spot=SPOT[:1])
    assert place(one, after(absent), POLICY).next_try_s == NOW_S - 86_400 + POLICY.unsupported_s
    old = absent.model_copy(update={"at_s": NOW_S - POLICY.unsupported_s})
    assert zone(placed(old)) == "us-central1-a"


def test_without_quota_the_region_is_left_alone_and_said() -> None:
    quota = an_end("quota", ran_s=None, detail="L4 in us-central1, limit 0")
    assert zone(placed(quota)) == "us-east4-a"
    both = placed(quota, (quota.model_copy(update={"detail": "L4 in us-east4"}), "us-east4-c"))
    assert (both.offer, both.hopeless) == (None, True)
    assert "L4 in us-central1, limit 0" in both.why
    assert "L4 in us-east4" in both.why
    mixed = placed(quota, (stockout(), "us-east4-a"))
    assert (mixed.offer, mixed.hopeless) == (None, False)
    assert mixed.next_try_s == NOW_S + 500
    old = quota.model_copy(update={"at_s": NOW_S - POLICY.quota_s})
    assert zone(placed(old)) == "us-central1-a"
    on_demand = claim(1, ended=quota, spot=False)
    assert zone(place(wanted(), seen(on_demand, vms=()), POLICY)) == "us-central1-a"


def test_a_quota_of_the_whole_project_needs_a_person() -> None:
    everywhere = an_end("quota", ran_s=None, detail=f"GPUS_ALL_REGIONS {EVERYWHERE}, limit 0")
    found = placed(everywhere, (stockout(50), "us-central1-b"))
    assert found.hopeless
    assert "GPUS_ALL_REGIONS" in found.why
    old = everywhere.model_copy(update={"at_s": NOW_S - POLICY.quota_s})
    assert not placed(old).hopeless
    assert not placed(everywhere, resumed_at_s=NOW_S).hopeless


def test_a_resume_forgives() -> None:
    assert zone(placed(stockout(100), resumed_at_s=NOW_S - 99)) == "us-central1-a"
    assert zone(placed(stockout(100), resumed_at_s=NOW_S - 100)) == "us-central1-b"


def test_nothing_offered_needs_a_person() -> None:
    found = place(replace(wanted(), spot=()), after(an_end()), POLICY)
    assert (found.hopeless, found.offer) == (True, None)
    assert "l4" in found.why


def test_a_run_without_spot_asks_on_demand_only() -> None:
    found = place(wanted(spot=False), after(an_end("crashed")), POLICY)
    assert found.offer == ON_DEMAND[0]
    never = place(wanted(), after(stockout(), (stockout(), "us-central1-b"), (stockout(), "us-east4-a")), POLICY)
    assert never.offer is None


def test_on_demand_after_a_time_without_a_vm_and_spot_first() -> None:
    late = wanted(on_demand="after", on_demand_after_s=1000.0)
    full = (stockout(99), (stockout(98), "us-central1-b"), (stockout(97), "us-east4-a"))
    ran = an_end("preempted", ago_s=1000)
    assert place(late, after(ran, *full), POLICY).offer == ON_DEMAND[0]
    assert place(late, after(an_end("preempted", ago_s=999), *full), POLICY).offer is None
    assert zone(place(late, after(an_end("crashed", ago_s=5000)), POLICY)) == "us-central1-a"
    found = place(late, after(an_end("crashed", ago_s=5000)), POLICY).offer
    assert found is not None
    assert found.spot
    assert on_demand_due(wanted(on_demand="after"), after(an_end(ago_s=0)), POLICY)


def test_on_demand_when_the_deadline_needs_it() -> None:
    def due(deadline_s: float, **changes: Any) -> bool:
        machine = wanted(on_demand="deadline", deadline_s=NOW_S + deadline_s)
        return on_demand_due(machine, after(an_end(ago_s=100, ran_s=1000), **changes), POLICY)

    rest_s = 1.25 * (1000 / 10 * 90) + POLICY.shortest_s
    assert due(rest_s)
    assert not due(rest_s + 1)
    assert not on_demand_due(wanted(on_demand="deadline"), after(an_end()), POLICY)
    assert not on_demand_due(wanted(on_demand="never", deadline_s=NOW_S), after(an_end()), POLICY)
    needs = wanted(on_demand="deadline", deadline_s=NOW_S + 10)
    assert place(needs, after(an_end("crashed")), POLICY).offer == ON_DEMAND[0]
    # Before there is a pace: half of the time from the first claim on.
    assert due(3600, head=head(step=None))
    assert not due(3601, head=head(step=None))


def test_the_pace_counts_the_vm_that_runs_and_needs_steps_to_count() -> None:
    machine = wanted(on_demand="deadline", deadline_s=NOW_S + 3600)
    running = seen(claim(1, ended=an_end(ran_s=1000)), claim(2, ago_s=500))
    assert needed_s(machine, running, POLICY) == 1.25 * (1500 / 10 * 90) + POLICY.shortest_s
    unborn = seen(claim(1, ended=an_end(ran_s=1000)), claim(2, ago_s=500, instance_id=None))
    assert needed_s(machine, unborn, POLICY) == 1.25 * (1000 / 10 * 90) + POLICY.shortest_s
    assert needed_s(replace(machine, max_steps=None), running, POLICY) == 3600
    assert needed_s(machine, seen(claim(1, ended=stockout())), POLICY) == 3600
    done = seen(claim(1, ended=an_end(ran_s=1000)), head=head(step=120))
    assert needed_s(machine, done, POLICY) == POLICY.shortest_s


def test_a_run_is_without_a_vm_since_its_last_one_or_its_first_claim() -> None:
    assert last_vm_s(after(an_end(ago_s=50), stockout(10))) == NOW_S - 50
    assert last_vm_s(after(stockout(10))) == NOW_S - 3600
    assert last_vm_s(after(stockout(200), resumed_at_s=NOW_S - 100)) == NOW_S - 100


def test_waiting_is_until_the_head_says_and_never_longer_than_an_hour() -> None:
    wait = an_end("waiting", ago_s=100)
    found = placed(wait, head=head(Status.WAITING))
    assert (found.offer, found.next_try_s, found.why) == (None, NOW_S + 400, "the judge is down")
    assert not found.hopeless
    hostile = head(Status.WAITING)
    assert hostile.record.waiting is not None
    ever = hostile.record.model_copy(update={"waiting": hostile.record.waiting.model_copy(update={"until_s": 1e12})})
    assert placed(wait, head=replace(hostile, record=ever)).next_try_s == NOW_S - 100 + 3600
    over = hostile.record.model_copy(update={"waiting": hostile.record.waiting.model_copy(update={"until_s": NOW_S})})
    assert placed(wait, head=replace(hostile, record=over)).offer is not None
    assert placed(wait, head=head(Status.WAITING, attempt=9)).next_try_s == NOW_S - 100 + 300
    assert placed(an_end("preempted"), head=head(Status.WAITING)).offer is not None


def test_exit_76_waits_longer_each_time() -> None:
    def until(count: int) -> float:
        ends = [an_end("waiting", ago_s=10_000 * (count - number)) for number in range(1, count)]
        return not_before_s(after(*ends, an_end("waiting", ago_s=0, detail="judge")), POLICY)[0] - NOW_S

    assert [until(count) for count in (1, 2, 3, 4, 5, 6)] == [300, 600, 1200, 2400, 3600, 3600]
    assert not_before_s(after(an_end("waiting", detail="judge")), POLICY)[1] == "judge"


@pytest.mark.parametrize("how", ["never created", "rate limit"])
def test_what_nobody_explains_is_tried_again_later_each_time(how: Any) -> None:
    def until(count: int) -> float:
        ends = [an_end(how, ago_s=10_000 * (count - number), ran_s=None) for number in range(1, count)]
        return not_before_s(after(*ends, an_end(how, ago_s=0, ran_s=None)), POLICY)[0] - NOW_S

    assert [until(count) for count in (1, 2, 3, 6, 7)] == [60, 120, 240, 1800, 1800]
    assert not_before_s(after(an_end(how, detail="")), POLICY)[1] == how
    assert not_before_s(after(an_end(how, detail="words")), POLICY)[1] == "words"
    assert not_before_s(after(an_end(how), an_end("crashed")), POLICY) == (0.0, "")


def test_a_vm_that_says_itself_that_it_was_preempted_is_believed_once() -> None:
    def until(count: int) -> float:
        ends = [an_end(vouched=False, ago_s=10_000 * (count - number)) for number in range(1, count)]
        return not_before_s(after(*ends, an_end(vouched=False, ago_s=0)), POLICY)[0]

    assert until(1) == 0.0
    assert [until(count) - NOW_S for count in (2, 3, 4, 9)] == [60, 120, 240, 1800]
    between = after(an_end(vouched=False), an_end(), an_end(vouched=False))
    assert not_before_s(between, POLICY) == (0.0, "")
    assert "2 times" in not_before_s(after(an_end(vouched=False), an_end(vouched=False, ago_s=0)), POLICY)[1]
    assert not_before_s(seen(), POLICY) == (0.0, "")


def test_one_that_left_before_the_platform_ended_it_waits_for_nothing_while_steps_are_made() -> None:
    """An attempt that uses its notice of 120 s up is gone before the platform says that it was preempted."""

    def until_s(*steps: int | None) -> float:
        ends = [an_end(vouched=False, durable_step=step, ago_s=0) for step in steps]
        return max(0.0, not_before_s(after(*ends), POLICY)[0] - NOW_S)

    assert until_s(10, 12) == until_s(None, 0) == until_s(9, 10, 11) == 0
    assert until_s(10, 12, 12) == until_s(None, None) == 60
    assert until_s(10, 12, 12, 12) == 120
    assert until_s(12, 10) == 60  # a damaged checkpoint was left behind: nothing new was made


def test_only_failures_without_a_new_durable_step_count() -> None:
    def count(*ends: SeenEnd, **changes: Any) -> int:
        return len(failures_in_a_row(after(*ends, **changes)))

    crash = an_end("crashed")
    assert count() == 0
    assert count(crash, crash, crash) == 3
    for how in ("hung", "out of memory", "sick gpu", "boot failure", "fenced"):
        assert count(crash, an_end(how)) == 2
    for how in ("preempted", "host error", "stockout", "waiting", "never created", "rate limit", "quota", "stopped"):
        assert count(crash, an_end(how), crash) == 2
    assert count(crash, crash, an_end("crashed", durable_step=11)) == 1
    assert count(an_end("crashed", durable_step=None), an_end("crashed", durable_step=None)) == 2
    assert count(an_end("crashed", durable_step=None), an_end("crashed", durable_step=0)) == 1
    assert count(crash, an_end("preempted", durable_step=11), an_end("crashed", durable_step=11)) == 1
    assert count(crash, crash, resumed_at_s=NOW_S - 99) == 0
    assert count(crash, an_end("crashed", durable_step=9)) == 2
