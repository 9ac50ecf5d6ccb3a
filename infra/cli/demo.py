"""`baton demo`: the whole story on this machine, and what came of it."""

import random
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra.demo import RISE, WINDOW, Outcome, mean, tell
from job.errors import ExitCode

app = typer.Typer(add_completion=False)
PLOT_COLUMNS, PLOT_ROWS = 90, 16


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where the two runs are written (default: runs/demo-DATE-TIME here).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the moments of the kills (default: another each time).")
    ] = None,
) -> None:
    """The whole story on this machine: train, be killed, resume, compare the weights. Takes about 3 minutes.

    Ends with 0 when the weights are identical and the reward rose, else with 1.
    """
    folder = folder or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    seed = random.randrange(1 << 32) if seed is None else seed
    talk = Console(stderr=True, highlight=False, soft_wrap=True)
    talk.print(f"A tiny model learns sums by GRPO; about 3 minutes on 2 cores. Kills by seed {seed}.", markup=False)
    outcome = tell(folder, seed, lambda line: talk.print(line, markup=False))
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(render(outcome))
    raise typer.Exit(ExitCode.FINISHED if outcome.identical and outcome.rise >= RISE else ExitCode.BUG)


def render(outcome: Outcome) -> RenderableType:
    """Table, plot and verdict."""
    first, last = mean(outcome.rewards[:WINDOW]), mean(outcome.rewards[-WINDOW:])
    answer = "yes" if outcome.identical else "NO"
    verdict = [
        f"weights identical to an uninterrupted run: {answer}",
        f"  killed run     sha256 {outcome.killed_sha256}",
        f"  untouched run  sha256 {outcome.untouched_sha256}",
        f"reward: {first:.2f} (first {WINDOW} steps) to {last:.2f} (last {WINDOW})"
        + ("" if outcome.rise >= RISE else f"; it should have risen by {RISE}"),
        f"time: {outcome.killed_s:.0f} s with both kills, {outcome.untouched_s:.0f} s without",
        f"look again: baton status {outcome.killed.uri}",
    ]
    return Group(Text(), attempts_table(outcome), Text(), Text.from_ansi(plot(outcome)), Text(), *map(Text, verdict))


def attempts_table(outcome: Outcome) -> Table:
    """One row per attempt of both runs: how it ended, its steps, its seconds by phase."""
    runs = [("killed", outcome.killed), ("untouched", outcome.untouched)]
    phases = list(dict.fromkeys(phase for _, run in runs for attempt in run.attempts for phase in attempt.phases_s))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "attempt", "how it ended", "steps", "lost", *(f"{phase} s" for phase in phases)):
        table.add_column(name, justify="left" if name in ("run", "how it ended") else "right")
    for name, run in runs:
        ends = [attempt.from_step for attempt in run.attempts[1:]] + [run.durable_step]
        losses = [attempt.lost_steps for attempt in run.attempts[1:]] + [0]
        for attempt, end, lost in zip(run.attempts, ends, losses, strict=True):
            how = (
                f"killed by {outcome.kills[attempt.number - 1].signal.name}"
                if _was_killed(name, attempt.exit_code)
                else "finished"
            )
            spent = (attempt.phases_s.get(phase) for phase in phases)
            table.add_row(
                name,
                f"{attempt.number}",
                how if attempt.exit_code != ExitCode.PREEMPTED else f"{how}, saved, exit 75",
                f"{attempt.from_step} to {end}",
                f"{lost}",
                *("" if seconds is None else f"{seconds:.1f}" for seconds in spent),
            )
    return table


def _was_killed(name: str, exit_code: int | None) -> bool:
    return name == "killed" and exit_code != ExitCode.FINISHED


def plot(outcome: Outcome) -> str:
    """The reward by step, smoothed, with a line where an attempt ended."""
    import plotext

    smooth = [mean(outcome.rewards[max(0, i - 4) : i + 1]) for i in range(len(outcome.rewards))]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(PLOT_COLUMNS, PLOT_ROWS)
    plotext.plot(list(range(1, len(smooth) + 1)), smooth, marker="braille")
    for attempt in outcome.killed.attempts[1:]:
        plotext.vline(attempt.from_step)
    plotext.title("mean reward by step (mean of 5); | where an attempt was killed and the next one went on")
    plotext.xlabel("step")
    return str(plotext.build())
