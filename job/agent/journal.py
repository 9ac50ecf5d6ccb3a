"""What an attempt tells: metric rows, events and log lines, as numbered segments in the bucket."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from job.run.segments import SegmentWriter
from job.storage import Bucket

FLUSH_EVERY_S = 5.0  # events and log lines; metric rows go with the checkpoint that covers them
Kind = Literal["metrics", "samples", "events", "logs"]


class Journal:
    """Collects rows in memory; the flushes write them. Adding never waits for a write; from any thread.

    Nothing is written before `open`: an attempt that has not been claimed leaves no trace.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Kind, Mapping[str, Any]]] = []
        self._adding = threading.Lock()
        self._writers: dict[Kind, SegmentWriter] = {}
        self._writing = threading.Lock()
        self._due_s = 0.0

    def open(self, bucket: Bucket, attempt: int) -> None:
        """From here on the flushes write, as this attempt."""
        kinds: tuple[Kind, ...] = ("metrics", "samples", "events", "logs")
        with self._writing:
            self._writers = {kind: SegmentWriter(bucket, attempt, kind) for kind in kinds}

    def event(self, kind: str, **fields: Any) -> None:
        """Something happened."""
        self._add("events", {"at_s": round(time.time(), 3), "kind": kind, **fields})

    def log(self, line: str) -> None:
        """A line that a person was shown, or that the trainer printed."""
        self._add("logs", {"at_s": round(time.time(), 3), "line": line})

    def metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of the training log, each with its step, and completions that were sampled."""
        for row in rows:
            self._add("samples" if "samples" in row else "metrics", row)

    def flush_metrics(self) -> None:
        """Writes the metric rows collected so far. Raises Transient; they are kept for the next flush then."""
        self._flush("metrics", "samples")

    def flush_if_due(self) -> None:
        """Writes events and log lines, unless that was done a moment ago."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + FLUSH_EVERY_S
            self._flush("events", "logs")

    def flush(self) -> None:
        """Writes everything."""
        self._flush("metrics", "samples", "events", "logs")

    def _add(self, kind: Kind, row: Mapping[str, Any]) -> None:
        with self._adding:
            self._waiting.append((kind, row))

    def _flush(self, *kinds: Kind) -> None:
        with self._writing:
            if not self._writers:
                return
            with self._adding:
                rows, self._waiting = self._waiting, []
            for kind, row in rows:
                self._writers[kind].add(row)
            for kind in kinds:
                self._writers[kind].flush()
