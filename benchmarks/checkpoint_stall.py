"""What a checkpoint at every step costs the training loop: ours beside stock Trainer with save_steps=1.

    python -m benchmarks.checkpoint_stall [--json FILE]       about 25 minutes on two quiet cores

One loop, in a trainer's process beside a real agent. Each step boundary begins a window that ends at the next. Some
windows begin with our snapshot, which the agent makes durable beside the step that follows; some with Trainer's own
save; those in between do nothing and are the measure of the others. Seconds lost by a window are what it took longer
than the windows around it that did nothing.

Steps of 10 s: a round of ours lasts until everything is durable and the cadence's pause is over, so it holds all the
work of one checkpoint (state, scored batch, head, deleting the one before). The loop is held once a step; what the work
in the background costs comes back after 10 s, or after the uploads and their pauses where these take longer.

With --gs the checkpoints go to a Cloud Storage on loopback. The CPU time that this server takes, and would not take in
production, is measured, shown apart, and not part of the claim where no core is free for it.
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.table import Table

from benchmarks.measure import (
    CORES,
    Claim,
    Interval,
    hold_to_cores,
    mean_of,
    median_of,
    options,
    progress,
    report,
    warn_if_busy,
)
from benchmarks.pipeline import Ends, Pipeline, Upload
from benchmarks.server import served
from job.storage.gcs import STREAMS

STEP_S = 10.0
TOKENS = 1  # per completion: a step of 2 s and more with both cores of the machine in docs/benchmarks.md
WARM_UP_STEPS = 4
WARM_UP_ROUNDS = 3  # the slots' memory is touched for the first time, once in an attempt
HELD_GOAL_PERCENT = 0.3
BUSY_GOAL_PERCENT, FREE_GOAL_PERCENT = 1.0, 0.4
STOCK_GOAL = 8.0
CAP_BYTES_PER_S = 50e6 / STREAMS  # of each of the streams that a large object takes


@dataclass(frozen=True)
class Case:
    """One loop to measure."""

    workload: str
    threads: int
    rounds: int
    gs: bool = False
    """To Cloud Storage over a link of 50 MB/s, instead of into a folder."""

    @property
    def name(self) -> str:
        """For people."""
        free = CORES - self.threads
        where = ", gs:// at 50 MB/s" if self.gs else ""
        return f"{self.workload}{where}, {'no core' if free == 0 else f'{free} core'} free"


@dataclass(frozen=True)
class Round:
    """One checkpoint: the window that it begins, and all until the next one."""

    held_s: float
    lost_s: float
    idle_s: float
    """The mean window without anything, around it."""
    uploads_s: float = 0.0
    """Its uploads and the cadence's pauses after them."""
    waited_s: float = 0.0
    """The trainer's threads were ready and had no core, more than in windows without anything."""
    server_cpu_s: float = 0.0
    """CPU time of a Cloud Storage server that shares the machine here and only here."""

    @property
    def share(self) -> float:
        """Of the time of a loop of 10 s steps."""
        return self._share(self.lost_s - self.held_s)

    @property
    def waited_share(self) -> float:
        """The same by the scheduler's count, over all threads: the most that it can be, but for caches and memory."""
        return self._share(self.waited_s)

    def _share(self, in_background_s: float) -> float:
        return self.held_s / STEP_S + in_background_s / max(STEP_S, self.uploads_s)

    @property
    def server_share(self) -> float:
        """What of that a server may have taken that shares the machine: its CPU time, at most."""
        return self.server_cpu_s / max(STEP_S, self.uploads_s)


@dataclass(frozen=True)
class Measured:
    """A case, and what was seen."""

    case: Case
    ours: list[Round]
    stock: list[Round]
    uploads: list[Upload]

    def step_s(self) -> float:
        """The median step without a checkpoint."""
        return median(r.idle_s for r in self.ours + self.stock)

    def slow_down_percent(self) -> Interval:
        """Of a loop of 10 s steps."""
        return mean_of([r.share for r in self.ours]).scaled(100)

    def server_percent(self) -> float:
        """Of a loop of 10 s steps, what the server's CPU time comes to where no core is free for it."""
        return fmean(r.server_share for r in self.ours) * 100 if self.case.threads >= CORES else 0.0

    def held_percent(self) -> float:
        """Of a 10 s step."""
        return median(r.held_s for r in self.ours) * 100 / STEP_S

    def times_less(self) -> float:
        """How often our hold fits into stock's."""
        return median(r.held_s for r in self.stock) / median(r.held_s for r in self.ours)


