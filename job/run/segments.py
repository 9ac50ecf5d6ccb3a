"""Rows (metrics, events, log lines, judgements) as numbered segments, written once and never changed."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from job.run.layout import ATTEMPTS, parse_segment_name, segment_folder, segment_name
from job.run.records import create
from job.storage import Bucket, NotFound, PreconditionFailed


@dataclass(frozen=True)
class Row:
    """One row and the attempt that wrote it."""

    attempt: int
    fields: Mapping[str, Any]


class SegmentWriter:
    """Writes one attempt's rows of one kind. An earlier incarnation's segments stay; numbering goes on after
    them.

    One thread uses it at a time. Rows that a failed flush did not write stay for the next.
    """

    def __init__(self, bucket: Bucket, attempt: int, kind: str) -> None:
        self._bucket, self._attempt, self._kind = bucket, attempt, kind
        self._lines: list[bytes] = []
        self._pending = b""
        """The segment that is being written, until it is known to have arrived."""
        numbers = [
            parsed[2]
            for info in bucket.list(segment_folder(attempt, kind))
            if (parsed := parse_segment_name(info.name)) is not None
        ]
        self._next = max(numbers, default=0) + 1

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes one row, as it is now. NaN and infinity become null."""
        self._lines.append(_encode(row))

    def flush(self) -> None:
        """Writes what was added as the next segment, if anything was. Raises Transient, NeedsPerson."""
        while self._pending or self._lines:
            if not self._pending:
                self._pending, self._lines = b"".join(self._lines), []
            try:
                # After Transient the very same bytes are tried under the same number: they may have arrived.
                create(self._bucket, segment_name(self._attempt, self._kind, self._next), self._pending)
            except PreconditionFailed:  # an incarnation before this one wrote it after we had looked
                self._next += 1
                continue
            self._next, self._pending = self._next + 1, b""


def read_rows(bucket: Bucket, kind: str, *, on_bad: Callable[[str], None] | None = None) -> Iterator[Row]:
    """All rows of a kind: by attempt, then in the order in which they were written.

    A number that is missing is skipped, and so is a line that is not a JSON object: `on_bad` is told which.
    """
    for info in bucket.list(ATTEMPTS):
        parsed = parse_segment_name(info.name)
        if parsed is None or parsed[1] != kind:
            continue
        try:
            data, _ = bucket.read(info.name)
        except NotFound:
            continue
        for number, line in enumerate(data.splitlines(), 1):
            try:
                fields = json.loads(line)
            except ValueError:
                fields = None
            if isinstance(fields, dict):
                yield Row(parsed[0], fields)
            elif on_bad is not None:
                on_bad(f"{bucket.uri}/{info.name}: line {number} is damaged; left out.")


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
