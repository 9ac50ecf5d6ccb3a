"""What every benchmark shares: its options, statistics of pairs, and how a claim is told."""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TypeVar

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")

CORES = 2  # what every figure in docs/benchmarks.md was measured with; a larger machine is held to as many
QUIET_LOAD = 0.5  # load average above which other work on two cores shows in the figures
RESAMPLES = 4000
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The same in another unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def text(self, digits: int) -> str:
        """For people: value [low, high]."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclass(frozen=True)
class Claim:
    """One line of a benchmark's result."""

    claim: str
    value: float | str
    """A number, or "not measured"."""
    unit: str
    goal: str
    holds: bool | None
    """None where it could not be told."""


def options(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark; each adds its own."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of some seconds: every claim is told, none is judged"
    )
    return parser


def ratio_of_sums(pairs: Sequence[tuple[float, float]]) -> Interval:
    """How much the first of each pair is of the second, all pairs together; bootstrapped over the pairs."""

    def ratio(sample: Sequence[tuple[float, float]]) -> float:
        return sum(one for one, _ in sample) / sum(other for _, other in sample)

    resampled = sorted(ratio(sample) for sample in _resamples(pairs))
    return Interval(ratio(pairs), *_bounds(resampled))


def mean_of(values: Sequence[float]) -> Interval:
    """The mean, bootstrapped."""
    return Interval(fmean(values), *_bounds(sorted(fmean(sample) for sample in _resamples(values))))


def median_of(values: Sequence[float]) -> Interval:
    """The median, bootstrapped."""
    return Interval(median(values), *_bounds(sorted(median(sample) for sample in _resamples(values))))


def _resamples(values: Sequence[T]) -> list[list[T]]:
    draw = random.Random(0)
    return [draw.choices(values, k=len(values)) for _ in range(RESAMPLES)]


def _bounds(ordered: Sequence[float]) -> tuple[float, float]:
    return ordered[round(0.025 * (len(ordered) - 1))], ordered[round(0.975 * (len(ordered) - 1))]


def hold_to_cores(cores: int = CORES) -> int:
    """Keeps this process and its children to that many cores, so that machines compare. Returns how many there are."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, allowed)
    return len(allowed)


def circumstances() -> str:
    """Where and when: processor, cores, memory, versions, commit, time."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{_processor()}, {cores} of {os.cpu_count()} cores, {memory_gb:.0f} GB; Linux {platform.release()}, "
        f"Python {platform.python_version()}; commit {_commit()}; {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
    )


def report(tables: Sequence[Table], claims: Sequence[Claim], given: argparse.Namespace) -> None:
    """Tables of what was seen, then the claims; on stdout, and the claims into --json FILE."""
    if given.quick:
        claims = [Claim(c.claim, c.value, c.unit, c.goal, None) for c in claims]
    wide = None if sys.stdout.isatty() else 140  # a log has no width
    console = Console(width=wide)
    for table in tables:
        console.print(table)
    console.print(_claims_table(claims))
    console.print(circumstances(), highlight=False)
    if given.quick:
        console.print("a smoke run: too short to tell anything", highlight=False)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(claim) for claim in claims], indent=1) + "\n")


def warn_if_busy() -> None:
    """Says so when other work on this machine will show in the figures."""
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        print(f"warning: the load of this machine is {load:.1f}: wait until it is below {QUIET_LOAD}", file=sys.stderr)


def progress(line: str) -> None:
    """A line for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _claims_table(claims: Sequence[Claim]) -> Table:
    table = Table("claim", "value", "unit", "goal", "holds", title="Claims")
    for c in claims:
        value = c.value if isinstance(c.value, str) else f"{c.value:.4g}"
        table.add_row(c.claim, value, c.unit, c.goal, {True: "yes", False: "NO", None: "-"}[c.holds])
    return table


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "job", "infra", "benchmarks")
    return (commit or "unknown") + (" with changes" if changed else "")
