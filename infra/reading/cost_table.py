"""What a run cost, for a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra.reading.costs import PARTS, RunCost
from job.views.progress import seconds
from job.views.text import printable


def render(cost: RunCost) -> RenderableType:
    """A headline, the attempts, what the money bought."""
    parts: list[RenderableType] = [Text(line) for line in headline(cost)]
    if cost.attempts:
        parts += [Text(), _attempts(cost), Text(), _bought(cost)]
    return Group(*parts)


def headline(cost: RunCost) -> list[str]:
    """The sum, and what it is compared with; pure."""
    cap = "" if cost.max_usd is None else f" of at most ${cost.max_usd:.2f}"
    step = "" if cost.usd_per_step is None else f", ${cost.usd_per_step:.3g} a step"
    lines = [printable(f"{cost.uri}: {cost.status}, ${cost.usd:.2f}{cap}{step}")]
    if not cost.attempts:
        lines.append("It had no VMs: what a machine of your own costs is not known here.")
    elif cost.on_demand_usd is None:
        lines.append("On demand: not known, no on-demand price of that machine is.")
    elif cost.saved_share is not None and cost.on_demand_usd > 0:
        more = "less" if cost.saved_share >= 0 else "more"
        lines.append(
            f"On demand, never preempted, the same steps and one start: ${cost.on_demand_usd:.2f}; "
            f"this is {abs(cost.saved_share):.0%} {more}"
        )
    return lines


def _attempts(cost: RunCost) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("attempt", "where", "time", "$/h", "$", *PARTS, "how it ended"):
        table.add_column(name, justify="left" if name in ("where", "how it ended") else "right")
    for attempt in cost.attempts:
        cells = [
            f"{attempt.number}",
            printable(attempt.where, 60),
            seconds(attempt.seconds),
            "-" if attempt.usd_per_hour is None else f"{attempt.usd_per_hour:.3f}",
            "-" if attempt.usd is None else f"{attempt.usd:.3f}",
            *(seconds(attempt.seconds_by_part[part]) for part in PARTS),
            printable(attempt.how, 60),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _bought(cost: RunCost) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="what it bought", title_justify="left", title_style="")
    table.add_column("for")
    table.add_column("$", justify="right")
    rows = [(words, cost.usd_by_part[part]) for part, words in PARTS.items()]
    rows += [
        ("(of these: boot disks)", cost.boot_disks_usd),
        ("idle disks: none, they go with their VMs", cost.idle_disks_usd),
        ("network, between regions", cost.network_usd),
        ("storage operations", cost.storage_operations_usd),
        ("judge", cost.judge_usd),
    ]
    for words, usd in rows:
        table.add_row(words, f"{usd:.4f}")
    table.add_row("in all", f"{cost.usd:.4f}")
    return table
