"""What a run is expected to cost at an offer: price, preemptions, boots, work made again, traffic. Pure.

A VM lives 1 / rate hours on average. Each one takes `start_s` before it trains, and a preemption that came without a
usable notice costs what was made since the last checkpoint. If lives are exponential, a VM of them spends a share
exp(-rate * (start + lost)) of its time on steps that count; so the whole run takes work * exp(rate * (start + lost)) +
start. Lives of spot VMs vary more than exponential ones do (benchmarks/spot_zones.csv), which changes this little as
long as they are long beside a start: benchmarks/plan.py measures how much.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from infra.machines import machines
from infra.plan import Offer
from job.run.claims import Claim
from job.storage.prices import traffic_usd_per_gib

START_S = 600.0
"""Boot, pull, import, model, restore: of the first VM, and again after each preemption. Not measured in a cloud."""
LOST_S = 60.0
"""Steps made again after a preemption: with a notice none, without one those of an upload or two. Not measured."""
PREEMPTED_EVERY_H = 4.0
"""Of a zone of which nothing is known: between the 1.6 and 10 h of single V100s on AWS in 2022 and 2023."""
PRIOR_WEIGHT = 1.0
"""How many preemptions of its own it takes to count as much as that."""
HIGHEST_UPTIME_S = 3600.0
"""The best that advice.capacity says: `at least so long`, which is no news."""
NETWORK_SHARE = 0.05
"""Of the machine's price, what checkpoints to a bucket elsewhere may cost in traffic (docs/design.md)."""
IMAGE_GIB = 9.0
"""What a VM pulls before its container starts, compressed. Estimated from its 20 GB."""
REFUSED_S = 600.0
"""Lost in waiting for each refusal for want of capacity."""
UNKNOWN_WORK_H = 4.0
"""Hours of work of a run of which they cannot be estimated."""
MOST_EXPONENT = 20.0

Zone = tuple[str, str]
"""Machine type and zone."""


@dataclass(frozen=True)
class Odds:
    """What is known of spot VMs of one machine type in one zone."""

    hours: float = 0.0
    """That our own VMs ran there."""
    preempted: int = 0
    refused: int = 0
    """Times that there was no capacity."""
    had: int = 0
    """Times that there was."""
    uptime_s: float | None = None
    """That most VMs run at least, as the cloud estimates it; None: not known."""
    obtainability: float | None = None
    """How likely a VM is to be had now, 0 to 1, as the cloud estimates it; None: not known."""
    dear: float = 1.0
    """How much dearer it looks because of harm that came to a VM there of late."""

    @property
    def per_hour(self) -> float:
        """Preemptions in an hour of a VM's life: our own, beside those that anybody would expect."""
        every_h = PREEMPTED_EVERY_H
        if self.uptime_s is not None and self.uptime_s < HIGHEST_UPTIME_S:
            every_h = min(every_h, self.uptime_s / 3600 / math.log(2))  # most: half of them
        return (PRIOR_WEIGHT + self.preempted) / (PRIOR_WEIGHT * every_h + self.hours)

    @property
    def wait_s(self) -> float:
        """For a VM, each time that one is asked for."""
        likely = self.obtainability
        if likely is None:
            likely = (1 + self.had) / (1 + self.had + self.refused)
        return REFUSED_S * (1 / max(likely, 0.05) - 1)

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        known = []
        if self.hours or self.preempted:
            known.append(f"{self.preempted} in {self.hours:.1f} h of this bucket's runs")
        if self.refused:
            known.append(f"{self.refused} refused for want of capacity")
        if self.obtainability is not None:
            known.append(f"obtainability {self.obtainability:.1f}")
        if self.uptime_s is not None:
            known.append(f"most run {self.uptime_s / 60:.0f} min or more")
        return ", ".join(known) or f"nothing known: one in {PREEMPTED_EVERY_H:g} h assumed"


NOTHING_KNOWN = Odds()


