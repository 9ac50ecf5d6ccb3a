"""Lives histories by chance, or tells one again, or mutates the code that decides."""

import argparse
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime

TELL_EVERY_S = 60.0


def main() -> int:
    """Exit 1 when a law is broken, or too many mutations are not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.recovery", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="live the history of this seed and tell it")
    what.add_argument("--histories", type=int, metavar="N", help="live N histories by chance")
    what.add_argument(
        "--mutate", metavar="all|N|FILE|FILE:LINE", help="mutate the code that decides: all, or N by chance"
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed of --histories, the seed of --mutate N")
    arguments = parser.parse_args()
    if arguments.mutate is not None:
        from .mutations import mutate

        return mutate(arguments.mutate, arguments.first)
    from .histories import History, sequentially
    from .truth import Broken

    try:
        if arguments.seed is not None:
            with sequentially():
                print(*History(arguments.seed).live().truth.story, sep="\n")
        else:
            live(arguments.first, arguments.histories)
    except Broken as broken:
        print(broken)
        return 1
    return 0


def live(first: int, count: int) -> None:
    """Histories by chance, one seed after another. Raises Broken."""
    from .histories import History, sequentially
    from .truth import Broken

    began_s = told_s = time.monotonic()
    ends: Counter[str] = Counter()
    ticks = 0
    with sequentially():
        for seed in range(first, first + count):
            try:
                history = History(seed).live()
            except Broken as broken:
                raise Broken(f"seed {seed}: {broken}") from None
            ticks += history.ticks
            ends.update(history.dead)
            if time.monotonic() > told_s + TELL_EVERY_S:
                told_s = time.monotonic()
                print(f"{seed + 1 - first:,} histories, {ticks:,} looks, {told_s - began_s:.0f} s", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(", ".join(f"{how} {number:,}" for how, number in ends.most_common()))
    print(
        f"{count:,} histories (seeds {first} to {first + count - 1}), {ticks:,} looks, 0 laws broken, "
        f"{time.monotonic() - began_s:.0f} s; {datetime.now(UTC):%Y-%m-%d}, commit {commit}"
    )


if __name__ == "__main__":
    sys.exit(main())
