"""What an attempt tells while it lives: people on stderr, the run's log, and by its heartbeat whoever watches."""

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from job.agent.claiming import Claimed
from job.agent.journal import Journal
from job.agent.phases import PhaseClock
from job.agent.place import Traffic, traffic_lines
from job.agent.record import LiveRecord
from job.agent.words import available_memory_bytes, kl_is_news, kl_line, plan_lines
from job.errors import BatonError, error_for
from job.preemption import Deadline
from job.run.attempt import ResumedFrom
from job.run.claims import Claims, Want
from job.run.heartbeat import Heartbeats
from job.storage import Bucket
from job.views.progress import Progress


class Voice:
    """Says each thing once, to everybody whom it concerns; nothing in the bucket before the attempt has claimed."""

    def __init__(self) -> None:
        self.phases = PhaseClock("look")
        self.journal = Journal()
        self.progress = Progress(stream=sys.stderr)
        self._heartbeats: Heartbeats | None = None
        self._record: LiveRecord | None = None
        self._traffic = Traffic()
        self._told_notice = False
        self._told_kl: float | None = None
        self._hidden: list[str] = []

    def claimed(
        self,
        bucket: Bucket,
        claimed: Claimed,
        resumed_from: ResumedFrom | None,
        machine: Mapping[str, str],
        traffic: Traffic,
        *,
        heartbeat_s: float,
        on_want: Callable[[Want, str | None], None],
        on_beat: Callable[[float, Claims], None],
        sign: Path,
    ) -> None:
        """From now on it is heard in the bucket too; writes nothing yet. `on_want`: when the run is to stop; `on_beat`:
        the bucket's time and the claims, with each heartbeat; `sign`: a file whose time is that of the last one.
        """
        head = claimed.owner.head
        self._heartbeats = Heartbeats(
            bucket,
            head.attempt,
            head.incarnation,
            interval_s=heartbeat_s,
            on_want=on_want,
            on_beat=on_beat,
            on_trouble=lambda text: self.journal.event("heartbeat_failed", error=text),
            phase=self.phases.current,
            sign=sign,
        )
        self._traffic = traffic
        self._record = LiveRecord(
            bucket, claimed.owner, claimed.kind, self.phases, resumed_from, machine, traffic.usd_per_gib
        )

    def open(self, bucket: Bucket, attempt: int) -> None:
        """Writes attempt.json and the first heartbeat; the journal's flushes write from here on."""
        assert self._record is not None
        assert self._heartbeats is not None
        self._record.write()
        self._heartbeats.start()
        self.journal.open(bucket, attempt)

    def say(self, line: str) -> None:
        """A line for people: on stderr, and in the run's log."""
        line = self._masked(line)
        self.progress.say(line)
        self.journal.log(line)

    def hide(self, values: Iterable[SecretStr]) -> None:
        """From now on stars stand for these, whoever prints them: a library, or a task of the user's."""
        self._hidden = [value.get_secret_value() for value in values if value.get_secret_value()]

    def without_secrets(self, error: BatonError) -> BatonError:
        """The same error, with stars for what is hidden."""
        what, fix = self._masked(error.what), self._masked(error.fix)
        return error if (what, fix) == (error.what, error.fix) else error_for(error.exit_code, what, fix)

    def _masked(self, text: str) -> str:
        for value in self._hidden:
            text = text.replace(value, "********")
        return text

    def say_finished(self, uri: str) -> None:
        """There is nothing left to do."""
        self.say(f"{uri} is finished: its result is in {uri}/result")

    def enter_phase(self, phase: str) -> None:
        """What the attempt does from now on."""
        self.phases.enter(phase)
        if self._heartbeats is not None:
            self._heartbeats.beat(phase=phase)

    def training_begins(self, ready: Mapping[str, Any], slots: int) -> None:
        """What is trained, now that the model is built; on a terminal the moving line appears."""
        available_bytes = available_memory_bytes(Path("/proc/meminfo").read_text())
        lines = plan_lines(ready, slots, available_bytes)
        for line in [*lines, *traffic_lines(self._traffic, ready["state_bytes"])]:
            self.say(line)
        self.progress.begin(ready["max_steps"])

    def rows(self, rows: list[dict[str, Any]], kl_limit: float | None) -> None:
        """Rows of the training log, and a warning where the KL has become too large."""
        self.journal.metrics(rows)
        for row in rows:
            self.progress.row(row)
            if kl_is_news(row, kl_limit, self._told_kl):
                self._told_kl = row["kl"]
                self.say(kl_line(row))

    def tick(self, step: int | None, deadline: Deadline | None) -> None:
        """While the trainer works: the newest step in memory, and a notice that leaves it time."""
        if self._heartbeats is not None and step is not None:
            self._heartbeats.beat(step=step)
        if deadline is not None and not self._told_notice:
            self._told_notice = True
            self.journal.event("notice", reason=deadline.reason, left_s=round(deadline.left_s(), 1))
            self.say(f"{deadline.reason}: {deadline.left_s():.0f} s left; training goes on until the last safe moment")

    def durable(self, step: int | None) -> None:
        """The step that is safe in the bucket; None: none yet."""
        if step is not None:
            self.progress.durable(step)
        if self._record is not None:
            with contextlib.suppress(BatonError):  # the next time will do
                self._record.write_if_due()

    def write_phases(self) -> None:
        """attempt.json as things stand: the report is about to tell of them."""
        if self._record is not None:
            self._record.write()

    def crashed(self, what: str, step: int | None) -> None:
        """A trainer was lost, and another one goes on from `step`."""
        what = self._masked(what)
        self.journal.event("trainer_crashed", what=what, step=step)
        where = "the beginning" if step is None else f"step {step}"
        self.say(f"the trainer crashed ({what}); starting it again from {where}")

    def stop_beating(self, timeout_s: float) -> None:
        """The last heartbeat."""
        if self._heartbeats is not None:
            self._heartbeats.stop(timeout_s)

    def last_words(self, exit_code: int, error: BatonError | None) -> None:
        """How it ended, in attempt.json, and what the journal still holds."""
        if self._record is not None:
            self._record.end(exit_code, error)
            self.journal.flush()


def leave_at_once(exit_code: int) -> None:
    """The second interrupt: ends the process here and now."""
    show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""  # the moving line had hidden it
    words = b"second interrupt: leaving at once; the run goes on from its last durable step."
    with contextlib.suppress(OSError):  # a terminal that is gone
        if select.select([], [2], [], 0)[1]:  # and one that was stopped with Ctrl-S takes nothing
            os.write(2, show_cursor + b"\n" + words + b"\n")
    os._exit(exit_code)