def measure(case: Case, train: Callable[[Ends, Path], list[dict[str, Any]]]) -> Measured:
    """Runs one loop beside an agent."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(served(cap_bytes_per_s=CAP_BYTES_PER_S, discard=True)) if case.gs else None
        pipeline = stack.enter_context(Pipeline(case.threads, server))
        folder = Path(pipeline.scratch.name) / "trainer"
        forked = pipeline.fork(lambda ends: {"windows": train(ends, folder)})
        uploader = pipeline.begin()
        windows = pipeline.result(forked)["windows"]
        uploads = list(uploader.uploads)
    return Measured(
        case,
        rounds_of("ours", windows, uploads)[min(WARM_UP_ROUNDS, case.rounds // 2) :],
        rounds_of("stock", windows, uploads)[min(WARM_UP_ROUNDS, case.rounds // 2) :],
        uploads,
    )


def rounds_of(kind: str, windows: Sequence[dict[str, Any]], uploads: Sequence[Upload]) -> list[Round]:
    """Splits windows into rounds of one kind; pure. A window beside which an upload ran is part of the cost."""

    def seconds(window: dict[str, Any]) -> float:
        return float(window["end_s"] - window["begin_s"])

    def is_idle(window: dict[str, Any]) -> bool:
        return window["kind"] == "none" and not any(
            u.begin_s < window["end_s"] and u.end_s > window["begin_s"] for u in uploads
        )

    begins = [i for i, window in enumerate(windows) if window["kind"] != "none"] + [len(windows)]
    rounds = []
    for before, (begin, end) in zip([0, *begins], itertools.pairwise(begins), strict=False):
        if windows[begin]["kind"] != kind:
            continue
        idle = [seconds(w) for w in windows[before:end] if is_idle(w)]
        costly = [seconds(w) for w in windows[begin:end] if not is_idle(w)]
        idle_s = fmean(idle)
        lost_s = sum(costly) - len(costly) * idle_s
        waited_idle_s = fmean(w["waited_s"] for w in windows[before:end] if is_idle(w))
        waited_s = sum(w["waited_s"] - waited_idle_s for w in windows[begin:end] if not is_idle(w))
        begin_s, end_s = windows[begin]["begin_s"], windows[end - 1]["end_s"]
        own = [u for u in uploads if kind == "ours" and begin_s <= u.begin_s < end_s]
        uploads_s = sum(u.end_s - u.begin_s + u.pause_s for u in own)
        server_s = sum(u.server_cpu_s for u in own)
        rounds.append(Round(windows[begin]["held_s"], lost_s, idle_s, uploads_s, waited_s, server_s))
    return rounds


def train_demo(case: Case) -> Callable[[Ends, Path], list[dict[str, Any]]]:
    """The demo's loop."""

    def train(ends: Ends, folder: Path) -> list[dict[str, Any]]:
        from benchmarks import workloads

        return _train(workloads.demo(folder, f"train.cpu_threads={case.threads}", *_endless()), ends, case)

    return train


def train_moment(case: Case) -> Callable[[Ends, Path], list[dict[str, Any]]]:
    """A loop for smoke runs."""

    def train(ends: Ends, folder: Path) -> list[dict[str, Any]]:
        from benchmarks import workloads

        return _train(workloads.moment(folder, f"train.cpu_threads={case.threads}", *_endless()), ends, case)

    return train


def train_llama_1b(case: Case) -> Callable[[Ends, Path], list[dict[str, Any]]]:
    """The loop with the large adapter."""

    def train(ends: Ends, folder: Path) -> list[dict[str, Any]]:
        from benchmarks import workloads

        return _train(workloads.llama_1b_adapter(folder, completion_tokens=TOKENS, threads=case.threads), ends, case)

    return train


