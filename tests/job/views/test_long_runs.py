"""Proves that looking at a long run takes few calls of the bucket.

On Cloud Storage each of them costs 30 to 50 ms, and money.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from faults import FaultyBucket

from job.agent.journal import Journal
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, write_record
from job.run.claims import Claim, update_claims
from job.run.head import CheckpointRef, Owner
from job.run.heartbeat import Heartbeat
from job.run.layout import heartbeat_name
from job.run.segments import join_metrics, read_rows
from job.run.spec import Spec, SpecModel, write_spec
from job.storage import Bucket, NotFound, ObjectInfo, PreconditionFailed
from job.views.status import read_status

ATTEMPTS, STEPS_EACH, LOST = 50, 200, 3
STEPS = ATTEMPTS * STEPS_EACH
KILLED = ATTEMPTS // 2
PAGE = 1000  # names that one call of Cloud Storage lists


class MemoryBucket:
    """A bucket that makes 20,000 writes in a second: what reading and adding to a run needs of one, no more."""

    uri = "memory:"

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, ObjectInfo]] = {}

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        if name not in self.objects:
            raise NotFound(name)
        return self.objects[name]

    def write(self, name: str, data: bytes, *, if_generation: int | None = None) -> ObjectInfo:
        generation = self.objects[name][1].generation if name in self.objects else 0
        if if_generation not in (None, generation):
            raise PreconditionFailed(name)
        info = ObjectInfo(name, generation + 1, len(data), None, 1.0)
        self.objects[name] = data, info
        return info

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([self.objects[name][1] for name in sorted(self.objects) if name.startswith(prefix)])


class CountingBucket(FaultyBucket):
    """Counts calls as Cloud Storage does: one for every page of a list."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = [*super().list(prefix)]
        self.calls += [("list", prefix)] * ((len(found) - 1) // PAGE)
        return iter(found)


def row(step: int) -> dict[str, Any]:
    """What TRL logs for a step: about 600 bytes."""
    numbers = {f"completions/{name}/of_{what}": step / 7 for name in ("mean", "min", "max") for what in range(5)}
    return {"step": step, "reward": step / 10, "loss": 0.5, "step_time": 0.25, **numbers}


def record(number: int) -> AttemptRecord:
    """Every second attempt is killed and leaves no last word."""
    start = (number - 1) * STEPS_EACH
    after_a_kill = number % 2 == 0
    resumed = ResumedFrom(step=start, folder="c", lost_steps=LOST if after_a_kill else 0, orderly=not after_a_kill)
    ended = None if number % 2 else Ended(exit_code=75, reason="SIGTERM", step=start + STEPS_EACH, at_s=1.0)
    return AttemptRecord(
        number=number, host="box", pid=1, started_at_s=1.0, resumed_from=resumed if number > 1 else None, ended=ended
    )


def checkpoints(bucket: Bucket, attempt: int, steps: Sequence[int]) -> None:
    """What an attempt writes beside its checkpoints, one for each step; killed, it leaves rows that nobody covers."""
    journal = Journal()
    journal.open(bucket, attempt)
    for step in steps:
        journal.metrics([row(step)])
        journal.event("checkpoint", step=step)
        journal.flush()


@pytest.fixture(scope="module")
def long_run() -> Bucket:
    """10,000 checkpoints by 50 attempts."""
    bucket: Any = MemoryBucket()
    spec = Spec(
        revision=1,
        recipe={"train": {"max_steps": STEPS}},
        model=SpecModel(name="tiny"),
        fingerprint="f",
        started_by="x",
        created_at=1.0,
    )
    write_spec(bucket, spec)
    claims = tuple(Claim(number=n, kind="process", claimed_at_s=1.0, host="box") for n in range(1, ATTEMPTS + 1))
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": claims}))
    for number in range(1, ATTEMPTS + 1):
        reached = number * STEPS_EACH + (LOST if number % 2 else 0)
        checkpoints(bucket, number, range((number - 1) * STEPS_EACH + 1, reached + 1))
        write_record(bucket, record(number))
        beat = Heartbeat(
            attempt=number, incarnation=0, phase="train", step=reached, progress_s=1.0, beat_s=1.0, number=1
        )
        bucket.write(heartbeat_name(number), beat.to_bytes())
    owner = Owner.take_over(bucket, ATTEMPTS)
    owner.publish(checkpoint=CheckpointRef(folder="c", step=STEPS, attempt=ATTEMPTS, manifest_crc32c=0))
    return bucket


def test_status_takes_ten_calls_one_for_each_attempt_and_one_for_each_that_was_killed(long_run: Bucket) -> None:
    bucket = CountingBucket(long_run)
    run = read_status(bucket)
    assert (run.durable_step, run.step, len(run.attempts)) == (STEPS, STEPS, ATTEMPTS)
    assert run.training is not None
    assert (run.training.step, run.training.reward) == (STEPS, STEPS / 10)
    assert len(bucket.calls) <= 10 + ATTEMPTS + KILLED, bucket.calls
    assert [attempt.last_step for attempt in run.attempts] == [
        number * STEPS_EACH + (LOST if number % 2 else 0) for number in range(1, ATTEMPTS + 1)
    ]


def test_all_rows_are_read_in_as_many_calls_as_there_are_quarter_mebibytes_and_attempts(long_run: Bucket) -> None:
    size_bytes = sum(info.size_bytes for info in long_run.list("attempts/") if "/metrics/" in info.name)
    bucket = CountingBucket(long_run)
    assert join_metrics(read_rows(bucket, "metrics"), STEPS) == [row(step) for step in range(1, STEPS + 1)]
    assert len(bucket.calls) <= 1 + ATTEMPTS + size_bytes / (200 << 10)
