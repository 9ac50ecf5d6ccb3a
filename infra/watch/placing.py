"""Where and when the next VM may be asked for, from what became of those before. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from infra.expected import NOTHING_KNOWN, odds_of, rank
from infra.naming import region_of
from infra.plan import Offer
from infra.watch.observed import Blocked, Observed, Policy, Wanted
from infra.watch.refusals import EVERYWHERE, NOT_HERE
from job.run.claims import Claim, SeenEnd
from job.run.head import Status

COUNTED = frozenset({"crashed", "hung", "out of memory", "sick gpu", "boot failure", "fenced"})
"""Towards the crash loop. Preemptions, host errors, refusals of the cloud and waiting are nobody's fault."""
PENALTY = {"hung": 1.5, "host error": 2.0, "sick gpu": 2.0}
"""How much dearer a zone looks in which that happened lately: elsewhere is tried first, if it is not much dearer. What
preemptions make it dearer by is in the expected cost."""


@dataclass(frozen=True)
class Place:
    """What to ask for next, or why nothing is asked for now."""

    offer: Offer | None = None
    next_try_s: float | None = None
    """When something may be asked for again; None where only a person helps."""
    why: str = ""
    blocked: tuple[Blocked, ...] = ()
    hopeless: bool = False
    """Only a person helps."""


def ended_vms(seen: Observed) -> list[tuple[Claim, SeenEnd]]:
    """The run's VM attempts that are over, newest first, since a person last let it go on."""
    since_s = seen.claims.resumed_at_s
    over = [(claim, claim.ended) for claim in reversed(seen.claims.attempts) if claim.kind == "vm"]
    return [(claim, end) for claim, end in over if end is not None and end.at_s >= since_s]


def failures_in_a_row(seen: Observed) -> list[SeenEnd]:
    """The ends that count, newest first, since the durable step last grew."""
    counted: list[SeenEnd] = []
    level: int | None = None
    for position, (_, end) in enumerate(ended_vms(seen)):
        step = _step(end)
        if position and level is not None and step < level:
            break
        level = step
        if end.how in COUNTED:
            counted.append(end)
    return counted


def not_before_s(seen: Observed, policy: Policy) -> tuple[float, str]:
    """Until when nothing is asked for, anywhere, and why: (0, "") where nothing stands against it."""
    ends = [end for _, end in ended_vms(seen)]
    if not ends:
        return 0.0, ""
    newest = ends[0]
    head = seen.head_record()
    claim = seen.claims.newest
    if newest.how == "waiting":
        most_s = newest.at_s + policy.waiting_most_s
        if (
            head is not None
            and head.waiting is not None
            and head.status is Status.WAITING
            and claim is not None
            and head.attempt == claim.number
        ):
            return min(head.waiting.until_s, most_s), head.waiting.why
        streak = _streak(ends, lambda end: end.how == "waiting")
        return newest.at_s + min(policy.waiting_s * 2 ** (streak - 1), policy.waiting_most_s), newest.detail
    if newest.how in ("never created", "rate limit"):
        streak = _streak(ends, lambda end: end.how in ("never created", "rate limit"))
        return newest.at_s + min(policy.retry_s * 2 ** (streak - 1), policy.retry_most_s), newest.detail or newest.how
    if not newest.vouched:  # a VM may say what it likes: the second time in a row, with nothing new made, it waits
        streak = _streak(ends, lambda end: not end.vouched and _step(end) >= _step(newest))
        if streak > 1:
            delay_s = min(policy.retry_s * 2 ** (streak - 2), policy.retry_most_s)
            return newest.at_s + delay_s, f"{newest.how}, which the cloud does not confirm, {streak} times"
    return 0.0, ""


def place(wanted: Wanted, seen: Observed, policy: Policy) -> Place:
    """The best offer that nothing stands against, or when one will be."""
    machine = wanted.machine
    assert machine is not None
    until_s, why = not_before_s(seen, policy)
    if until_s > seen.now_s:
        return Place(next_try_s=until_s, why=why)
    offers = list(wanted.spot if machine.spot else wanted.on_demand)
    if not offers:
        return Place(why=f"no zone that is allowed offers {machine.gpu}", hopeless=True)
    if (how := quota_everywhere(seen, policy)) is not None:
        return Place(why=how, hopeless=True)
    late = machine.spot and on_demand_due(wanted, seen, policy)
    if late:
        offers += wanted.on_demand
    blocked = {_key(offer): block for offer in offers if (block := _blocked(offer, seen, policy)) is not None}
    free = [offer for offer in offers if _key(offer) not in blocked]
    if free:
        needed = late and machine.on_demand == "deadline"
        return Place(offer=_ranked(free, wanted, seen, policy, late=needed))
    blocks = tuple(sorted(blocked.values(), key=lambda block: (block.until_s, block.where)))
    if all(_is_quota(offer, seen, policy) for offer in offers):
        return Place(why="; ".join(dict.fromkeys(block.why for block in blocks)), blocked=blocks, hopeless=True)
    words = "; ".join(dict.fromkeys(f"{block.where}: {block.why}" for block in blocks))
    return Place(next_try_s=blocks[0].until_s, why=f"no capacity: {words}", blocked=blocks)


