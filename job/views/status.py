"""A run as people see it: what is wanted, over what its owner says, beside what its attempts recorded."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from job.errors import UsageError
from job.run.attempt import AttemptRecord, read_records
from job.run.claims import Claims, read_claims
from job.run.head import Head, Status, read_head
from job.run.heartbeat import Heartbeat, read_heartbeat
from job.run.looked import Looked, read_looked
from job.run.records import AT_ONCE
from job.run.segments import newest_row
from job.run.spec import Spec, read_spec
from job.storage import Bucket
from job.storage.parallel import in_parallel
from job.storage.usage import Usage
from job.views.attempts import REASON_CHARACTERS, AttemptView, View, describe_attempt, resumed_step
from job.views.forecast import Forecast, forecast
from job.views.text import printable

SIGNS_MISSED = 3  # heartbeats that may fail to come before an attempt counts as silent
HEARTBEAT_S = 10.0  # where the spec says nothing
OVERDUE_S = 60.0  # after which a look that did not come means that nobody looks


class Training(View):
    """The newest row of metrics at or below the durable step."""

    step: int
    reward: float | None = None
    reward_std: float | None = None
    loss: float | None = None
    step_s: float | None = None


class LookedView(View):
    """When a watchdog last looked after the run."""

    watcher: str | None
    """None: nobody ever did."""
    at_s: float | None
    next_at_s: float | None
    note: str
    overdue: bool
    """Whether nobody looks: the next look was due some time ago."""


class RunStatus(View):
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
    machines_usd: float | None = None
    """What the VMs of its attempts cost so far with their disks, by their claims; None where it had none."""
    max_usd: float | None = None
    """What they may cost together."""
    forecast: Forecast | None = None
    """What the rest takes, as measured; None before ten steps, and once it is over."""
    looked: LookedView | None = None
    """None for a run without VMs, where nobody has to look."""
    attempts: tuple[AttemptView, ...]


def read_status(bucket: Bucket, now_s: float | None = None) -> RunStatus:
    """Looks at a run, reading only; `now_s` in the bucket's time. Raises UsageError where there is no run.

    However long the run, it takes at most ten calls of the bucket, one more for each attempt, and another one for each
    that left no last word: its heartbeat.
    """
    spec, claims, head = read_spec(bucket), read_claims(bucket), read_head(bucket)
    has_vms = (spec is not None and spec.machine is not None) or any(claim.kind == "vm" for claim in claims.attempts)
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
        looked=read_looked(bucket) if has_vms else None,
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
    *,
    looked: Looked | None = None,
) -> RunStatus:
    """Puts together what was read; pure. `heartbeats` by attempt, each with the bucket's time of it."""
    recorded = {record.number: record for record in records}
    claimed = {claim.number: claim for claim in claims.attempts}
    numbers = sorted(recorded.keys() | claimed.keys())
    patience_s = silent_after_s(spec)
    attempts = tuple(
        describe_attempt(
            number,
            recorded.get(number),
            claimed.get(number),
            heartbeats.get(number),
            newest=number == numbers[-1],
            handed_on=resumed_step(recorded.get(number + 1)),
            patience_s=patience_s,
            now_s=now_s,
        )
        for number in numbers
    )
    status, reason = said_status(claims, head)
    durable_step = head.checkpoint.step if head is not None and head.checkpoint is not None else None
    heartbeat = heartbeats.get(numbers[-1]) if numbers else None
    told = heartbeat[0].step if heartbeat is not None else None
    storage = sum((record.storage for record in records), Usage())
    storage_usd = sum(record.storage_usd for record in records)
    lived_s = sum(max(0.0, (a.heard_s or a.started_at_s) - a.started_at_s) for a in attempts)
    prices = [attempt.usd for attempt in attempts if attempt.usd is not None]
    is_watched = (spec is not None and spec.machine is not None) or looked is not None
    fresh = heartbeat is not None and now_s - heartbeat[1] <= patience_s
    max_steps = spec.recipe.get("train", {}).get("max_steps") if spec is not None else None
    machines_usd = sum(prices) if prices else None
    return RunStatus(
        uri=uri,
        status=status,
        reason=None if reason is None else printable(reason, REASON_CHARACTERS),
        at_work=fresh and not attempts[-1].ended,
        step=max((step for step in (durable_step, told) if step is not None), default=None),
        max_steps=max_steps,
        durable_step=durable_step,
        training=None if row is None else _training(row),
        storage=storage,
        storage_usd=storage_usd,
        storage_usd_per_hour=storage_usd / lived_s * 3600 if storage.operations and lived_s else None,
        machines_usd=machines_usd,
        max_usd=None if spec is None or spec.machine is None else spec.machine.max_usd,
        forecast=forecast(attempts, durable_step, max_steps, machines_usd),
        looked=describe_looked(looked, now_s) if is_watched else None,
        attempts=attempts,
    )


def describe_looked(looked: Looked | None, now_s: float) -> LookedView:
    """What people are told of the last look; pure."""
    if looked is None:
        return LookedView(watcher=None, at_s=None, next_at_s=None, note="", overdue=True)
    return LookedView(
        watcher=printable(looked.watcher, 80),
        at_s=looked.at_s,
        next_at_s=looked.next_at_s,
        note=printable(looked.note, REASON_CHARACTERS),
        overdue=looked.next_at_s is None or now_s > looked.next_at_s + OVERDUE_S,
    )


def said_status(claims: Claims, head: Head | None) -> tuple[str, str | None]:
    """(status, reason): want goes over head, but a run that is finished stays finished."""
    if head is not None and head.status is Status.FINISHED:
        return "finished", None
    if claims.want != "run":
        return ("stopped" if claims.want == "stop" else "failed"), claims.reason
    if head is None:
        return "starting", None
    return head.status.value, None if head.waiting is None else head.waiting.why


def silent_after_s(spec: Spec | None) -> float:
    """Seconds without a heartbeat after which an attempt of the run counts as silent."""
    recorded = None if spec is None else spec.recipe.get("attempt", {}).get("heartbeat_s")
    return SIGNS_MISSED * (max(float(recorded), 1.0) if isinstance(recorded, int | float) else HEARTBEAT_S)


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
