"""A run as people see it: what is wanted, over what its owner says, beside what its attempts recorded."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from job.errors import ExitCode, UsageError
from job.run.attempt import AttemptRecord, ResumedFrom, read_records
from job.run.claims import Claim, Claims, read_claims
from job.run.head import Head, Status, read_head
from job.run.heartbeat import Heartbeat, read_heartbeat
from job.run.records import AT_ONCE
from job.run.segments import newest_row
from job.run.spec import Spec, read_spec
from job.storage import Bucket
from job.storage.parallel import in_parallel
from job.storage.usage import Usage
from job.views.progress import seconds
from job.views.text import printable

SIGNS_MISSED = 3  # heartbeats that may fail to come before an attempt counts as silent
HEARTBEAT_S = 10.0  # where the spec says nothing
REASON_CHARACTERS = 200
ENDINGS: Mapping[int, str] = {
    ExitCode.FINISHED: "finished",
    ExitCode.BUG: "bug",
    ExitCode.USAGE: "refused",
    ExitCode.NEEDS_PERSON: "needs a person",
    ExitCode.FENCED: "fenced",
    ExitCode.PREEMPTED: "preempted",
    ExitCode.TRANSIENT: "transient trouble",
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class AttemptView(_View):
    """One attempt, from its claim, its own record and its heartbeat."""

    number: int
    incarnation: int | None
    """None when it wrote no record: it never began."""
    kind: str
    host: str | None
    started_at_s: float
    """Seconds since the epoch."""
    heard_s: float | None = None
    """When it was last heard of: its own end, the end that was seen from outside, or its newest heartbeat."""
    from_step: int | None
    """The step that it went on from; 0 for a fresh start."""
    resumed_from: ResumedFrom | None = None
    """The checkpoint of that step."""
    lost_steps: int
    last_step: int | None
    """The durable step at its end; without its word the last step that it told of or that the next went on from."""
    ended: bool
    """Whether it is over. An attempt that is silent may be alive."""
    exit_code: int | None
    how: str
    """How it ended, or what it does."""
    phases_s: dict[str, float]
    """Seconds by phase, in the order in which they began."""
    machine: dict[str, str] = {}
    """What the bits depend on beside the settings."""


class Training(_View):
    """The newest row of metrics at or below the durable step."""

    step: int
    reward: float | None = None
    reward_std: float | None = None
    loss: float | None = None
    step_s: float | None = None


class RunStatus(_View):
    """What `baton status` shows, and prints as JSON."""

    uri: str
    status: str
    """starting, running, released, waiting, finishing, finished; stopped or failed when that is what is wanted."""
    reason: str | None
    """Why it is stopped, has failed or waits."""
    at_work: bool
    """Whether an attempt gave a sign of life of late and has not ended."""
    step: int | None
    """The newest that is known; those above the durable step may be made again."""
    max_steps: int | None
    durable_step: int | None
    training: Training | None
    storage: Usage = Usage()
    """What the attempts asked of a bucket that bills it."""
    storage_usd: float = 0.0
    """What that cost, by list prices."""
    storage_usd_per_hour: float | None = None
    """Over the time in which attempts lived; None where it is not known."""
    attempts: tuple[AttemptView, ...]


def read_status(bucket: Bucket, now_s: float | None = None) -> RunStatus:
    """Looks at a run, reading only; `now_s` in the bucket's time. Raises UsageError where there is no run.

    However long the run, it takes at most ten calls of the bucket, one more for each attempt, and another one for each
    that left no last word: its heartbeat.
    """
    spec, claims, head = read_spec(bucket), read_claims(bucket), read_head(bucket)
    if spec is None and head is None and not claims.attempts:
        raise UsageError(f"there is no run at {bucket.uri}.", fix="Check the URI; `baton train` starts a run.")
    records = read_records(bucket, (claim.number for claim in claims.attempts))
    unheard = [record.number for record in records if record.ended is None]
    heartbeats = in_parallel((partial(read_heartbeat, bucket, number) for number in unheard), AT_ONCE)
    return describe(
        bucket.uri,
        spec,
        claims,
        head,
        records,
        {number: beat for number, beat in zip(unheard, heartbeats, strict=True) if beat is not None},
        None if head is None else _newest_row(bucket, head),
        time.time() if now_s is None else now_s,
    )


def describe(
    uri: str,
    spec: Spec | None,
    claims: Claims,
    head: Head | None,
    records: Sequence[AttemptRecord],
    heartbeats: Mapping[int, tuple[Heartbeat, float]],
    row: Mapping[str, Any] | None,
    now_s: float,
) -> RunStatus:
    """Puts together what was read; pure. `heartbeats` by attempt, each with the bucket's time of it."""
    recorded = {record.number: record for record in records}
    claimed = {claim.number: claim for claim in claims.attempts}
    numbers = sorted(recorded.keys() | claimed.keys())
    patience_s = SIGNS_MISSED * _heartbeat_s(spec)
    attempts = tuple(
        _attempt(
            number,
            recorded.get(number),
            claimed.get(number),
            heartbeats.get(number),
            newest=number == numbers[-1],
            handed_on=_resumed_step(recorded.get(number + 1)),
            patience_s=patience_s,
            now_s=now_s,
        )
        for number in numbers
    )
    status, reason = _status(claims, head)
    durable_step = head.checkpoint.step if head is not None and head.checkpoint is not None else None
    heartbeat = heartbeats.get(numbers[-1]) if numbers else None
    told = heartbeat[0].step if heartbeat is not None else None
    storage = sum((record.storage for record in records), Usage())
    storage_usd = sum(record.storage_usd for record in records)
    lived_s = sum(max(0.0, (a.heard_s or a.started_at_s) - a.started_at_s) for a in attempts)
    fresh = heartbeat is not None and now_s - heartbeat[1] <= patience_s
    return RunStatus(
        uri=uri,
        status=status,
        reason=None if reason is None else printable(reason, REASON_CHARACTERS),
        at_work=fresh and not attempts[-1].ended,
        step=max((step for step in (durable_step, told) if step is not None), default=None),
        max_steps=spec.recipe.get("train", {}).get("max_steps") if spec is not None else None,
        durable_step=durable_step,
        training=None if row is None else _training(row),
        storage=storage,
        storage_usd=storage_usd,
        storage_usd_per_hour=storage_usd / lived_s * 3600 if storage.operations and lived_s else None,
        attempts=attempts,
    )