def on_demand_due(wanted: Wanted, seen: Observed, policy: Policy) -> bool:
    """Whether an on-demand VM may be taken now instead of a spot one."""
    machine = wanted.machine
    assert machine is not None
    if machine.on_demand == "after":
        patience_s = machine.on_demand_after_s or 0.0
        return seen.now_s - last_vm_s(seen) >= patience_s
    if machine.on_demand == "deadline" and machine.deadline_s is not None:
        return seen.now_s + needed_s(wanted, seen, policy) >= machine.deadline_s
    return False


def last_vm_s(seen: Observed) -> float:
    """Until when the run last had a VM; its first claim where it never had one."""
    ran = [end.at_s for _, end in ended_vms(seen) if end.ran_from_s is not None]
    first_s = min((claim.claimed_at_s for claim in seen.claims.attempts), default=seen.now_s)
    return max(ran, default=max(first_s, seen.claims.resumed_at_s))


def needed_s(wanted: Wanted, seen: Observed, policy: Policy) -> float:
    """How long the rest takes at the pace so far, with a change of machines and a margin. Before there is a pace,
    half of the time to the deadline is given to spot VMs."""
    machine, head = wanted.machine, seen.head_record()
    assert machine is not None
    assert machine.deadline_s is not None
    step = head.checkpoint.step if head is not None and head.checkpoint is not None else 0
    ran_s = sum(_ran_s(claim, seen.now_s) for claim in seen.claims.attempts)
    if not step or not ran_s or wanted.max_steps is None:
        began_s = seen.claims.attempts[0].claimed_at_s if seen.claims.attempts else seen.now_s
        return (machine.deadline_s - began_s) / 2
    left_s = ran_s / step * max(0, wanted.max_steps - step)
    return policy.deadline_margin * left_s + policy.shortest_s


def quota_everywhere(seen: Observed, policy: Policy) -> str | None:
    """The project's quota that no region helps against, in words."""
    for _, end in ended_vms(seen):
        if end.how == "quota" and EVERYWHERE in end.detail and seen.now_s - end.at_s < policy.quota_s:
            return end.detail
    return None


def _ran_s(claim: Claim, now_s: float) -> float:
    if claim.ended is None:
        return now_s - claim.claimed_at_s if claim.instance_id is not None else 0.0
    return 0.0 if claim.ended.ran_from_s is None else claim.ended.at_s - claim.ended.ran_from_s


def _key(offer: Offer) -> tuple[str, str, bool]:
    return offer.machine_type, offer.zone, offer.spot


def _blocked(offer: Offer, seen: Observed, policy: Policy) -> Blocked | None:
    """What stands against an offer now, by the ends of claims that asked for the same."""
    if (end := _quota_of(offer, seen, policy)) is not None:
        return Blocked(offer.region, end.at_s + policy.quota_s, f"no quota: {end.detail}")
    same = [end for claim, end in ended_vms(seen) if _asked_same(claim, offer)]
    for end in same:
        if end.how == "stockout" and end.detail.startswith(NOT_HERE) and seen.now_s - end.at_s < policy.unsupported_s:
            return Blocked(offer.zone, end.at_s + policy.unsupported_s, NOT_HERE)
    streak = _streak(same, lambda end: end.how == "stockout")
    if streak:
        until_s = same[0].at_s + policy.stockout_s * min(3.0, 1.5 ** (streak - 1))
        if until_s > seen.now_s:
            return Blocked(offer.zone, until_s, "stockout" if offer.spot else "stockout on demand")
    return None


def _quota_of(offer: Offer, seen: Observed, policy: Policy) -> SeenEnd | None:
    for claim, end in ended_vms(seen):
        if (
            end.how == "quota"
            and claim.spot == offer.spot
            and region_of(claim.zone or "") == offer.region
            and seen.now_s - end.at_s < policy.quota_s
        ):
            return end
    return None


def _is_quota(offer: Offer, seen: Observed, policy: Policy) -> bool:
    return _quota_of(offer, seen, policy) is not None


def _asked_same(claim: Claim, offer: Offer) -> bool:
    return (claim.machine_type, claim.zone, claim.spot) == _key(offer)


def _ranked(offers: Sequence[Offer], wanted: Wanted, seen: Observed, policy: Policy, *, late: bool) -> Offer:
    """The least expected cost of what is left to do, as launch ranks it, by what this run met with so far: spot before
    on-demand, the reverse once the deadline needs it."""
    first = [offer for offer in offers if offer.spot is not late] or offers
    known = odds_of(seen.claims.attempts)
    for claim, end in ended_vms(seen):
        lately = seen.now_s - end.at_s < policy.shunned_s
        for offer in first if lately and end.how in PENALTY else ():
            if claim.zone == offer.zone:
                at = (offer.machine_type, offer.zone)
                odds = known.get(at, NOTHING_KNOWN)
                known[at] = replace(odds, dear=max(odds.dear, PENALTY[end.how]))
    return rank(first, wanted.work.left(_share_left(wanted, seen)), known)[0].offer


def _share_left(wanted: Wanted, seen: Observed) -> float:
    """Of all steps, those that are not durable; all of them where that is not known."""
    head = seen.head_record()
    if not wanted.max_steps or head is None or head.checkpoint is None:
        return 1.0
    return min(1.0, max(0.0, 1 - head.checkpoint.step / wanted.max_steps))


def _step(end: SeenEnd) -> int:
    return -1 if end.durable_step is None else end.durable_step


def _streak(ends: Sequence[SeenEnd], counts: Callable[[SeenEnd], bool]) -> int:
    """How many ends there are before the first for which `counts` does not hold."""
    return next((number for number, end in enumerate(ends) if not counts(end)), len(ends))
