"""Runs for the report's tests, written into a bucket by the project's own writers."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from job.checkpoint.retention import delete_dropped, kept_after
from job.checkpoint.save import save_checkpoint
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, write_record
from job.run.claims import Claim, update_claims
from job.run.head import CheckpointRef, Owner, Status
from job.run.segments import SegmentWriter
from job.run.spec import Input, Spec, SpecModel, write_spec
from job.storage import Bucket, Data

BEGAN_S = 1_790_000_000.0
PHASES = {"look": 0.1, "import": 4.0, "check": 0.5, "model": 0.4, "train": 30.0}


def begin(
    bucket: Bucket,
    attempts: int,
    *,
    max_steps: int = 100,
    inputs: Mapping[str, Input] | None = None,
    usd_per_hour: float = 0.36,
) -> None:
    """Spec and claims of a run."""
    spec = Spec(
        revision=1,
        recipe={"train": {"max_steps": max_steps, "learning_rate": 3e-4}, "task": "math_qa"}
        | {"attempt": {"machine_usd_per_hour": usd_per_hour}},
        inputs=dict(inputs or {}),
        model=SpecModel(name="Qwen/Qwen2.5-1.5B-Instruct", revision="989aa7980e4cf806f80c7fef2b1adb7bc71aa306"),
        fingerprint="f" * 64,
        started_by="somebody",
        created_at=BEGAN_S,
    )
    write_spec(bucket, spec)
    claims = tuple(
        Claim(number=n, kind="process", claimed_at_s=BEGAN_S + 40 * n, host="box", pid=n)
        for n in range(1, attempts + 1)
    )
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": claims}))


def save(bucket: Bucket, owner: Owner, step: int, files: Mapping[str, Data] | None = None) -> CheckpointRef:
    """A small checkpoint, made durable; what head then drops is deleted."""
    given = files or {"state.safetensors": secrets.token_bytes(5000), "meta.json": b"{}"}
    ref = save_checkpoint(
        bucket,
        step=step,
        attempt=owner.head.attempt,
        incarnation=0,
        fingerprint="f" * 64,
        files=given,
        sha256=step % 2 == 0,
        parent=owner.head.checkpoint,
    )
    kept = kept_after(owner.head.kept, ref, keep_last=2, keep_every_steps=None)
    delete_dropped(bucket, owner.publish(checkpoint=ref, kept=kept), kept)
    return ref


def record(
    bucket: Bucket,
    number: int,
    *,
    exit_code: int | None = None,
    reason: str = "",
    step: int | None = None,
    resumed: CheckpointRef | None = None,
    lost_steps: int = 0,
    **more: Any,
) -> None:
    """An attempt's own record; without an exit code it was killed."""
    began_s = BEGAN_S + 40 * number
    origin = None
    if resumed is not None:
        sha256 = resumed.manifest_sha256
        orderly = lost_steps == 0
        origin = ResumedFrom(
            step=resumed.step, folder=resumed.folder, manifest_sha256=sha256, lost_steps=lost_steps, orderly=orderly
        )
    ended = None if exit_code is None else Ended(exit_code=exit_code, reason=reason, step=step, at_s=began_s + 35.0)
    told: dict[str, Any] = {"host": "box", "pid": number, "started_at_s": began_s, "phases": PHASES, "ended": ended}
    write_record(bucket, AttemptRecord(number=number, resumed_from=origin, **(told | more)))


def rows(bucket: Bucket, attempt: int, kind: str, of: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one attempt."""
    writer = SegmentWriter(bucket, attempt, kind)
    for row in of:
        writer.add(row)
    writer.flush()


def metric(step: int, **more: Any) -> dict[str, Any]:
    """A row of TRL's log; the reward rises to 1."""
    reward = 1 - 0.7 ** (1 + step / 10)
    told = {"step": step, "reward": reward, "reward_std": 0.2, "loss": 0.01, "entropy": 0.5, "step_time": 0.3}
    return told | {"reward/correctness": reward, "reward/format": 1.0} | more


def sample(step: int, prompt: str, completion: str, reward: float | None = 0.5) -> dict[str, Any]:
    """A row of the kind samples."""
    return {"step": step, "samples": [{"prompt": prompt, "completion": completion, "reward": reward}]}


def interrupted_run(bucket: Bucket) -> None:
    """100 steps in three attempts: killed at 46 of which 40 were durable, preempted at 70, finished."""
    begin(bucket, 3)
    first = Owner.take_over(bucket, 1)
    save(bucket, first, 39)
    at_40 = save(bucket, first, 40)
    record(bucket, 1)
    rows(bucket, 1, "metrics", [metric(step) for step in range(1, 46)])
    second = Owner.take_over(bucket, 2)
    record(bucket, 2, exit_code=75, reason="stopped on SIGTERM.", step=70, resumed=at_40, lost_steps=6)
    at_70 = save(bucket, second, 70)
    rows(bucket, 2, "metrics", [metric(step) for step in range(41, 71)])
    third = Owner.take_over(bucket, 3)
    rows(bucket, 3, "metrics", [metric(step) for step in range(71, 101)])
    rows(bucket, 3, "samples", [sample(1, "What is 2+2?", "5", 0.0), sample(100, "What is 2+2?", "4", 1.0)])
    save(bucket, third, 99)
    save(bucket, third, 100)
    third.publish(status=Status.FINISHED)
    record(bucket, 3, exit_code=0, reason="finished", step=100, resumed=at_70)
