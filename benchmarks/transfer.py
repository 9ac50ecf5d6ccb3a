"""How fast checkpoints go to Cloud Storage and come back, beside four other clients.

    python -m benchmarks.transfer [--full] [--rounds 3] [--json FILE]       about 4 minutes on two quiet cores

The service is the project's own on loopback, so its speed and the two cores bound everything: what counts is how the
clients compare. A second pass gives each stream a cap, as a network does: there it shows who uses several streams.
Clients take turns, and what comes back is compared with what was sent, outside the time.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.table import Table

from benchmarks.measure import Claim, hold_to_cores, options, progress, report, warn_if_busy
from benchmarks.server import served
from benchmarks.transfer_clients import Load, clients
from infra.localcloud.storage.process import BUCKET

MIB = 1 << 20
CAP_BYTES_PER_S = 25_000_000
GOAL_OF_FASTEST = 0.9
OURS, PLAIN = "ours", "google-cloud-storage"
DIRECTIONS = ("up", "down")


@dataclass(frozen=True)
class Case:
    """What is brought, and how."""

    count: int
    total_bytes: int
    cap_bytes_per_s: float

    @property
    def name(self) -> str:
        """For people."""
        size = f"{self.total_bytes / self.count / MIB:.3g} MiB"
        what = f"one object of {size}" if self.count == 1 else f"{self.count} objects of {size}"
        return what + (f", {self.cap_bytes_per_s / 1e6:.0f} MB/s a stream" if self.cap_bytes_per_s else "")


@dataclass(frozen=True)
class Measured:
    """Seconds of every round, by (client, direction)."""

    case: Case
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def mb_per_s(self, client: str, direction: str) -> float:
        """By the median of the rounds."""
        return self.case.total_bytes / 1e6 / median(self.seconds[client, direction])

    def names(self) -> list[str]:
        """The clients that took part."""
        return list(dict.fromkeys(name for name, _ in self.seconds))


def measure(case: Case, rounds: int, scratch: Path) -> Measured:
    """Lets the clients take turns on a fresh server."""
    load = Load(scratch / "source", os.urandom(case.total_bytes // case.count), case.count)
    load.folder.mkdir()
    for name in load.names:
        (load.folder / name).write_bytes(load.data)
    measured = Measured(case)
    with served(cap_bytes_per_s=case.cap_bytes_per_s, folder=scratch / "service") as server:
        contestants = clients(server.url, BUCKET, load, scratch)
        for number in range(rounds):
            for client in contestants[number % len(contestants) :] + contestants[: number % len(contestants)]:
                for direction, work in zip(DIRECTIONS, (client.up, client.down), strict=True):
                    began_s = perf_counter()
                    work()
                    measured.seconds.setdefault((client.name, direction), []).append(perf_counter() - began_s)
                assert all(data == load.data for data in client.came_back()), f"{client.name} brought other bytes back"
    return measured


def claims_of(measured: Sequence[Measured]) -> list[Claim]:
    """What is claimed; pure."""
    claims = []
    for m in measured:
        for direction in DIRECTIONS:
            speed = {name: m.mb_per_s(name, direction) for name in m.names()}
            fastest = max((name for name in speed if name != OURS), key=speed.__getitem__)
            share = speed[OURS] / speed[fastest]
            claims.append(
                Claim(
                    f"{m.case.name}, {direction}: speed to that of the fastest other ({fastest})",
                    share,
                    "times",
                    f">= {GOAL_OF_FASTEST}",
                    share >= GOAL_OF_FASTEST,
                )
            )
            if m.case.cap_bytes_per_s:
                gain = speed[OURS] / speed[PLAIN]
                claims.append(
                    Claim(f"{m.case.name}, {direction}: speed to that of {PLAIN}", gain, "times", "> 1", gain > 1)
                )
    return claims


def table_of(m: Measured) -> Table:
    """Speeds and the rounds behind them."""
    table = Table("client", *(f"{d}, MB/s" for d in DIRECTIONS), *(f"{d}, s" for d in DIRECTIONS), title=m.case.name)
    for name in m.names():
        speeds = (f"{m.mb_per_s(name, d):.0f}" for d in DIRECTIONS)
        rounds = (" ".join(f"{s:.2f}" for s in m.seconds[name, d]) for d in DIRECTIONS)
        table.add_row(name, *speeds, *rounds)
    return table


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--full", action="store_true", help="1 GiB instead of 128 MiB in each case")
    parser.add_argument("--rounds", type=int, default=3, help="of each client in each case")
    given = parser.parse_args(argv)
    hold_to_cores()
    if not given.quick:
        warn_if_busy()
    total_bytes = 4 * MIB if given.quick else (1024 if given.full else 128) * MIB
    caps = (0.0,) if given.quick else (0.0, CAP_BYTES_PER_S)
    measured = []
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # not the disk is to be measured
    for case in [Case(count, total_bytes, cap) for cap in caps for count in (1, 8 if given.quick else 200)]:
        progress(case.name)
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=memory) as folder:
            measured.append(measure(case, 1 if given.quick else given.rounds, Path(folder)))
    report([table_of(m) for m in measured], claims_of(measured), given)


if __name__ == "__main__":
    main(sys.argv[1:])
