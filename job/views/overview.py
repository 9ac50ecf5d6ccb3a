"""All runs of a bucket, a line each: what each one does, how far it is, what it has cost, which VM it has."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from job.errors import NeedsPerson
from job.run.claims import Claims, read_claims
from job.run.costs import spent_usd
from job.run.head import Head, read_head
from job.run.heartbeat import Heartbeat, read_heartbeat
from job.run.records import AT_ONCE
from job.run.spec import Spec, read_spec
from job.storage import Bucket, open_bucket
from job.storage.parallel import in_parallel
from job.views.attempts import REASON_CHARACTERS
from job.views.status import said_status, silent_after_s
from job.views.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType


class RunLine(BaseModel):
    """One run in the list."""

    model_config = ConfigDict(frozen=True)

    uri: str
    status: str
    """As in `baton status`; `unreadable` where the run's records are not understood."""
    reason: str | None = None
    step: int | None = None
    """The newest that is known."""
    max_steps: int | None = None
    attempts: int = 0
    at_work: bool = False
    """Whether its newest attempt gave a sign of life of late."""
    vm: str | None = None
    """The VM of its newest attempt, unless that is known to be over."""
    zone: str | None = None
    machine_type: str | None = None
    usd: float = 0.0
    """What its VMs cost so far, as far as prices are known."""
    usd_per_hour: float | None = None
    """What it costs now."""
    max_usd: float | None = None


def read_overview(uris: Iterable[str], now_s: float) -> list[RunLine]:
    """Looks at runs, reading only, five or six calls each; those that hold no run are left out."""
    found = in_parallel((partial(_read_line, uri, now_s) for uri in uris), AT_ONCE)
    return [line for line in found if line is not None]


def describe_line(
    uri: str, spec: Spec | None, claims: Claims, head: Head | None, beat: tuple[Heartbeat, float] | None, now_s: float
) -> RunLine:
    """Puts together what was read; pure. `beat`: of the newest attempt, with the bucket's time of it."""
    newest = claims.newest
    is_open = newest is not None and newest.ended is None
    fresh = beat is not None and now_s - beat[1] <= silent_after_s(spec)
    status, reason = said_status(claims, head)
    over = status == "finished" or newest is None or newest.ended is not None or newest.kind != "vm"
    durable = None if head is None or head.checkpoint is None else head.checkpoint.step
    told = None if beat is None else beat[0].step
    return RunLine(
        uri=uri,
        status=status,
        reason=None if reason is None else printable(reason, REASON_CHARACTERS),
        step=max((step for step in (durable, told) if step is not None), default=None),
        max_steps=None if spec is None else spec.recipe.get("train", {}).get("max_steps"),
        attempts=len(claims.attempts),
        at_work=is_open and fresh and status != "finished",
        vm=None if over or newest is None else newest.vm,
        zone=None if over or newest is None else newest.zone,
        machine_type=None if over or newest is None else newest.machine_type,
        usd=spent_usd(claims.attempts, now_s),
        usd_per_hour=None if over or newest is None else newest.usd_per_hour,
        max_usd=None if spec is None or spec.machine is None else spec.machine.max_usd,
    )


def table(lines: Sequence[RunLine]) -> "RenderableType":
    """For a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "status", "step", "attempts", "cost", "now", "VM"):
        shown.add_column(name, justify="right" if name in ("attempts", "cost", "now") else "left", overflow="fold")
    for line in lines:
        shown.add_row(*(Text(printable(cell)) for cell in _cells(line)))
    return shown


def _cells(line: RunLine) -> tuple[str, ...]:
    status = line.status
    if status in ("running", "finishing") and not line.at_work:
        status += ", silent"
    if line.reason is not None:
        status += f": {line.reason[:60]}"
    of = "" if line.max_steps is None else f" of {line.max_steps}"
    where = " ".join(filter(None, (line.machine_type, line.zone)))
    return (
        line.uri.rpartition("/")[2],
        status,
        f"{0 if line.step is None else line.step}{of}",
        f"{line.attempts}",
        f"${line.usd:.2f}" if line.usd or line.max_usd is not None else "",
        f"${line.usd_per_hour:.2f}/h" if line.usd_per_hour is not None else "",
        "" if line.vm is None else f"{line.vm} ({where})",
    )


def _read_line(uri: str, now_s: float) -> RunLine | None:
    bucket: Bucket = open_bucket(uri)
    try:
        spec, claims, head = read_spec(bucket), read_claims(bucket), read_head(bucket)
        if spec is None and head is None and not claims.attempts:
            return None
        newest = claims.newest
        beat = None if newest is None or newest.ended is not None else read_heartbeat(bucket, newest.number)
    except NeedsPerson as error:  # damaged, or of another version: the others are listed all the same
        return RunLine(uri=bucket.uri, status="unreadable", reason=printable(error.what, REASON_CHARACTERS))
    return describe_line(bucket.uri, spec, claims, head, beat, now_s)
