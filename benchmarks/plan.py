"""Where a run's VMs are asked for: the ranking beside the cheapest hour first and the best choice in hindsight; and how
long a plan takes.

python -m benchmarks.plan [--json FILE]       about 3 minutes

A day is one run: a GPU, hours of work, a bucket, and for each zone lives and gaps by chance, from a row of
spot_zones.csv. The run pays for VMs, starts, what is made again and traffic. It stays in the zone that it chose, or it
goes on in the next one of its order when that has no capacity, as the watchdog does. The best in hindsight is the
choice of the first zone that turned out the least dear on that day.
"""

import csv
import math
import random
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from rich.table import Table

from benchmarks.measure import Claim, hold_to_cores, options, ratio_of_sums, report, warn_if_busy
from infra.expected import LOST_S, START_S, Odds, Work, expected, rank
from infra.expected import Zone as Place
from infra.plan import Offer, offers

ZONES = Path(__file__).with_name("spot_zones.csv")
BATON = Path(sys.executable).with_name("baton")
DAYS, GOAL, PLAN_GOAL_S = 500, 1.10, 2.0
GPUS = ("l4", "a100", "a100-80gb", "h100")
BUCKETS = ("us-central1", "us-east4", "europe-west4", "asia-southeast1", "us")
HISTORIES_H = (0.0, 10.0, 50.0)
"""Hours that the bucket's own runs spent in each zone before."""
JUDGED_H = 10.0
ASK_S = 20.0
"""For a zone to say that it has no capacity."""
LONGEST_H = 24 * 60.0


@dataclass(frozen=True)
class Weather:
    """How VMs come and go in a zone: a row of spot_zones.csv."""

    availability: float
    gap_h: float
    up: tuple[float, float]
    """Mean and deviation of the logarithm of a life's hours."""
    down: tuple[float, float]

    def life_h(self, draw: random.Random, side: tuple[float, float]) -> float:
        """A life or a gap, as the probes saw it: whole intervals."""
        return math.ceil(draw.lognormvariate(*side) / self.gap_h) * self.gap_h


class Sky:
    """One zone's capacity over a day and as long after it as a run may take."""

    def __init__(self, weather: Weather, draw: random.Random) -> None:
        up = draw.random() < weather.availability
        self._edges, at_h = [0.0], 0.0
        while at_h < LONGEST_H:
            at_h += weather.life_h(draw, weather.up if up else weather.down)
            self._edges.append(at_h)
            up = not up
        self._first_up = (len(self._edges) - 1) % 2 == 0 if up else (len(self._edges) - 1) % 2 == 1

    def until_h(self, at_h: float) -> tuple[bool, float]:
        """(whether there is capacity then, until when it stays so)."""
        position = bisect_right(self._edges, at_h)
        up = (position - 1) % 2 == 0 if self._first_up else (position - 1) % 2 == 1
        return up, self._edges[position] if position < len(self._edges) else math.inf


@dataclass
class Day:
    """What is chosen from, and what becomes of it."""

    work: Work
    offers: Sequence[Offer]
    weather: dict[str, Weather]
    skies: dict[str, Sky]
    seed: int

    def known(self, hours: float) -> dict[Place, Odds]:
        """What the bucket's own runs met with in so many hours in each zone."""
        draw, found = random.Random(self.seed + 1), {}
        for offer in self.offers:
            weather, ran_h, preempted = self.weather[offer.zone], 0.0, 0
            while ran_h < hours:
                life_h = weather.life_h(draw, weather.up)
                preempted += ran_h + life_h <= hours
                ran_h = min(hours, ran_h + life_h)
            found[offer.machine_type, offer.zone] = Odds(hours=ran_h, preempted=preempted, had=preempted)
        return found


@dataclass(frozen=True)
class Costs:
    """What one day cost by each choice, in USD."""

    ranking: float
    cheapest_hour: float
    best: float


Order = Callable[[Work, dict[Place, Odds]], Sequence[Offer]]
"""The zones to ask, the first first; by what is left to do and what is known by then."""


def a_day(seed: int, rows: Sequence[Weather]) -> Day:
    """By chance, and the same for the same seed."""
    draw = random.Random(seed)
    bucket = draw.choice(BUCKETS)
    work = Work(hours=math.exp(draw.uniform(0, math.log(24))), restore_gib=0.15)
    found = offers(draw.choice(GPUS), True, bucket_region=bucket)
    weather = {offer.zone: draw.choice(rows) for offer in found}
    skies = {zone: Sky(weather[zone], draw) for zone in sorted(weather)}
    return Day(replace(work, registry_region=bucket), found, weather, skies, seed)


