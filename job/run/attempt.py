"""What an attempt records of itself: where it ran, where it resumed, what its phases took, how it ended."""

from collections.abc import Iterable
from functools import partial
from typing import Literal

from pydantic import Field

from job.run.layout import attempt_name
from job.run.records import AT_ONCE, Record
from job.storage import Bucket
from job.storage.parallel import in_parallel
from job.storage.usage import Usage


class ResumedFrom(Record):
    """The checkpoint that the attempt went on from."""

    step: int = Field(ge=0)
    folder: str
    manifest_sha256: str | None = None
    """Of its MANIFEST.json, which is gone once head keeps newer ones only."""
    lost_steps: int = Field(default=0, ge=0)
    """Steps that the attempt before told of and that were not durable; they are made again."""
    orderly: bool = True
    """Whether the attempt before ended in order, so that nothing was lost. Else there may be more lost steps than
    its last heartbeat told of."""


class Ended(Record):
    """How the attempt ended, in its own words; an attempt that was killed has none."""

    exit_code: int
    reason: str = ""
    step: int | None = None
    """The durable step at the end."""
    at_s: float
    """Seconds since the epoch."""


class AttemptRecord(Record):
    """attempts/NNNN/attempt.json. A later incarnation of the same attempt writes over it."""

    number: int = Field(ge=1)
    incarnation: int = Field(default=0, ge=0)
    kind: Literal["process", "vm"] = "process"
    host: str
    pid: int
    started_at_s: float
    """Seconds since the epoch."""
    phases: dict[str, float] = Field(default_factory=dict)
    """Seconds spent in each phase, in the order in which they began."""
    machine: dict[str, str] = Field(default_factory=dict)
    """What the bits depend on beside the settings: cpu, gpu, torch."""
    resumed_from: ResumedFrom | None = None
    """None for a fresh start."""
    storage: Usage = Usage()
    """What this incarnation asked of the bucket so far."""
    storage_usd: float = 0.0
    """What that cost, by list prices: operations, and traffic where the bucket is elsewhere."""
    warnings: tuple[str, ...] = ()
    ended: Ended | None = None


def write_record(bucket: Bucket, record: AttemptRecord) -> None:
    """Writes the record, over the one before."""
    bucket.write(attempt_name(record.number), record.to_bytes())


def read_record(bucket: Bucket, number: int) -> AttemptRecord | None:
    """One attempt's record, None when it wrote none."""
    found = AttemptRecord.read(bucket, attempt_name(number))
    return None if found is None else found[0]


def read_records(bucket: Bucket, numbers: Iterable[int]) -> list[AttemptRecord]:
    """The records of these attempts, those that have one, in the order of `numbers` (claims.json has them all)."""
    found = in_parallel((partial(read_record, bucket, number) for number in numbers), AT_ONCE)
    return [record for record in found if record is not None]