@dataclass(frozen=True)
class Work:
    """A run as its cost depends on it."""

    hours: float = UNKNOWN_WORK_H
    """Of steps that count, on this GPU."""
    start_s: float = START_S
    lost_s: float = LOST_S
    pull_gib: float = IMAGE_GIB
    """From the registry, with each start."""
    restore_gib: float = 0.0
    """From the bucket, with each start."""
    registry_region: str | None = None
    """None: not known, taken to be where the bucket is."""

    def left(self, share: float) -> "Work":
        """The same run with that share of it still to do."""
        return replace(self, hours=self.hours * share)


UNKNOWN_WORK = Work()


@dataclass(frozen=True)
class Expected:
    """What a run is expected to take and to cost at an offer."""

    usd: float
    hours: float
    """That VMs run and are paid for."""
    waited_h: float
    """Without a VM."""
    vms: float
    traffic_usd: float
    """Of `usd`, what goes between regions."""
    per_hour: float
    """Preemptions."""
    basis: str
    """What is known of the zone."""


@dataclass(frozen=True)
class Ranked:
    """An offer with what the run is expected to cost there."""

    offer: Offer
    expected: Expected
    odds: Odds = field(default=NOTHING_KNOWN)


def expected(offer: Offer, work: Work, odds: Odds = NOTHING_KNOWN) -> Expected:
    """Of the whole run at that offer."""
    rate = odds.per_hour if offer.spot else 0.0
    start_h = work.start_s / 3600
    hours = work.hours * math.exp(min(rate * (start_h + work.lost_s / 3600), MOST_EXPONENT)) + start_h
    vms = 1 + rate * hours
    registry_usd = offer.usd_per_gib
    if work.registry_region is not None:
        registry_usd = traffic_usd_per_gib(offer.region, work.registry_region)
    checkpoints_usd = offer.usd_per_hour * hours * (NETWORK_SHARE if offer.usd_per_gib else 0.0)
    traffic_usd = checkpoints_usd + vms * (work.pull_gib * registry_usd + work.restore_gib * offer.usd_per_gib)
    waited_h = vms * odds.wait_s / 3600 if offer.spot else 0.0
    usd = offer.usd_per_hour * hours + traffic_usd + waited_h * machines().watchdog_usd_per_hour
    basis = odds.basis if offer.spot else "never preempted"
    return Expected(usd, hours, waited_h, vms, traffic_usd, rate, basis)


def rank(offers: Iterable[Offer], work: Work, known: Mapping[Zone, Odds] | None = None) -> tuple[Ranked, ...]:
    """The offers, the least expected cost of the whole run first."""
    known = known or {}
    found = []
    for offer in offers:
        odds = known.get((offer.machine_type, offer.zone), NOTHING_KNOWN)
        found.append(Ranked(offer, expected(offer, work, odds), odds))
    return tuple(sorted(found, key=rank_key))


def rank_key(one: Ranked) -> tuple[float, float, str, str]:
    """What is compared: the expected cost, dearer by harm of late; then waiting; then names, so that it is the same
    whoever ranks."""
    return round(one.expected.usd * one.odds.dear, 6), one.expected.waited_h, one.offer.zone, one.offer.machine_type


def odds_of(claims: Iterable[Claim]) -> dict[Zone, Odds]:
    """What spot VMs met with where they were asked for, by what became of claims."""
    found: dict[Zone, Odds] = {}
    for claim in claims:
        end = claim.ended
        if claim.kind != "vm" or claim.spot is False or end is None or not claim.machine_type or not claim.zone:
            continue
        at = (claim.machine_type, claim.zone)
        odds = found.get(at, NOTHING_KNOWN)
        ran_h = 0.0 if end.ran_from_s is None else max(0.0, end.at_s - end.ran_from_s) / 3600
        found[at] = replace(
            odds,
            hours=odds.hours + ran_h,
            preempted=odds.preempted + (end.how == "preempted" and claim.drill is None),
            refused=odds.refused + (end.how == "stockout"),
            had=odds.had + (end.ran_from_s is not None),
        )
    return found


def advised(known: Mapping[Zone, Odds], advice: Mapping[Zone, Odds]) -> dict[Zone, Odds]:
    """Our own history with the cloud's advice beside it."""
    found = dict(known)
    for at, said in advice.items():
        own = found.get(at, NOTHING_KNOWN)
        found[at] = replace(own, uptime_s=said.uptime_s, obtainability=said.obtainability)
    return found
