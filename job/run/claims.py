"""Who may try the run: numbered claims and what is wanted of the run, changed by compare-and-swap only."""

import secrets
import time
from collections.abc import Callable
from typing import Literal

import tenacity
from pydantic import Field

from job.errors import Fenced, NeedsPerson, Transient, UsageError
from job.run.layout import CLAIMS
from job.run.records import RETRY_WAIT_MAX_S, Record
from job.storage import Bucket, PreconditionFailed

SWAP_TRIES = 20

Want = Literal["run", "stop", "failed"]
How = Literal[
    "finished",
    "preempted",
    "host error",
    "capped",
    "stopped",
    "deleted",
    "waiting",
    "fenced",
    "crashed",
    "hung",
    "out of memory",
    "sick gpu",
    "boot failure",
    "refused",
    "stockout",
    "quota",
    "rate limit",
    "never created",
    "given back",
]
"""Ends of a VM, as told apart from outside (docs/design.md, Recovery)."""


class SeenEnd(Record):
    """How an attempt ended as seen from outside."""

    how: How
    at_s: float
    """Seconds since the epoch: the cloud's time of the end where it is known, else when it was seen."""
    exit_code: int | None = None
    detail: str = ""
    """For people: the cloud's words, the exit's reason."""
    durable_step: int | None = None
    """Head's step when the end was recorded: failures without a new one are counted by it."""
    ran_from_s: float | None = None
    """The cloud's time from which the VM was billed; None when none ever ran."""
    vouched: bool = True
    """Whether the cloud says how it ended. False: only files that the VM wrote say it, or nothing does."""


class Claim(Record):
    """The right to one attempt, taken before it starts."""

    number: int = Field(ge=1)
    kind: Literal["process", "vm"]
    """`process`: started by a person, watchdogs leave it alone. `vm`: claimed before the VM was asked for."""
    claimed_at_s: float
    host: str | None = None
    pid: int | None = None
    zone: str | None = None
    vm: str | None = None
    request_id: str | None = None
    """Of the insert: asking twice makes one VM."""
    machine_type: str | None = None
    spot: bool | None = None
    usd_per_hour: float | None = None
    """Of the VM with its disk, as the plan had it when it was claimed."""
    instance_id: str | None = None
    """The cloud's number of the VM, once it is known: its operations are found by it, also when it is gone."""
    drill: str | None = None
    """Who asked, by `baton preempt`, that this VM be stopped as the platform would."""
    doubted_at_s: float | None = None
    """When a look first missed it: no sign of life, or gone without a reason. Only a second look, later, ends it."""
    ended: SeenEnd | None = None


class Claims(Record):
    """All claims, oldest first, and whether the run is wanted."""

    want: Want = "run"
    reason: str | None = None
    """Why it is stopped or has failed."""
    resumed_at_s: float = 0.0
    """When it was last wanted again (0: it always was): failures and refusals before are forgiven."""
    attempts: tuple[Claim, ...] = ()
    write_id: str = ""
    """Random in every write: after a lost reply it tells whether the write was mine."""
    earlier: tuple[str, ...] = ()
    """write_ids of the writes before this one, newest first: others may write before the lost reply is asked for."""

    @property
    def newest(self) -> Claim | None:
        """The claim that counts."""
        return self.attempts[-1] if self.attempts else None


def read_claims(bucket: Bucket) -> Claims:
    """What is claimed; nothing, and `want` run, where nothing is written yet."""
    found = Claims.read(bucket, CLAIMS)
    return Claims() if found is None else found[0]


def update_claims(bucket: Bucket, change: Callable[[Claims], Claims]) -> Claims:
    """Applies a pure `change` by compare-and-swap, once; returns what is written. What `change` raises goes
    through.

    Raises Transient when the bucket fails, or others change it, time after time.
    """
    mine: dict[str, Claims] = {}

    def swap() -> Claims:
        found = Claims.read(bucket, CLAIMS)
        before, generation = (Claims(), 0) if found is None else (found[0], found[1].generation)
        written = (before.write_id, *before.earlier) if before.write_id else ()
        for write_id in written:
            if write_id in mine:  # an earlier try whose reply was lost
                return mine[write_id]
        write_id = secrets.token_hex(8)
        after = change(before).model_copy(update={"write_id": write_id, "earlier": written[:SWAP_TRIES]})
        mine[write_id] = after
        bucket.write(CLAIMS, after.to_bytes(), if_generation=generation)
        return after

    try:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((PreconditionFailed, Transient)),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=RETRY_WAIT_MAX_S),
            stop=tenacity.stop_after_attempt(SWAP_TRIES),
            reraise=True,
        )(swap)
    except PreconditionFailed:
        raise Transient(
            f"{bucket.uri}/{CLAIMS} was changed by others {SWAP_TRIES} times in a row.", fix="Try again."
        ) from None


def claim_process(bucket: Bucket, host: str, pid: int) -> tuple[Claim, Claim | None]:
    """Claims the next number for a process on this machine. Returns the claim, and the open one that it
    replaces.

    Raises NeedsPerson for a run that is stopped or has failed.
    """
    replaced: Claim | None = None

    def change(claims: Claims) -> Claims:
        nonlocal replaced
        refuse_unwanted(claims, bucket.uri)
        newest = claims.newest
        replaced = newest if newest is not None and newest.ended is None else None
        number = 1 if newest is None else newest.number + 1
        claim = Claim(number=number, kind="process", claimed_at_s=time.time(), host=host, pid=pid)
        return claims.model_copy(update={"attempts": (*claims.attempts, claim)})

    claim = update_claims(bucket, change).newest
    assert claim is not None
    return claim, replaced


def refuse_unwanted(claims: Claims, uri: str) -> None:
    """Raises NeedsPerson for a run that was stopped or has failed."""
    if claims.want == "stop":
        because = f": {claims.reason}" if claims.reason else ""
        raise NeedsPerson(f"the run {uri} is stopped{because}.", fix=f"baton resume {uri} lets it go on.")
    if claims.want == "failed":
        raise NeedsPerson(
            f"the run {uri} has failed: {claims.reason or 'no reason is recorded'}.",
            fix=f"Mend the cause, then: baton resume {uri}",
        )


def check_claim(bucket: Bucket, number: int) -> Claim:
    """The claim of that number. Raises Fenced when a newer one exists, UsageError when nobody claimed it."""
    claims = read_claims(bucket)
    if claims.newest is not None and claims.newest.number > number:
        raise Fenced(
            f"attempt {claims.newest.number} of {bucket.uri} is claimed; this is attempt {number}.",
            fix="Nothing was changed, nothing is to be done: the newer attempt goes on.",
        )
    for claim in claims.attempts:
        if claim.number == number:
            return claim
    raise UsageError(
        f"attempt {number} of {bucket.uri} was never claimed.",
        fix="Leave BATON_ATTEMPT unset to claim a new one.",
    )
