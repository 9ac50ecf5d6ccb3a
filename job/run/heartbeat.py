"""The sign of life of an attempt, by its own thread, which also hears whether the run is still wanted."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from job.errors import BatonError
from job.run.claims import Claims, Want, read_claims
from job.run.layout import heartbeat_name
from job.run.records import Record
from job.storage import Bucket


class Heartbeat(Record):
    """What an attempt says of itself. Its age is told by the object's own time, not by the clocks in here."""

    attempt: int = Field(ge=1)
    incarnation: int = Field(ge=0)
    phase: str
    step: int | None = None
    """Optimizer steps that are done; None before training."""
    progress_s: float
    """When the phase or the step last changed, seconds since the epoch, by the attempt's clock."""
    beat_s: float
    """When this was written, by the same clock: beat_s - progress_s is how long nothing has moved."""
    number: int = Field(ge=1)
    """Counts the beats of this incarnation."""


def read_heartbeat(bucket: Bucket, attempt: int) -> tuple[Heartbeat, float] | None:
    """The last heartbeat and the bucket's time of it (seconds since the epoch), None before the first."""
    found = Heartbeat.read(bucket, heartbeat_name(attempt))
    return None if found is None else (found[0], found[1].updated_s)


class Heartbeats:
    """Writes the heartbeat every `interval_s`, and at once when the phase changes.

    `on_want` is called, in the thread, when claims.json says stop or failed, with the reason; once for each
    such word; `on_beat` is told the bucket's time and the claims each time. `on_trouble` is told when the bucket
    fails, once until it works again. Neither such trouble nor anything in the bucket ends the thread or reaches the
    training. The time of the file `sign` is that of the last one that the bucket has: the container's health check
    looks at it (docker/healthcheck.sh).
    """

    def __init__(
        self,
        bucket: Bucket,
        attempt: int,
        incarnation: int,
        *,
        interval_s: float,
        on_want: Callable[[Want, str | None], None],
        on_trouble: Callable[[str], None],
        on_beat: Callable[[float, Claims], None] = lambda bucket_s, claims: None,
        phase: str = "start",
        sign: Path | None = None,
    ) -> None:
        self._sign = sign
        self._on_beat = on_beat
        self._bucket, self._attempt, self._incarnation = bucket, attempt, incarnation
        self._interval_s, self._on_want, self._on_trouble = interval_s, on_want, on_trouble
        self._phase, self._step, self._progress_s = phase, None, time.time()  # type: str, int | None, float
        self._number = 0
        self._heard: Want = "run"
        self._in_trouble = False
        self._stopping = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def start(self) -> None:
        """Begins to beat, at once."""
        self._thread.start()

    def beat(self, *, phase: str | None = None, step: int | None = None) -> None:
        """Tells where the attempt is, without waiting. A new phase is written at once, a step with the next beat."""
        with self._lock:
            new_phase = phase is not None and phase != self._phase
            if new_phase or (step is not None and step != self._step):
                self._progress_s = time.time()
            self._phase = phase if phase is not None else self._phase
            self._step = step if step is not None else self._step
        if new_phase:
            self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Writes the last state and ends the thread; gives up on it after `timeout_s`."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            last = self._stopping
            self._turn()
            if last:
                return
            self._wake.wait(self._interval_s)

    def _turn(self) -> None:
        try:
            written_s = self._write()
            claims = read_claims(self._bucket)
            self._in_trouble = False
        except BatonError as error:
            if not self._in_trouble:
                self._in_trouble = True
                self._on_trouble(f"heartbeat: {error.what}")
            return
        self._on_beat(written_s, claims)
        if claims.want != self._heard:
            self._heard = claims.want
            if claims.want != "run":
                self._on_want(claims.want, claims.reason)

    def _write(self) -> float:
        """The bucket's time of it."""
        self._number += 1
        with self._lock:
            now = Heartbeat(
                attempt=self._attempt,
                incarnation=self._incarnation,
                phase=self._phase,
                step=self._step,
                progress_s=self._progress_s,
                beat_s=time.time(),
                number=self._number,
            )
        written = self._bucket.write(heartbeat_name(self._attempt), now.to_bytes())
        if self._sign is not None:
            with contextlib.suppress(OSError):  # the file is for whoever looks from outside; the run goes on
                self._sign.touch()
        return written.updated_s