def _status(claims: Claims, head: Head | None) -> tuple[str, str | None]:
    """(status, reason): want goes over head, but a run that is finished stays finished."""
    if head is not None and head.status is Status.FINISHED:
        return "finished", None
    if claims.want != "run":
        return ("stopped" if claims.want == "stop" else "failed"), claims.reason
    if head is None:
        return "starting", None
    return head.status.value, None if head.waiting is None else head.waiting.why


def _attempt(
    number: int,
    record: AttemptRecord | None,
    claim: Claim | None,
    heartbeat: tuple[Heartbeat, float] | None,
    *,
    newest: bool,
    handed_on: int | None,
    patience_s: float,
    now_s: float,
) -> AttemptView:
    ended, exit_code, how = _how(record, claim, heartbeat, newest=newest, patience_s=patience_s, now_s=now_s)
    told = heartbeat[0].step if heartbeat is not None else None
    resumed = record.resumed_from if record is not None else None
    if record is not None and record.ended is not None:
        last = record.ended.step
    else:
        last = max((step for step in (told, handed_on) if step is not None), default=None)
    return AttemptView(
        number=number,
        incarnation=None if record is None else record.incarnation,
        kind=record.kind if record is not None else (claim.kind if claim is not None else "process"),
        host=record.host if record is not None else (claim.host if claim is not None else None),
        started_at_s=record.started_at_s if record is not None else (claim.claimed_at_s if claim is not None else 0.0),
        heard_s=_heard_s(record, claim, heartbeat),
        from_step=None if record is None else (0 if resumed is None else resumed.step),
        resumed_from=resumed,
        lost_steps=0 if resumed is None else resumed.lost_steps,
        last_step=last,
        ended=ended,
        exit_code=exit_code,
        how=printable(how, REASON_CHARACTERS),
        phases_s={} if record is None else record.phases,
        machine={} if record is None else record.machine,
    )


def _heard_s(
    record: AttemptRecord | None, claim: Claim | None, heartbeat: tuple[Heartbeat, float] | None
) -> float | None:
    for end in (record.ended if record is not None else None, claim.ended if claim is not None else None):
        if end is not None:
            return end.at_s
    return None if heartbeat is None else heartbeat[1]


def _how(
    record: AttemptRecord | None,
    claim: Claim | None,
    heartbeat: tuple[Heartbeat, float] | None,
    *,
    newest: bool,
    patience_s: float,
    now_s: float,
) -> tuple[bool, int | None, str]:
    """(over, exit code, in words): its own word first, then what was seen from outside, then its signs of life."""
    if record is not None and record.ended is not None:
        code, reason = record.ended.exit_code, record.ended.reason
        word = ENDINGS.get(code, f"exit {code}")
        return True, code, word if reason in ("", word) else f"{word}: {reason.removesuffix('.')}"
    if claim is not None and claim.ended is not None:
        return True, claim.ended.exit_code, claim.ended.how
    if not newest:
        return True, None, "never began" if record is None else "killed or lost"
    if heartbeat is None:
        return False, None, "claimed, not yet begun" if record is None else "starting"
    silent_s = now_s - heartbeat[1]
    if silent_s > patience_s:
        return False, None, f"no sign of life for {seconds(silent_s)}"
    return False, None, f"at work: {heartbeat[0].phase}"


def _resumed_step(record: AttemptRecord | None) -> int | None:
    return None if record is None or record.resumed_from is None else record.resumed_from.step


def _heartbeat_s(spec: Spec | None) -> float:
    recorded = None if spec is None else spec.recipe.get("attempt", {}).get("heartbeat_s")
    return max(float(recorded), 1.0) if isinstance(recorded, int | float) else HEARTBEAT_S


def _newest_row(bucket: Bucket, head: Head) -> Mapping[str, Any] | None:
    """The newest training row at or below the durable step, of the attempt that made that step."""
    checkpoint = head.checkpoint
    if checkpoint is None:
        return None

    def counts(row: Mapping[str, Any]) -> bool:
        return "reward" in row and isinstance(step := row.get("step"), int) and step <= checkpoint.step

    return newest_row(bucket, checkpoint.attempt, "metrics", counts)


def _training(row: Mapping[str, Any]) -> Training:
    names = {"reward": "reward", "reward_std": "reward_std", "loss": "loss", "step_s": "step_time"}
    known = {name: value for name, key in names.items() if isinstance(value := row.get(key), int | float)}
    return Training(step=row["step"], **known)
