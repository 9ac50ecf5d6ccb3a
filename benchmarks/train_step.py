"""How long a step of our trainer takes, checkpoints on, beside TRL's GRPOTrainer without any; and what both learn.

    python -m benchmarks.train_step [--seeds 5] [--json FILE]       about 2 minutes a seed on two quiet cores

Both train the demo's recipe from the same seed, each in a process of its own, and take turns of a few steps: what
drifts hits both. Ours publishes every step to a real agent, whose uploads run during our turns only. A snapshot that
still waits for its upload at the end of a turn is dropped, as if the next step had replaced it; the cadence's pauses
go on during the other's turn, so that ours uploads rather more than in a run of its own.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.measure import (
    CORES,
    Claim,
    Interval,
    hold_to_cores,
    options,
    progress,
    ratio_of_sums,
    report,
    warn_if_busy,
)
from benchmarks.pipeline import Ends, Forked, Pipeline

GOAL_RATIO = 1.02
LAST_STEPS = 10  # whose mean is the final reward


@dataclass(frozen=True)
class Plan:
    """How much is trained."""

    steps: int
    block_steps: int
    threads: int
    smoke: bool


@dataclass(frozen=True)
class Measured:
    """Both trainers on one seed."""

    seed: int
    block_s: list[tuple[float, float]]
    """Seconds of the same steps: ours, plain."""
    rewards: tuple[list[float], list[float]]
    uploads: int

    def final(self) -> tuple[float, float]:
        """Mean reward of the last steps: ours, plain."""
        return fmean(self.rewards[0][-LAST_STEPS:]), fmean(self.rewards[1][-LAST_STEPS:])


def measure(seed: int, plan: Plan) -> Measured:
    """Trains both, in turns."""
    overrides = (f"train.seed={seed}", f"train.max_steps={plan.steps}", f"train.cpu_threads={plan.threads}")
    with Pipeline(plan.threads) as pipeline:
        folder = Path(pipeline.scratch.name)

        def ours(ends: Ends) -> dict[str, Any]:
            from benchmarks import turns

            return turns.train_ours(ends, folder / "ours", overrides, smoke=plan.smoke, block_steps=plan.block_steps)

        def plain(ends: Ends) -> dict[str, Any]:
            from benchmarks import turns

            return turns.train_plain(ends, folder / "plain", overrides, smoke=plan.smoke, block_steps=plan.block_steps)

        both = (pipeline.fork(ours), pipeline.fork(plain))
        uploader = pipeline.begin()
        for block in range(plan.steps // plan.block_steps):
            for forked in both if block % 2 == 0 else both[::-1]:
                _give_turn(pipeline, forked)
        for forked in both:
            forked.turns.send("go")  # nothing is left to train
        results = [pipeline.result(forked) for forked in both]
        return Measured(
            seed,
            list(zip(results[0]["block_s"], results[1]["block_s"], strict=True)),
            (results[0]["rewards"], results[1]["rewards"]),
            len(uploader.uploads),
        )


def _give_turn(pipeline: Pipeline, forked: Forked) -> None:
    over: list[str] = []
    pipeline.loop.listen(forked.turns.fileno(), lambda: over.extend(m.op for m in forked.turns.receive_ready()))
    forked.turns.send("go")
    pipeline.until(lambda: bool(over), forked)
    pipeline.loop.forget(forked.turns.fileno())
    pipeline.drop_pending()


def claims_of(measured: Sequence[Measured]) -> list[Claim]:
    """What is claimed; pure."""
    ratio = ratio_of(measured)
    ours, plain = zip(*(m.final() for m in measured), strict=True)
    overlap = max(min(ours), min(plain)) <= min(max(ours), max(plain))
    return [
        Claim(
            "a step of ours, checkpoints on, beside TRL's without: low end of the 95 % interval",
            ratio.low,
            "times",
            f"<= {GOAL_RATIO}",
            ratio.low <= GOAL_RATIO,
        ),
        Claim("the same: estimate", ratio.value, "times", "none", None),
        Claim(
            f"final reward of ours minus TRL's, mean of {len(measured)} seeds",
            fmean(ours) - fmean(plain),
            "reward",
            "ranges overlap",
            overlap,
        ),
    ]


def ratio_of(measured: Sequence[Measured]) -> Interval:
    """Seconds of ours to TRL's, over all blocks but the first of each seed, which pays for what is made once."""
    return ratio_of_sums([pair for m in measured for pair in m.block_s[1:]])


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=2, help="how many runs of each trainer")
    parser.add_argument("--steps", type=int, default=180, help="optimizer steps of each run")
    given = parser.parse_args(argv)
    cores = hold_to_cores()
    plan = Plan(given.steps, 10, min(cores, CORES), smoke=False)
    if given.quick:
        plan = Plan(6, 2, 1, smoke=True)
    else:
        warn_if_busy()
    measured = []
    for seed in range(1 if given.quick else given.seeds):
        progress(f"seed {seed}: {plan.steps} steps of each trainer")
        measured.append(measure(seed, plan))
    table = Table(
        "seed", "step ms: ours", "TRL", "ratio [95 %]", "uploads", "final reward: ours", "TRL", title="Step time"
    )
    for m in measured:
        ours_s, plain_s = (fmean(s) / plan.block_steps for s in zip(*m.block_s[1:], strict=True))
        table.add_row(
            str(m.seed),
            f"{ours_s * 1e3:.0f}",
            f"{plain_s * 1e3:.0f}",
            ratio_of([m]).text(3),
            str(m.uploads),
            *(f"{reward:.3f}" for reward in m.final()),
        )
    table.add_row("all", "", "", ratio_of(measured).text(3), "", "", "")
    report([table], claims_of(measured), given)


if __name__ == "__main__":
    main(sys.argv[1:])
