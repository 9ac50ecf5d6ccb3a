"""Kills runs at random moments, thousands of times, and compares what they end with: by hand, for hours.

    python -m tests.story.soak --kills 1000 [--gs] [--seed N] [--parallel 2]

Every run is the stories' six steps; it is killed with SIGKILL or SIGTERM, of the whole attempt or of the trainer alone,
until it has had its share of kills, then left to finish. With --gs the runs are in Cloud Storage, whose requests fail
in all the ways that the emulator knows. The reference is an uninterrupted run made at the start. Prints the seed, the
kills by kind and place, and every difference; exit 1 when there is one.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.localcloud.storage.process import BUCKET, StorageProcess, serve
from tests.story.attempts import ForkServer, Process, Run, weights_sha256
from tests.story.workplace import make_workplace

KILLS_PER_RUN = 5
ENDS = {0, 75, 76, -signal.SIGKILL}
"""What an attempt that was killed, or whose storage failed, may end with. 76 only where storage fails."""
FAULTS = ("503", "429", "500", "cut", "lost_reply", "corrupt", "stall")


@dataclass
class Tally:
    """What was done, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    runs: int = 0
    differences: list[str] = field(default_factory=list)

    def total(self) -> int:
        """Kills of every kind."""
        return self.kills.total()


def soak_run(run: Run, reference: str, draw: random.Random, tally: Tally, storage: StorageProcess | None) -> None:
    """One run from its first attempt to its last, killed on the way."""
    left = KILLS_PER_RUN
    for _ in range(20 * KILLS_PER_RUN):
        if storage is not None:
            arm(storage, run, draw)
        attempt = run.start()
        if left > 0:
            left -= kill_somewhere(run, attempt, draw, tally)
        code = attempt.wait()
        tally.ends[code] += 1
        allowed = ENDS if storage is not None else ENDS - {76}
        if code not in allowed:
            tally.differences.append(f"{run.uri}: exit {code}\n{attempt.err}")
            return
        if code == 0:
            break
    found = weights_sha256(run) if code == 0 else "it never finished"
    if found != reference:
        tally.differences.append(f"{run.uri}: {found} instead of {reference}")
    tally.runs += 1


def kill_somewhere(run: Run, attempt: Process, draw: random.Random, tally: Tally) -> int:
    """Waits for a random step and then for a random moment, and kills. How many it killed: 0 when it came too late."""
    run.wait_for_step(run.durable_step() + draw.choice((0, 0, 1)), attempt)
    end_s = time.monotonic() + draw.random() * 0.4
    while attempt.lives() and time.monotonic() < end_s:
        time.sleep(0.001)
    number = draw.choice((signal.SIGKILL, signal.SIGTERM))
    trainer = attempt.trainer_pid() if draw.random() < 0.25 else None
    try:
        if trainer is not None:
            os.kill(trainer, signal.SIGKILL)
        elif attempt.lives():
            attempt.kill(number)
        else:
            return 0
    except ProcessLookupError:
        return 0
    tally.kills["trainer SIGKILL" if trainer is not None else number.name] += 1
    return 1


def arm(storage: StorageProcess, run: Run, draw: random.Random) -> None:
    """A few faults, somewhere."""
    for _ in range(draw.randrange(3)):
        kind = draw.choice(FAULTS)
        storage.arm(
            kind,
            object=f"{run.cloud_uri.removeprefix(f'gs://{BUCKET}/')}/*",
            verb=draw.choice(("upload", "download", "*")) if kind not in ("cut", "corrupt", "stall") else "*",
            skip=draw.randrange(60),
            count=draw.choice((1, 1, 2, 3)),
            after_bytes=draw.choice((0, 1, 1000, 100_000)),
            **({"delay_s": 1.0} if kind == "stall" else {}),
        )


@contextmanager
def soaking(kills: int, draw: random.Random, *, gs: bool, parallel: int) -> Iterator[Tally]:
    """Does it; the tally."""
    tally = Tally()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        workplace = folder / "user"
        workplace.mkdir()
        make_workplace(workplace)
        server = ForkServer.start(folder)
        stack.callback(server.stop)
        storage = stack.enter_context(serve()) if gs else None
        if storage is not None:
            os.environ["STORAGE_EMULATOR_HOST"] = storage.url
        reference_run = Run(server, workplace, _made(folder / "reference"))
        attempt = reference_run.start()
        assert attempt.wait() == 0, attempt.err
        reference = weights_sha256(reference_run)

        def work(worker: int) -> None:
            own = random.Random(f"{draw.random()} {worker}")
            number = 0
            while tally.total() < kills and not tally.differences:
                number += 1
                name = f"run-{worker}-{number}"
                run = Run(server, workplace, _made(folder / name))
                if storage is not None:
                    run.cloud_uri = f"gs://{BUCKET}/runs/{name}"
                soak_run(run, reference, own, tally, storage)
                print(f"\r{tally.total()} kills, {tally.runs} runs", end="", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(parallel) as pool:
            for worker in [pool.submit(work, i) for i in range(parallel)]:
                worker.result()
        yield tally


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main(argv: list[str]) -> int:
    """Exit 1 when a run ended with other weights, or in a way that it must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--gs", action="store_true", help="runs in Cloud Storage, with faults")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--parallel", type=int, default=2)
    given = parser.parse_args(argv)
    print(f"--seed {given.seed}", file=sys.stderr)
    began_s = time.monotonic()
    with soaking(given.kills, random.Random(given.seed), gs=given.gs, parallel=given.parallel) as tally:
        print("", file=sys.stderr)
        print(f"seed {given.seed}: {tally.total()} kills {dict(tally.kills)} in {tally.runs} runs")
        print(f"attempts ended with {dict(sorted(tally.ends.items()))}, {time.monotonic() - began_s:.0f} s")
        print(f"{len(tally.differences)} differences", *tally.differences, sep="\n")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
