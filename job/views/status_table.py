"""The status of a run for a terminal."""

from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from job.run.head import Status
from job.views.status import AttemptView, RunStatus
from job.views.text import printable


def render(run: RunStatus) -> RenderableType:
    """For a terminal: a headline, the attempts, where their seconds went."""

    parts: list[RenderableType] = [Text(line) for line in headline(run)]
    if run.attempts:
        parts += [Text(), _attempts_table(run.attempts)]
    if any(attempt.phases_s for attempt in run.attempts):
        parts += [Text(), _phases_table(run.attempts)]
    return Group(*parts)


def headline(run: RunStatus) -> list[str]:
    """The run in two or three lines."""
    idle = run.status in (Status.RUNNING, Status.FINISHING) and not run.at_work
    words = [f"{printable(run.uri)}: {run.status}{', but no attempt is at work' if idle else ''}"]
    if run.reason is not None:
        words[0] += f": {run.reason}"
    of = "" if run.max_steps is None else f" of {run.max_steps}"
    durable = "nothing durable yet" if run.durable_step is None else f"durable up to step {run.durable_step}"
    words.append(f"step {0 if run.step is None else run.step}{of}, {durable}")
    if (row := run.training) is not None:
        known = [
            None if row.reward is None else f"reward {row.reward:.3g}",
            None if row.loss is None else f"loss {row.loss:.3g}",
            None if row.step_s is None else f"{row.step_s:.3g} s/step",
        ]
        words.append(f"at step {row.step}: {', '.join(filter(None, known))}")
    if run.storage.operations:
        hourly = "" if run.storage_usd_per_hour is None else f" (${run.storage_usd_per_hour:.2g} an hour)"
        sent, received = (f"{b / 1e6:,.0f} MB" for b in (run.storage.sent_bytes, run.storage.received_bytes))
        words.append(
            f"storage: {run.storage.operations:,} operations, {sent} sent, {received} received: "
            f"${run.storage_usd:.2g}{hourly}"
        )
    return words


def _attempts_table(attempts: Sequence[AttemptView]) -> RenderableType:

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("attempt", "where", "started", "steps", "lost", "how it ended"):
        table.add_column(name, justify="right" if name in ("attempt", "lost") else "left")
    for attempt in attempts:
        begun = "" if attempt.from_step is None else f"{attempt.from_step} to {_or_dash(attempt.last_step)}"
        where = f"{attempt.kind} on {attempt.host}" if attempt.host else attempt.kind
        cells = [
            f"{attempt.number}" + (f".{attempt.incarnation}" if attempt.incarnation else ""),
            printable(where, 40),
            datetime.fromtimestamp(attempt.started_at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            begun,
            f"{attempt.lost_steps}",
            attempt.how,
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _phases_table(attempts: Sequence[AttemptView]) -> RenderableType:

    phases = list(dict.fromkeys(phase for attempt in attempts for phase in attempt.phases_s))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="seconds by phase", title_justify="left", title_style="")
    table.add_column("attempt", justify="right")
    for phase in phases:
        table.add_column(Text(printable(phase, 20)), justify="right")
    for attempt in attempts:
        spent = (attempt.phases_s.get(phase) for phase in phases)
        table.add_row(f"{attempt.number}", *("" if s is None else f"{s:.1f}" for s in spent))
    return table


def _or_dash(step: int | None) -> str:
    return "-" if step is None else f"{step}"
