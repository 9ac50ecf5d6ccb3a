"""What a run's VMs cost, from its claims alone: nothing that a VM wrote is believed. Pure."""

from collections.abc import Iterable, Sequence

from job.run.claims import Claim

TAIL_S = 60.0
"""That a VM is paid for after its end was recorded, at most."""


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


def ended_usd(claim: Claim, tail_s: float = TAIL_S) -> float:
    """What a VM that is over cost, with the time that it may have been paid for after its end was recorded; 0 of one
    that goes on, or never ran."""
    if claim.kind != "vm" or claim.usd_per_hour is None or claim.ended is None or claim.ended.ran_from_s is None:
        return 0.0
    return claim.usd_per_hour * (billed_s(claim, 0.0) + tail_s) / 3600


def share_s(max_usd: float, claims: Sequence[Claim], number: int, tail_s: float = TAIL_S) -> float | None:
    """For how long attempt `number` may have its VM, from its claim on, by the cap and by what those before it cost;
    None for a process, or where no price is known. Those that are not known to be over count in full."""
    own = next((claim for claim in claims if claim.number == number), None)
    if own is None or own.kind != "vm" or not own.usd_per_hour:
        return None
    earlier = [claim for claim in claims if claim.number < number]
    spent = sum(
        ended_usd(claim, tail_s) if claim.ended is not None else claim_usd(claim, own.claimed_at_s) or 0.0
        for claim in earlier
    )
    return (max_usd - spent) / own.usd_per_hour * 3600
