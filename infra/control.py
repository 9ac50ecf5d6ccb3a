"""What people may change of a run that is under way: whether it is wanted, which VM is drilled, what its VMs may be.

Pure: each function takes what is and returns what shall be, or raises what is wrong with the wish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from infra.launch.fall_back import FallBack, refuse_fall_back
from infra.watch.orders import PINNED
from job.errors import UsageError
from job.run.claims import Claim, Claims, SeenEnd
from job.run.costs import spent_usd
from job.run.head import Head, Status
from job.run.spec import Machine, Spec

LONGEST_REASON = 200


@dataclass(frozen=True)
class Changes:
    """What `resume` was told to change of the run's VMs; None and empty: as it was."""

    image: str | None = None
    max_usd: float | None = None
    spot: bool | None = None
    on_demand: str | None = None
    on_demand_after_s: float | None = None
    zones: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    deadline_s: float | None = None
    secrets: Mapping[str, str] | None = None

    def given(self) -> dict[str, Any]:
        """Those that are given, by the name of Machine's field."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in told.items() if value not in (None, ())}


def refuse_finished(uri: str, head: Head | None) -> None:
    """Raises UsageError for a run that is finished: there is nothing to stop, resume or drill."""
    if head is not None and head.status is Status.FINISHED:
        raise UsageError(f"the run {uri} is finished.", fix=f"Its result: baton get {uri}")


def stopped(claims: Claims, uri: str, reason: str) -> Claims:
    """Not wanted any more. Raises UsageError for a run that is stopped or has failed already."""
    if claims.want == "stop":
        raise UsageError(
            f"the run {uri} is stopped already{_because(claims)}.", fix=f"It goes on by: baton resume {uri}"
        )
    if claims.want == "failed":
        raise UsageError(
            f"the run {uri} has failed already{_because(claims)}.", fix=f"Mended, it goes on by: baton resume {uri}"
        )
    return claims.model_copy(update={"want": "stop", "reason": reason[:LONGEST_REASON]})


def wanted_again(claims: Claims, now_s: float) -> Claims:
    """Wanted, whatever it was stopped for; the failures so far are forgiven."""
    ends_s = [claim.ended.at_s for claim in claims.attempts if claim.ended is not None]
    since_s = max([now_s, *(end_s + 0.001 for end_s in ends_s)])
    return claims.model_copy(update={"want": "run", "reason": None, "resumed_at_s": since_s})


def drill_target(claims: Claims, uri: str) -> Claim:
    """The claim whose VM may be drilled: the newest, open, a spot VM. Raises UsageError for another."""
    claim = claims.newest
    if claim is None:
        raise UsageError(f"nothing of the run {uri} has been started.", fix="`baton launch` starts a VM.")
    if claim.kind != "vm":
        raise UsageError(
            f"attempt {claim.number} of {uri} is a process on {claim.host}, not a VM.",
            fix=f"There: kill -TERM {claim.pid}" if claim.pid is not None else "End it there by SIGTERM.",
        )
    if claim.ended is not None or claim.vm is None or claim.zone is None:
        how = "has no VM yet" if claim.ended is None else f"is over ({claim.ended.how})"
        raise UsageError(
            f"attempt {claim.number} of {uri} {how}: there is nothing to preempt.", fix=f"See: baton status {uri}"
        )
    if claim.spot is False:
        raise UsageError(
            f"{claim.vm} is an on-demand VM: the platform preempts none.", fix=f"To end it: baton stop {uri}"
        )
    return claim


def drilled(claims: Claims, number: int, who: str) -> Claims:
    """With the word that this attempt's VM is stopped on somebody's wish. Raises UsageError when it is over."""
    claim = next((claim for claim in claims.attempts if claim.number == number), None)
    if claim is None or claim.ended is not None or claims.newest != claim:
        raise UsageError(f"attempt {number} is over meanwhile.", fix="Ask again: another one may be at work.")
    if claim.drill is not None:
        return claims
    return _with(claims, claim.model_copy(update={"drill": who}))


def ended_by_hand(claims: Claims, number: int, end: SeenEnd) -> Claims:
    """With how an attempt's VM ended, where nobody has recorded it yet."""
    claim = next((claim for claim in claims.attempts if claim.number == number), None)
    if claim is None or claim.ended is not None:
        return claims
    return _with(claims, claim.model_copy(update={"ended": end}))


def revised(spec: Spec, changes: Changes, *, who: str, commit: str | None, now_s: float) -> Spec | None:
    """The next revision, None where nothing changes. Raises UsageError for what cannot be."""
    given = changes.given()
    if not given:
        return None
    if spec.machine is None:
        raise UsageError(
            "the run is one of processes that people start: it has no VMs to change.",
            fix="Leave the options out; `baton train --run RUN` goes on with it.",
        )
    if changes.image is not None and not PINNED.fullmatch(changes.image):
        raise UsageError(
            f"--image: {changes.image!r} is not pinned.", fix="Give it by its digest: HOST/PROJECT/REPO/NAME@sha256:..."
        )
    if changes.zones or changes.regions:  # they replace each other's limits: a zone outside the regions is a mistake
        given = {"zones": (), "regions": (), **given}
    machine = Machine.model_validate({**spec.machine.model_dump(), **given})
    if changes.on_demand is not None:
        policy = FallBack(machine.on_demand, machine.on_demand_after_s)
        refuse_fall_back(policy, machine.gpu, spot=machine.spot, deadline_s=machine.deadline_s)
    if machine == spec.machine:
        return None
    return spec.model_copy(
        update={
            "revision": spec.revision + 1,
            "machine": machine,
            "accepted": tuple(
                f"machine.{name}" for name in sorted(given) if getattr(spec.machine, name) != given[name]
            ),
            "started_by": who,
            "commit": commit,
            "created_at": now_s,
        }
    )


def refuse_spent(machine: Machine, attempts: Sequence[Claim], now_s: float, uri: str) -> float:
    """What is left of the cap. Raises UsageError when nothing is: the run would be stopped again at once.

    Counts what is known to be over; how long a VM ran of which nobody recorded the end is for the watchdog to find out.
    """
    left_usd = machine.max_usd - spent_usd((claim for claim in attempts if claim.ended is not None), now_s)
    if left_usd <= 0:
        raise UsageError(
            f"the run {uri} has spent ${machine.max_usd - left_usd:.2f}, its cap is ${machine.max_usd:.2f}.",
            fix=f"Allow more: baton resume {uri} --max-usd {2 * machine.max_usd:.0f}",
        )
    return left_usd


def _with(claims: Claims, changed: Claim) -> Claims:
    attempts = tuple(changed if claim.number == changed.number else claim for claim in claims.attempts)
    return claims.model_copy(update={"attempts": attempts})


def _because(claims: Claims) -> str:
    return f": {claims.reason}" if claims.reason else ""
