"""What a run's VMs cost, from its claims alone: nothing that a VM wrote is believed. Pure."""

from collections.abc import Iterable

from job.run.claims import Claim


def billed_s(claim: Claim, now_s: float) -> float:
    """Seconds for which the VM of a claim is paid. One that is not known to be over counts from its claim on: rather
    a minute too many than none at all."""
    if claim.kind != "vm":
        return 0.0
    if claim.ended is None:
        return max(0.0, now_s - claim.claimed_at_s)
    return 0.0 if claim.ended.ran_from_s is None else max(0.0, claim.ended.at_s - claim.ended.ran_from_s)


def claim_usd(claim: Claim, now_s: float) -> float | None:
    """What an attempt's VM cost so far with its disk, by the price of its claim; None where no price is known."""
    if claim.kind != "vm" or claim.usd_per_hour is None:
        return None
    return claim.usd_per_hour / 3600 * billed_s(claim, now_s)


def spent_usd(claims: Iterable[Claim], now_s: float) -> float:
    """What all VMs of a run cost so far, as far as prices are known."""
    return sum(claim_usd(claim, now_s) or 0.0 for claim in claims)
