"""Searches what CI searches; with a flag more than that, or lives histories by chance, or takes out guards."""

import argparse
import gc
import itertools
import subprocess
import sys
import time
from datetime import UTC, datetime

from .histories import Histories
from .mutations import MUTATIONS
from .proof import CI, FULL, Plan, caught, search_all
from .search import Broken
from .stepping import deterministic

TELL_EVERY_S = 60.0


def main() -> int:
    """Exit 1 when a law is broken, or a mutation is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--full", action="store_true", help="three operations with a crash or a fault: ten minutes")
    what.add_argument(
        "--search", nargs=4, metavar=("ROOT", "OPERATIONS", "CRASHES", "FAULTS"), help="one root, as far as you like"
    )
    what.add_argument("--seed", type=int, help="live the history of this seed and tell it")
    what.add_argument("--histories", type=int, metavar="N", help="live N histories by chance")
    what.add_argument("--hours", type=float, help="live histories by chance for so long")
    what.add_argument("--mutate", metavar="all|NAME", choices=["all", *MUTATIONS], help="take guards out")
    parser.add_argument("--first", type=int, default=0, help="the first seed of --histories and --hours")
    arguments = parser.parse_args()
    try:
        if arguments.seed is not None:
            with deterministic():
                print(*Histories().live(arguments.seed), sep="\n")
        elif arguments.histories is not None or arguments.hours is not None:
            live(arguments.first, arguments.histories, arguments.hours)
        elif arguments.mutate is not None:
            return mutate(list(MUTATIONS) if arguments.mutate == "all" else [arguments.mutate])
        else:
            plans = FULL if arguments.full else CI
            if arguments.search is not None:
                root, *numbers = arguments.search
                plans = (Plan(root, *map(int, numbers)),)
            print(f"all: {search_all(plans, lambda line: print(line, flush=True))}")
    except Broken as broken:
        print(broken.story())
        return 1
    return 0


def live(first: int, count: int | None, hours: float | None) -> None:
    """Histories by chance, one seed after another. Raises Broken."""
    began_s = told_s = time.monotonic()
    end_s = began_s + (hours or 1e6) * 3600
    gc.disable()
    with deterministic():
        histories = Histories()
        for seed in itertools.count(first):
            try:
                histories.live(seed)
            except Broken as broken:
                broken.path.append(f"seed {seed}:")
                raise
            done, now_s = seed + 1 - first, time.monotonic()
            if done == count or now_s > end_s:
                break
            if now_s > told_s + TELL_EVERY_S:
                told_s = now_s
                print(f"{done:,} histories, {histories.calls:,} calls, {now_s - began_s:.0f} s", flush=True)
    print(
        f"{done:,} histories (seeds {first} to {seed}), {histories.calls:,} calls, 0 laws broken, "
        f"{time.monotonic() - began_s:.0f} s; {datetime.now(UTC):%Y-%m-%d}, commit {_commit()}"
    )


def mutate(names: list[str]) -> int:
    """Takes out one guard after another; 1 when that is not noticed."""
    missed = 0
    for name in names:
        began_s = time.monotonic()
        broken = caught(name)
        missed += broken is None
        law = "NOT NOTICED" if broken is None else f"{broken.law} (after {len(broken.path) - 1} calls)"
        print(f"{name}: {law}; {time.monotonic() - began_s:.1f} s", flush=True)
        if broken is not None and len(names) == 1:
            print(broken.story())
    return 1 if missed else 0


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
