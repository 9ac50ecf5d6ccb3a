"""The status of a run for a terminal."""

import time
from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from job.run.head import Status
from job.views.attempts import AttemptView, ending_words, where_words
from job.views.forecast import forecast_line
from job.views.progress import seconds
from job.views.status import LookedView, RunStatus
from job.views.text import printable


def render(run: RunStatus) -> RenderableType:
    """For a terminal: a headline, the attempts, where their seconds went."""

    parts: list[RenderableType] = [Text(line) for line in headline(run, time.time())]
    if run.attempts:
        parts += [Text(), _attempts_table(run.attempts)]
    if any(attempt.phases_s for attempt in run.attempts):
        parts += [Text(), _phases_table(run.attempts)]
    return Group(*parts)


def headline(run: RunStatus, now_s: float = 0.0) -> list[str]:
    """The run in a few lines; pure. `now_s`: when they are read."""
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
    if run.machines_usd is not None:
        now_usd = sum(a.usd_per_hour or 0.0 for a in run.attempts if not a.ended)
        cap = "" if run.max_usd is None else f" of at most ${run.max_usd:.2f}"
        words.append(f"machines: ${run.machines_usd:.2f}{cap}{f', ${now_usd:.2f} an hour now' if now_usd else ''}")
    if run.forecast is not None and run.status not in (Status.FINISHED, "failed"):
        words.append(forecast_line(run.forecast, now_s))
    if run.looked is not None and run.status not in (Status.FINISHED, "failed"):
        words.append(looked_line(run.looked, now_s, run.uri))
    return words


def looked_line(looked: LookedView, now_s: float, uri: str) -> str:
    """Who looks after the run, and when somebody last did; pure."""
    if looked.watcher is None or looked.at_s is None:
        return printable(f"nobody has ever looked after it: baton watchdog run {uri}, or baton watchdog up")
    note = f": {looked.note}" if looked.note else ""
    last = f"{looked.watcher} looked {seconds(max(0.0, now_s - looked.at_s))} ago"
    if looked.overdue:
        return printable(
            f"nobody looks after it any more ({last}{note}): baton watchdog run {uri}, or baton watchdog up"
        )
    left_s = None if looked.next_at_s is None else looked.next_at_s - now_s
    due = "" if left_s is None else f", next in {seconds(left_s)}" if left_s > 1 else ", the next look is due"
    return f"{last}{due}{note}"


def _attempts_table(attempts: Sequence[AttemptView]) -> RenderableType:
    costs = any(attempt.usd is not None for attempt in attempts)
    names = ("attempt", "where", "started", "steps", "lost", *(["cost"] if costs else []), "how it ended")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in ("attempt", "lost", "cost") else "left")
    for attempt in attempts:
        begun = "" if attempt.from_step is None else f"{attempt.from_step} to {_or_dash(attempt.last_step)}"
        cells = [
            f"{attempt.number}" + (f".{attempt.incarnation}" if attempt.incarnation else ""),
            printable(where_words(attempt), 60),
            datetime.fromtimestamp(attempt.started_at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            begun,
            f"{attempt.lost_steps}",
            *([("" if attempt.usd is None else f"${attempt.usd:.2f}")] if costs else []),
            ending_words(attempt),
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
