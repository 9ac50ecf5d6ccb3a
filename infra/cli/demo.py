"""`baton demo`: the whole story on this machine, and what came of it."""

import io
import random
import signal
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
from job.views.status import RunStatus

app = typer.Typer(add_completion=False)
PLOT_COLUMNS, PLOT_ROWS = 90, 16


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where all of it is written (default: runs/demo-DATE-TIME here).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the moments of the preemptions (default: another each time).")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write what came of it as a picture too.")] = None,
) -> None:
    """The whole story on this machine: launch, be preempted, go on elsewhere, compare the weights. Takes 2 minutes.

    Ends with 0 when the weights are identical and the reward rose, else with 1.
    """
    folder = folder or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    seed = random.randrange(1 << 32) if seed is None else seed
    talk = Console(stderr=True, highlight=False, soft_wrap=True)
    talk.print(f"A tiny model learns sums by GRPO; 2 minutes on 2 cores. Preemptions by seed {seed}.", markup=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # so that cloud and commands, which have sessions of their own, are ended too
    outcome = tell(folder, seed, lambda line: talk.print(line, markup=False))
    out = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    out.print(render(outcome))
    if svg is not None:
        picture = Console(width=PLOT_COLUMNS, record=True, file=io.StringIO(), highlight=False)
        picture.print(render(outcome))
        picture.save_svg(str(svg), title="baton demo")
    raise typer.Exit(ExitCode.FINISHED if outcome.identical and outcome.rise >= RISE else ExitCode.BUG)


def _end(number: int, frame: object) -> None:
    raise typer.Exit(128 + number)


def render(outcome: Outcome) -> RenderableType:
    """Tables, plot and verdict."""
    first, last = mean(outcome.rewards[:WINDOW]), mean(outcome.rewards[-WINDOW:])
    answer = "yes" if outcome.identical else "NO"
    usd = sum(attempt.usd or 0.0 for attempt in outcome.preempted.attempts)
    verdict = [
        f"weights identical to an uninterrupted run: {answer}",
        f"  preempted run  sha256 {outcome.preempted_sha256}",
        f"  untouched run  sha256 {outcome.untouched_sha256}",
        f"reward: {first:.2f} (first {WINDOW} steps) to {last:.2f} (last {WINDOW})"
        + ("" if outcome.rise >= RISE else f"; it should have risen by {RISE}"),
        f"time: {outcome.preempted_s:.0f} s with both preemptions, {outcome.untouched_s:.0f} s without any",
        f"cost: ${usd:.3f} if it had been Google Cloud; nothing here",
        f"its report, for a browser: {outcome.result}/report.html",
    ]
    caption = "reward by step (mean of 5); a line where a VM was taken away and the next one went on"
    tables = attempts_table(outcome), phases_table(outcome)
    return Group(Text(), *tables, Text(caption), Text(plot(outcome)), *map(Text, verdict))


def attempts_table(outcome: Outcome) -> Table:
    """One row per attempt of both runs: where it was, how it ended, its steps, what had to be made again."""
    table = _table("attempts", "run", "attempt", "where", "how it ended", "steps", "made again")
    for name, run in _runs(outcome):
        ends = [attempt.from_step for attempt in run.attempts[1:]] + [run.durable_step]
        losses = [attempt.lost_steps for attempt in run.attempts[1:]] + [0]
        for attempt, end, lost in zip(run.attempts, ends, losses, strict=True):
            saved = "" if attempt.exit_code is None else f", exit {attempt.exit_code}"
            how = f"{attempt.how.partition(':')[0]}{saved}"
            steps = f"{attempt.from_step} to {end}"
            table.add_row(name, f"{attempt.number}", attempt.zone or "a process here", how, steps, f"{lost}")
    return table


def _runs(outcome: Outcome) -> tuple[tuple[str, RunStatus], ...]:
    return ("preempted", outcome.preempted), ("untouched", outcome.untouched)


def phases_table(outcome: Outcome) -> Table:
    """One row per attempt of both runs: its seconds by phase, as far as it could tell of them."""
    runs = _runs(outcome)
    phases = list(dict.fromkeys(phase for _, run in runs for attempt in run.attempts for phase in attempt.phases_s))
    table = _table("seconds by phase", "run", "attempt", *phases)
    for name, run in runs:
        for attempt in run.attempts:
            spent = (attempt.phases_s.get(phase) for phase in phases)
            table.add_row(
                name, f"{attempt.number}", *("" if seconds is None else f"{seconds:.1f}" for seconds in spent)
            )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("run", "where", "how it ended") else "right", no_wrap=True)
    return table


def plot(outcome: Outcome) -> str:
    """The reward by step, smoothed, with a line where an attempt ended."""
    import plotext

    smooth = [mean(outcome.rewards[max(0, i - 4) : i + 1]) for i in range(len(outcome.rewards))]
    figure = plotext.figure
    figure.clear()
    figure.plot_size(PLOT_COLUMNS, PLOT_ROWS)
    curve = figure.signal(list(range(1, len(smooth) + 1)), smooth, marker="braille")
    curve.lines()
    figure.draw(curve)
    for attempt in outcome.preempted.attempts[1:]:
        figure.line(attempt.from_step, "vertical")
    return str(plotext.uncolorize(str(figure.build())))
