"""One attempt as people see it, from the best witnesses: its own record, its heartbeat, and its claim, which tells how
it looked from outside and what its VM cost."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from job.errors import ExitCode
from job.run.attempt import AttemptRecord, ResumedFrom
from job.run.claims import Claim
from job.run.costs import billed_s, claim_usd
from job.run.heartbeat import Heartbeat
from job.views.progress import seconds
from job.views.text import printable

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

TOLD_FROM_OUTSIDE = ("host error", "capped", "stopped", "deleted", "hung", "sick gpu", "out of memory")
"""Ends of a VM of which the attempt itself may know less."""


class View(BaseModel):
    """Base of what is shown and printed as JSON."""

    model_config = ConfigDict(frozen=True)


class AttemptView(View):
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
    claimed_at_s: float | None = None
    zone: str | None = None
    vm: str | None = None
    machine_type: str | None = None
    spot: bool | None = None
    usd_per_hour: float | None = None
    """Of the VM with its disk, as planned when it was claimed."""
    billed_s: float = 0.0
    """Seconds for which the VM was paid; of one that goes on, since its claim."""
    usd: float | None = None
    """What that cost; None for a process, or where no price is known."""
    drill: str | None = None
    """Who asked that it be preempted, to see what happens."""
    seen: str | None = None
    """How its VM ended as seen from outside."""
    seen_detail: str = ""


def describe_attempt(
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
    """Puts together what was read of it; pure. `handed_on`: the step that the next one went on from."""
    ended, exit_code, how = _how(record, claim, heartbeat, newest=newest, patience_s=patience_s, now_s=now_s)
    told = heartbeat[0].step if heartbeat is not None else None
    resumed = record.resumed_from if record is not None else None
    if record is not None and record.ended is not None:
        last = record.ended.step
    else:
        last = max((step for step in (told, handed_on) if step is not None), default=None)
    view = AttemptView(
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
    return view if claim is None else view.model_copy(update=_from_claim(claim, now_s))


def resumed_step(record: AttemptRecord | None) -> int | None:
    """The step that an attempt went on from, where it is known and not a fresh start."""
    return None if record is None or record.resumed_from is None else record.resumed_from.step


def where_words(attempt: AttemptView) -> str:
    """The process and its host, or the VM's zone and machine; pure."""
    if attempt.kind != "vm":
        return f"{attempt.kind} on {attempt.host}" if attempt.host else attempt.kind
    kind = {True: "spot", False: "on-demand"}.get(attempt.spot) if attempt.spot is not None else None
    return " ".join(filter(None, (attempt.zone, attempt.machine_type, kind))) or "vm"


def ending_words(attempt: AttemptView) -> str:
    """How it ended, with what its own word does not tell: what was seen from outside, that it was a drill; pure."""
    words = attempt.how
    if attempt.seen in TOLD_FROM_OUTSIDE and attempt.seen not in words:
        words += f" ({attempt.seen})"
    return words if attempt.drill is None else f"{words} (a drill by {attempt.drill})"


def _from_claim(claim: Claim, now_s: float) -> dict[str, object]:
    """What the claim tells: where the VM was, what it cost, how it ended."""
    ended = claim.ended
    return {
        "claimed_at_s": claim.claimed_at_s,
        "zone": claim.zone,
        "vm": claim.vm,
        "machine_type": claim.machine_type,
        "spot": claim.spot,
        "usd_per_hour": claim.usd_per_hour,
        "billed_s": billed_s(claim, now_s),
        "usd": claim_usd(claim, now_s),
        "drill": None if claim.drill is None else printable(claim.drill, 80),
        "seen": None if ended is None else ended.how,
        "seen_detail": "" if ended is None else printable(ended.detail, REASON_CHARACTERS),
    }


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
        seen = claim.ended
        return True, seen.exit_code, f"{seen.how}: {seen.detail}" if seen.detail else seen.how
    if not newest:
        return True, None, "never began" if record is None else "killed or lost"
    if heartbeat is None:
        return False, None, "claimed, not yet begun" if record is None else "starting"
    silent_s = now_s - heartbeat[1]
    if silent_s > patience_s:
        return False, None, f"no sign of life for {seconds(silent_s)}"
    return False, None, f"at work: {heartbeat[0].phase}"
