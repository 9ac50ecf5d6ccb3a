"""attempt.json while the attempt lives: what it was, where its seconds went, how it ended."""

import os
import socket
import threading
import time
from collections.abc import Mapping

from job.agent.phases import PhaseClock
from job.errors import BatonError
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, write_record
from job.run.head import Owner
from job.storage import Bucket
from job.storage.prices import usd

WRITE_EVERY_S = 5.0  # an attempt that is killed leaves its phases as they were then


class LiveRecord:
    """Writes attempt.json at the beginning, every few seconds with the checkpoints, and at the end."""

    def __init__(
        self,
        bucket: Bucket,
        owner: Owner,
        kind: str,
        phases: PhaseClock,
        resumed_from: ResumedFrom | None,
        machine: Mapping[str, str],
        usd_per_gib: float = 0.0,
    ) -> None:
        self._usd_per_gib = usd_per_gib
        self._bucket, self._owner, self._phases = bucket, owner, phases
        self._written_s = 0.0
        self._lock = threading.Lock()
        self._record = AttemptRecord(
            number=owner.head.attempt,
            incarnation=owner.head.incarnation,
            kind="vm" if kind == "vm" else "process",
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at_s=time.time() - sum(phases.seconds().values()),  # the first phase began before the claim
            resumed_from=resumed_from,
            machine=dict(machine),
        )

    def write_if_due(self) -> None:
        """As things stand, unless that was done a moment ago."""
        if time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """As things stand. After the last word nothing more, also from a thread that was left behind."""
        with self._lock:
            if self._record.ended is None:
                self._write()

    def end(self, exit_code: int, error: BatonError | None) -> None:
        """The last word."""
        checkpoint = self._owner.head.checkpoint
        ended = Ended(
            exit_code=exit_code,
            reason="finished" if error is None else error.what,
            step=None if checkpoint is None else checkpoint.step,
            at_s=time.time(),
        )
        with self._lock:
            self._record = self._record.model_copy(update={"ended": ended})
            self._write()

    def _write(self) -> None:
        self._written_s = time.monotonic()
        usage = self._bucket.usage
        now = {"phases": self._phases.seconds(), "storage": usage, "storage_usd": usd(usage, self._usd_per_gib)}
        write_record(self._bucket, self._record.model_copy(update=now))
