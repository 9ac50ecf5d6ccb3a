"""A run as it goes on, for a person at a terminal: phases with their seconds, then the training line.

`baton attach` is this, and so is the end of `baton launch`. It only reads the bucket; about two requests a second.
"""

import json
import time
from typing import Any, TypeVar

from pydantic import ValidationError

from infra.reading.following import Follower, Seen, newest_rows, shown_rows
from infra.reading.tail import AttemptTail
from job.errors import ExitCode, Transient
from job.run.attempt import AttemptRecord
from job.run.claims import read_claims
from job.run.console import FIRST, vm_phases
from job.run.head import read_head
from job.run.heartbeat import Heartbeat
from job.run.looked import Looked, read_looked
from job.run.records import Record
from job.run.spec import read_spec
from job.storage import Bucket
from job.views.progress import Progress

R = TypeVar("R", bound=Record)
LOOK_EVERY_S = 2.0
WATCHER_EVERY_S = 10.0
RECORD, BEAT, CONSOLE = "attempt.json", "heartbeat.json", f"console/{FIRST}"


def follow(bucket: Bucket) -> int:
    """Shows the run on stderr until it is over; the exit code says how: 0 finished, 3 failed, 75 stopped. Ctrl-C
    detaches, with 0: the run goes on."""
    progress = Progress()
    try:
        return _follow(_Looker(bucket, progress), Follower(progress.say), progress)
    except KeyboardInterrupt:
        progress.end()
        progress.say(f"detached; the run goes on. See it again: baton attach {bucket.uri}")
        return ExitCode.FINISHED
    finally:
        progress.close()


def _follow(looker: "_Looker", follower: Follower, progress: Progress) -> int:
    in_trouble = False
    while True:
        try:
            verdict = follower.tell(looker.look())
            looker.show()
            in_trouble = False
        except Transient as error:  # whoever watches a run for days sees the network fail
            if not in_trouble:
                progress.say(f"the run cannot be seen: {error.what} Trying on.")
            in_trouble, verdict = True, None
        if verdict is not None:
            progress.end()
            progress.say(verdict.line)
            return verdict.exit_code
        time.sleep(LOOK_EVERY_S)


class _Looker:
    """Looks at a run; what it found of metrics it shows on the progress line."""

    def __init__(self, bucket: Bucket, progress: Progress) -> None:
        self._bucket, self._progress = bucket, progress
        self._tail: AttemptTail | None = None
        self._held: dict[str, bytes] = {}
        """What was read last of the attempt's small objects."""
        self._beat_seen_s = 0.0
        self._rows: list[dict[str, Any]] = []
        """Read and not yet shown."""
        self._steps: tuple[int, int] | None = None
        self._first_step_s: float | None = None
        self._looked: Looked | None = None
        self._watcher_due_s = 0.0
        self._begun = False
        self._steps_in_all: int | None = None

    def look(self) -> Seen:
        """The run as it is. Raises Transient."""
        claims, head, now_s = read_claims(self._bucket), read_head(self._bucket), time.time()
        if time.monotonic() >= self._watcher_due_s:
            self._watcher_due_s = time.monotonic() + WATCHER_EVERY_S
            self._looked = read_looked(self._bucket)
        if (newest := claims.newest) is not None:
            if self._tail is None or self._tail.attempt != newest.number:
                self._tail = AttemptTail(self._bucket, newest.number, _is_wanted)
                self._held, self._rows, self._steps, self._first_step_s = {}, [], None, None
                self._progress.end()
                self._begun = False
            changed = self._tail.look(newest_rows)
            self._held |= {name: changed[name] for name in (RECORD, BEAT, CONSOLE) if name in changed}
            self._beat_seen_s = now_s if BEAT in changed else self._beat_seen_s
            for name in sorted(name for name in changed if name.startswith("metrics/")):
                self._take(_rows(changed[name]))
        record, beat = _parsed(AttemptRecord, self._held.get(RECORD)), _parsed(Heartbeat, self._held.get(BEAT))
        if head is not None and head.checkpoint is not None:
            self._progress.durable(head.checkpoint.step)
        if newest is not None and (newest.ended is not None or (record is not None and record.ended is not None)):
            self._rows = self._rows if self._begun else []  # of an attempt that was over when nobody had looked yet
        return Seen(
            uri=self._bucket.uri,
            claims=claims,
            head=head,
            record=record,
            heartbeat=None if beat is None else (beat, self._beat_seen_s),
            booted=vm_phases(self._held.get(CONSOLE, b"").decode(errors="replace")),
            rows=self._steps,
            first_step_s=self._first_step_s,
            looked=self._looked,
            now_s=now_s,
            max_steps=self._steps_in_all,
        )

    def show(self) -> None:
        """Shows what is new of the metrics; the training line appears with the first."""
        for row in shown_rows(self._rows):
            if not self._begun:
                self._begun = True
                self._steps_in_all = self._max_steps()
                self._progress.begin(self._steps_in_all)
            self._progress.row(row)
        self._rows = []

    def _take(self, rows: list[dict[str, Any]]) -> None:
        """Keeps the rows after those that were taken before."""
        for row in rows:
            if self._steps is None:
                taken = row.get("step_time")
                self._first_step_s = float(taken) if isinstance(taken, int | float) else None
                self._steps = row["step"], row["step"]
            elif row["step"] <= self._steps[1]:
                continue
            self._steps = self._steps[0], row["step"]
            self._rows.append(row)

    def _max_steps(self) -> int | None:
        spec = read_spec(self._bucket)
        steps = None if spec is None else spec.recipe.get("train", {}).get("max_steps")
        return steps if isinstance(steps, int) else None


def _is_wanted(name: str) -> bool:
    return name in (RECORD, BEAT, CONSOLE) or name.startswith("metrics/")


def _parsed(kind: type[R], data: bytes | None) -> R | None:
    """The record; None where there is none, or a VM wrote nonsense."""
    if data is None:
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        return None


def _rows(data: bytes) -> list[dict[str, Any]]:
    """Rows of metrics that have a step; the others are left out."""
    found = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found
