"""Rows (metrics, events, log lines, judgements) as numbered segments, each written by one writer and only added to."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from job.run.layout import ATTEMPTS, parse_segment_name, segment_folder, segment_name
from job.run.records import AT_ONCE, replace
from job.storage import Bucket, NotFound, PreconditionFailed
from job.storage.parallel import in_parallel

SEGMENT_BYTES = 256 << 10
"""About 300 rows of metrics: 100,000 steps make some 350 segments. Every flush writes half of it on average."""
NEWEST_SEGMENTS = 3


@dataclass(frozen=True)
class Row:
    """One row and the attempt that wrote it."""

    attempt: int
    fields: Mapping[str, Any]


class SegmentWriter:
    """Writes one attempt's rows of one kind. An earlier incarnation's segments stay; numbering goes on after
    them.

    The newest segment is open: every flush writes it again with what was added, until it would be longer than
    SEGMENT_BYTES, then the next one begins. So a run has as many objects as its rows need, not one for every flush,
    and a reader sees all rows of a flush or none.

    One thread uses it at a time. Rows that a failed flush did not write stay for the next.
    """

    def __init__(self, bucket: Bucket, attempt: int, kind: str) -> None:
        self._bucket, self._attempt, self._kind = bucket, attempt, kind
        self._lines: list[bytes] = []
        self._pending = b""
        """Rows that are being written, until they are known to have arrived."""
        self._written, self._generation = b"", 0
        """What the open segment holds. Only the writer that created a segment writes over it."""
        numbers = [
            parsed[2]
            for info in bucket.list(segment_folder(attempt, kind))
            if (parsed := parse_segment_name(info.name)) is not None
        ]
        self._number = max(numbers, default=0) + 1

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes one row, as it is now. NaN and infinity become null."""
        self._lines.append(_encode(row))

    def flush(self) -> None:
        """Writes what was added, if anything was. Raises Transient, NeedsPerson."""
        while self._pending or self._lines:
            if not self._pending:
                self._pending, self._lines = b"".join(self._lines), []
                if self._written and len(self._written) + len(self._pending) > SEGMENT_BYTES:
                    self._open_next()
            name, data = segment_name(self._attempt, self._kind, self._number), self._written + self._pending
            try:
                # After Transient the very same bytes are tried again: they may have arrived.
                self._generation = replace(self._bucket, name, data, self._generation)
            except PreconditionFailed:  # another incarnation took the number after we had looked
                self._open_next()
                continue
            self._written, self._pending = data, b""

    def _open_next(self) -> None:
        self._number, self._written, self._generation = self._number + 1, b"", 0


def read_rows(bucket: Bucket, kind: str, *, on_bad: Callable[[str], None] | None = None) -> Iterator[Row]:
    """All rows of a kind: by attempt, then in the order in which they were written.

    A number that is missing is skipped, and so is a line that is not a JSON object: `on_bad` is told which.
    """
    segments = [
        (parsed[0], info.name)
        for info in bucket.list(ATTEMPTS)
        if (parsed := parse_segment_name(info.name)) is not None and parsed[1] == kind
    ]
    for start in range(0, len(segments), AT_ONCE):  # not all of them in memory
        some = segments[start : start + AT_ONCE]
        contents = in_parallel((partial(_read_lines, bucket, name) for _, name in some), AT_ONCE)
        for (attempt, name), lines in zip(some, contents, strict=True):
            for number, fields in enumerate(lines, 1):
                if fields is not None:
                    yield Row(attempt, fields)
                elif on_bad is not None:
                    on_bad(f"{bucket.uri}/{name}: line {number} is damaged; left out.")


def newest_row(
    bucket: Bucket, attempt: int, kind: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> Mapping[str, Any] | None:
    """The row of an attempt that was written last of those that are `wanted`; None where the last few segments, near
    a thousand rows, have none."""
    names = [info.name for info in bucket.list(segment_folder(attempt, kind))]
    for name in reversed(names[-NEWEST_SEGMENTS:]):
        rows = [fields for fields in _read_lines(bucket, name) if fields is not None and wanted(fields)]
        if rows:
            return rows[-1]
    return None


def _read_lines(bucket: Bucket, name: str) -> list[dict[str, Any] | None]:
    """The rows of a segment, None for a line that is not a JSON object; none when the segment is gone."""
    try:
        data, _ = bucket.read(name)
    except NotFound:
        return []
    return [_decode(line) for line in data.splitlines()]


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


KINDS = ("train", "eval", "final")


def row_kind(fields: Mapping[str, Any]) -> str:
    """Which of KINDS a metric row is, by the keys that the transformers Trainer logs."""
    if any(key.startswith("eval_") for key in fields):
        return "eval"
    return "final" if "train_runtime" in fields or "train_loss" in fields else "train"


def join_metrics(rows: Iterable[Row], durable_step: int) -> list[Mapping[str, Any]]:
    """The run's log as if one attempt had written it, ordered by step; pure.

    For each (step, kind of row) the newest attempt wins, and of one attempt the row that it wrote last. Rows
    without a step, and those above the durable step, are left out: they may yet be computed again.
    """
    newest: dict[tuple[int, int], Row] = {}
    for row in rows:
        step = row.fields.get("step")
        if not isinstance(step, int) or step > durable_step:
            continue
        key = (step, KINDS.index(row_kind(row.fields)))
        if key not in newest or row.attempt >= newest[key].attempt:
            newest[key] = row
    return [newest[key].fields for key in sorted(newest)]


def _encode(row: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(row, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(row), separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _finite(value: Any) -> Any:
    """The value with null for every number that JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
