"""What a run's VMs have cost and may still cost, by the cloud's times and the prices of its claims. Pure.

Nothing that a VM wrote is believed. Where a time is not known the longer one counts: the cap may be reached a little
early, never passed.
"""

from infra.cloud.types import Vm
from infra.plan import Offer
from infra.watch.observed import Observed, Policy, Unknown
from job.run.claims import Claim, Claims
from job.run.costs import ended_usd
from job.run.spec import Machine


def hourly_usd(offer: Offer, policy: Policy) -> float:
    """All that a VM costs in an hour: machine, disk, and its traffic where the bucket is elsewhere."""
    return offer.usd_per_hour * (1 + policy.network_share if offer.usd_per_gib else 1)


def left_usd(machine: Machine, seen: Observed, policy: Policy) -> float:
    """What is left of the cap now."""
    return machine.max_usd - sum(_cost_usd(claim, seen, policy) for claim in seen.claims.attempts)


def longest_run_s(machine: Machine, claims: Claims, claim: Claim, policy: Policy) -> int:
    """How long the claim's VM may run, by its price and what those before it cost. The same whoever asks, and when: the
    request must be the same too."""
    before = sum(ended_usd(one, policy.tail_s) for one in claims.attempts if one.number < claim.number)
    price = claim.usd_per_hour or 0.0
    return int((machine.max_usd - before) / price * 3600) if price else 0


def _cost_usd(claim: Claim, seen: Observed, policy: Policy) -> float:
    if claim.ended is not None:
        return ended_usd(claim, policy.tail_s)
    if claim.kind != "vm" or claim.usd_per_hour is None:
        return 0.0
    vm = seen.vm_of(claim)
    if isinstance(vm, Vm):
        began_s = vm.started_s if vm.started_s is not None else vm.created_s
    elif isinstance(vm, Unknown) or claim.instance_id is not None:
        began_s = claim.claimed_at_s
    else:
        return 0.0
    return claim.usd_per_hour * max(0.0, seen.now_s - began_s) / 3600
