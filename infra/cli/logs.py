"""`baton logs`."""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.runs import open_run
from job.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from infra.reading.log_lines import LogLine
    from job.storage import Bucket

app = typer.Typer(add_completion=False)
LOOK_EVERY_S = 3.0  # lines are shipped every 5 s
STATUS_EVERY_S = 12.0
LAST_S = 12.0  # what the end of an attempt leaves to be shipped


@app.command()
def logs(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until the run is over.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt only.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Begin with the last N lines only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line as JSON.")] = False,
) -> None:
    """What a run said: its attempts' own lines, and the console of their VMs from the boot on, in order of time.

    Lines without a time are the console's: all there is of a VM that was lost in its boot, or ran out of memory.
    """
    from job.views.status import read_status

    bucket = open_run(run)
    found = read_status(bucket)  # refuses what is no run
    numbers = [one.number for one in found.attempts]
    if attempt is not None and attempt not in numbers:
        of = f"1 to {numbers[-1]}" if numbers else "none yet"
        raise UsageError(f"{bucket.uri} has no attempt {attempt}.", fix=f"It has {of}.")
    try:
        _show(bucket, numbers if attempt is None else [attempt], tail, as_json=as_json, follow=follow, only=attempt)
        sys.stdout.flush()
    except BrokenPipeError:  # `baton logs | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.FINISHED) from None


def _show(
    bucket: "Bucket", numbers: list[int], tail: int | None, *, as_json: bool, follow: bool, only: int | None
) -> None:
    """Prints what there is of these attempts, then, with `follow`, what comes of the newest and those after it."""
    kept: deque[LogLine] = deque(maxlen=tail)
    source = None
    for number in numbers:
        source = _Source(bucket, number)
        lines = source.lines(last=not follow or number != numbers[-1])
        if tail is None:
            _print(lines, as_json=as_json)
        else:
            kept.extend(lines)
    _print(kept, as_json=as_json)
    while follow and source is not None:
        after = _follow(bucket, source, only, as_json=as_json)
        source = None if after is None else _Source(bucket, after)


class _Source:
    """One attempt's lines, as they come."""

    def __init__(self, bucket: "Bucket", attempt: int) -> None:
        from infra.reading.log_lines import CONSOLE, LOGS, LogJoin
        from infra.reading.tail import AttemptTail

        self.attempt = attempt
        self._join = LogJoin(attempt)
        self._tail = AttemptTail(bucket, attempt, lambda name: name.startswith((LOGS, CONSOLE)))

    def lines(self, *, last: bool) -> "list[LogLine]":
        """Those that are new; `last`: nothing more is to come."""
        return self._join.add(self._tail.look(), last=last)


def _follow(bucket: "Bucket", source: _Source, only: int | None, *, as_json: bool) -> int | None:
    """Prints an attempt's lines until it is over and nothing more has come for a while; the attempt after it."""
    looked_s, quiet_since_s, is_over, after = -math.inf, 0.0, False, None
    while True:
        now_s = time.monotonic()
        if now_s - looked_s >= STATUS_EVERY_S:
            looked_s, was_over = now_s, is_over
            is_over, after = _look(bucket, source.attempt, only)
            quiet_since_s = quiet_since_s if was_over else now_s
        lines = source.lines(last=is_over)
        _print(lines, as_json=as_json)
        quiet_since_s = now_s if lines else quiet_since_s
        if is_over and now_s - quiet_since_s >= LAST_S:
            return after
        time.sleep(LOOK_EVERY_S)


def _look(bucket: "Bucket", number: int, only: int | None) -> tuple[bool, int | None]:
    """(whether nothing more comes of an attempt, the one that comes after it)."""
    from job.views.status import read_status

    found = read_status(bucket)
    after = next((one.number for one in found.attempts if one.number > number), None)
    this = next((one for one in found.attempts if one.number == number), None)
    if after is not None:
        return True, after if only is None else None
    nobody_else = only is not None or found.status in ("finished", "stopped", "failed")
    if this is None:
        return nobody_else, None
    return this.ended and (nobody_else or this.kind == "process"), None


def _print(lines: "Iterable[LogLine]", *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            sys.stdout.write(json.dumps(asdict(line)) + "\n")
        else:
            at = datetime.fromtimestamp(line.at_s).astimezone().strftime("%m-%d %H:%M:%S") if line.timed else ""
            sys.stdout.write(f"{line.attempt:>3}  {at:<14}  {line.shown}\n")
    sys.stdout.flush()