def _train(workload: Any, ends: Ends, case: Case) -> list[dict[str, Any]]:
    from benchmarks.paired_trainer import Kinds, PairedTrainer

    kinds = Kinds(warm_up=WARM_UP_STEPS, ours=case.rounds, stock=case.rounds, durable=ends.durable)
    return PairedTrainer(workload, ends, kinds).measure()


def _endless() -> tuple[str, ...]:
    return ("train.max_steps=1000000",)  # the last round ends it


def claims_of(measured: Sequence[Measured]) -> list[Claim]:
    """What is claimed, of every case; pure."""
    claims = []
    for m in measured:
        goal = BUSY_GOAL_PERCENT if m.case.threads == CORES else FREE_GOAL_PERCENT
        held, times = m.held_percent(), m.times_less()
        paired, server = m.slow_down_percent(), m.server_percent()
        slow_down = paired.value - server
        told = paired.high - paired.low <= 2 * goal  # else the steps are too uneven to tell
        name = m.case.name
        claims += [
            Claim(
                f"{name}: loop held per step",
                held,
                "% of a 10 s step",
                f"<= {HELD_GOAL_PERCENT}",
                held <= HELD_GOAL_PERCENT,
            ),
            Claim(
                f"{name}: slow-down of the loop",
                slow_down,
                "% at 10 s steps",
                f"<= {goal}",
                slow_down <= goal if told else None,
            ),
            Claim(f"{name}: held less than by stock", times, "times", f">= {STOCK_GOAL:.0f}", times >= STOCK_GOAL),
        ]
    return claims


def table_of(measured: Sequence[Measured]) -> Table:
    """What was seen."""
    table = Table(title="A checkpoint at every step [95 % interval]")
    for column in (
        "loop",
        "step s",
        "checkpoint",
        "held ms (median)",
        "lost ms (mean)",
        "% at 10 s steps",
        "% by the scheduler",
        "upload ms",
        "pause s",
        "server %",
    ):
        table.add_column(column)
    for m in measured:
        states = [u for u in m.uploads if u.scored == 0] or m.uploads
        upload_s, pause_s = (median(s) for s in zip(*((u.end_s - u.begin_s, u.pause_s) for u in states), strict=True))
        for name, rounds, background in (
            ("ours", m.ours, (f"{upload_s * 1e3:.0f}", f"{pause_s:.1f}", f"{m.server_percent():.2f}")),
            ("stock", m.stock, ("-", "-", "-")),
        ):
            lost = mean_of([r.lost_s for r in rounds])
            table.add_row(
                m.case.name,
                f"{m.step_s():.2f}",
                name,
                median_of([r.held_s for r in rounds]).scaled(1e3).text(1),
                lost.scaled(1e3).text(0),
                mean_of([r.share for r in rounds]).scaled(100).text(2),
                mean_of([r.waited_share for r in rounds]).scaled(100).text(2),
                *background,
            )
    return table


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=25, help="checkpoints of each kind with the large adapter")
    parser.add_argument("--threads", type=int, choices=[1, 2], help="2: no core free, 1: one; both when not given")
    parser.add_argument("--only", choices=["demo", "adapter"], help="one of the two loops")
    parser.add_argument("--gs", action="store_true", help="to Cloud Storage on loopback, capped at 50 MB/s")
    given = parser.parse_args(argv)
    hold_to_cores()
    measured = []
    for case, train in _cases(given):
        progress(f"{case.name}: {case.rounds} checkpoints of each kind")
        measured.append(measure(case, train(case)))
    report([table_of(measured)], claims_of(measured), given)


def _cases(
    given: argparse.Namespace,
) -> list[tuple[Case, Callable[[Case], Callable[[Ends, Path], list[dict[str, Any]]]]]]:
    if given.quick:
        return [(Case("smoke", 1, 3), train_moment)]
    warn_if_busy()
    cases = []
    for threads in (CORES, CORES - 1) if given.threads is None else (given.threads,):
        if given.only != "adapter":
            cases.append((Case("demo", threads, 4 * given.rounds, given.gs), train_demo))
        if given.only != "demo":
            cases.append((Case("adapter of Llama-3.2-1B", threads, given.rounds, given.gs), train_llama_1b))
    return cases


if __name__ == "__main__":
    main(sys.argv[1:])