def run(day: Day, order: Order, known: dict[Place, Odds]) -> float:
    """What the run costs, asking in that order."""
    known, now_h, left_h, usd = dict(known), 0.0, day.work.hours, 0.0
    start_h, lost_h = START_S / 3600, LOST_S / 3600
    while now_h < LONGEST_H:
        found = None
        for offer in order(day.work.left(left_h / day.work.hours), known):
            up, until_h = day.skies[offer.zone].until_h(now_h)
            if up:
                found = offer, until_h - now_h
                break
            now_h += ASK_S / 3600
        if found is None:
            now_h += 1 / 6
            continue
        offer, life_h = found
        whole = start_h + left_h <= life_h
        ran_h = start_h + left_h if whole else life_h
        usd += ran_h * offer.usd_per_hour + traffic_usd(offer, day.work, ran_h)
        if whole:
            return usd
        left_h -= max(0.0, life_h - start_h - lost_h)
        now_h += life_h
        at = (offer.machine_type, offer.zone)
        odds = known.get(at, Odds())
        known[at] = replace(odds, hours=odds.hours + ran_h, preempted=odds.preempted + 1, had=odds.had + 1)
    return usd


def traffic_usd(offer: Offer, work: Work, hours: float) -> float:
    """Of one VM that lived so long: what `expected` counts for one that is never preempted."""
    own = replace(offer, spot=False)
    return expected(own, replace(work, hours=max(0.0, hours - START_S / 3600))).traffic_usd


def by_ranking(day: Day) -> Order:
    """As launch and the watchdog ask."""
    return lambda left, known: [one.offer for one in rank(day.offers, left, known)]


def by_price(day: Day) -> Order:
    """The cheapest hour first."""
    ordered = sorted(day.offers, key=lambda offer: (offer.usd_per_hour, offer.zone))
    return lambda left, known: ordered


def beginning_with(first: Offer, day: Day) -> Order:
    """That zone first of all whenever it has capacity, then as the ranking has it."""

    def order(left: Work, known: dict[Place, Odds]) -> Sequence[Offer]:
        return [first, *(one.offer for one in rank(day.offers, left, known) if one.offer != first)]

    return order


def staying(day: Day, known: dict[Place, Odds]) -> Costs:
    """One zone for the whole run, which waits for it."""
    usd = {offer: run(day, lambda left, told, offer=offer: [offer], known) for offer in day.offers}
    by_hour = by_price(day)(day.work, known)[0]
    return Costs(usd[rank(day.offers, day.work, known)[0].offer], usd[by_hour], min(usd.values()))


def going_on(day: Day, known: dict[Place, Odds]) -> Costs:
    """The next zone of the order where the first has no capacity."""
    ours, theirs = run(day, by_ranking(day), known), run(day, by_price(day), known)
    choices = [run(day, beginning_with(offer, day), known) for offer in day.offers]
    return Costs(ours, theirs, min(ours, theirs, *choices))


def seconds_of_a_plan(times: int) -> list[float]:
    """`baton launch --dry-run`, each time in a new process."""
    seconds = []
    for _ in range(times):
        began_s = time.monotonic()
        command = [str(BATON), "launch", "--gpu", "a100", "--spot", "--dry-run"]
        subprocess.run(command, check=True, capture_output=True, cwd=ZONES.parent.parent)
        seconds.append(time.monotonic() - began_s)
    return seconds


def weather_rows() -> list[Weather]:
    """The table, of VMs with one GPU."""
    lines = [line for line in ZONES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        Weather(
            float(row["availability"]),
            float(row["gap_s"]) / 3600,
            (float(row["up_ln_mu"]), float(row["up_ln_sigma"])),
            (float(row["down_ln_mu"]), float(row["down_ln_sigma"])),
        )
        for row in csv.DictReader(lines)
        if row["hardware"].endswith("_1")
    ]


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    given = options(__doc__ or "").parse_args(argv)
    hold_to_cores()
    if not given.quick:
        warn_if_busy()
    plan_s = seconds_of_a_plan(2 if given.quick else 10)
    rows = weather_rows()
    days = [a_day(seed, rows) for seed in range(10 if given.quick else DAYS)]
    claims = [
        Claim("plan and dry run, median", median(plan_s), "s", f"< {PLAN_GOAL_S:g}", median(plan_s) < PLAN_GOAL_S)
    ]
    tables = []
    for title, world in (("the run stays in its zone", staying), ("it goes on in the next zone", going_on)):
        table = Table("known of each zone", "ranking / best", "cheapest hour first / best", "$ a day: best", "ranking")
        table.add_column("cheapest hour first")
        table.title = f"{len(days)} days, {title}; 95 % intervals"
        tables.append(table)
        for hours in HISTORIES_H:
            seen = [world(day, day.known(hours)) for day in days]
            ours = ratio_of_sums([(one.ranking, one.best) for one in seen])
            theirs = ratio_of_sums([(one.cheapest_hour, one.best) for one in seen])
            means = (fmean(each) for each in zip(*((c.best, c.ranking, c.cheapest_hour) for c in seen), strict=True))
            table.add_row(f"{hours:g} h of own runs", ours.text(3), theirs.text(3), *(f"{usd:.2f}" for usd in means))
            if hours == JUDGED_H:
                words = f"to the best choice in hindsight, {title}, {hours:g} h known of each zone"
                claims.append(Claim(f"ranking {words}", ours.value, "times", f"<= {GOAL}", ours.value <= GOAL))
                claims.append(Claim(f"cheapest hour first {words}", theirs.value, "times", "stated", True))
    report(tables, claims, given)


if __name__ == "__main__":
    main(sys.argv[1:])
