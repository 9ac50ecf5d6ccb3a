"""From a claim to a VM that runs: what a launch tells of it while a watchdog of its own ticks."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from infra.cloud.types import Trouble, TroubleKind, VmStatus
from infra.cloud.words import cloud_problem, how_to_ask, how_to_grant
from infra.recovery import Plan
from infra.watchdog import Watchdog
from job.errors import NeedsPerson
from job.run.claims import Claim, Claims, SeenEnd

FOR_A_PERSON = (TroubleKind.FORBIDDEN, TroubleKind.CREDENTIALS)
"""Asking again does not help."""
MOST_WORDS = 160


class FirstVm:
    """Ticks until the newest claim has a VM. `say` is told each thing once."""

    def __init__(self, uri: str, project: str, watchdog: Watchdog, say: Callable[[str], None]) -> None:
        self._uri, self._project, self._watchdog, self._say = uri, project, watchdog, say
        self._told: set[str] = set()

    def wait(self, *, patient: bool, pause: Callable[[float], None] = time.sleep) -> VmStatus | None:
        """Returns once the VM runs, or has finished the run; None, unless `patient`, when none is to be had now.

        Raises NeedsPerson when the run is not wanted any more (quota, a refusal, the cap) or a right is missing.
        """
        while True:
            again = self._watchdog.tick()
            watched = self._watchdog.watched[self._uri]
            if watched.trouble:
                self._once(f"  {watched.trouble}")
            if watched.refused is not None and watched.refused.kind in FOR_A_PERSON:
                problem = cloud_problem(watched.refused, self._project)
                raise type(problem)(problem.what, fix=f"{problem.fix}\n  Then: baton watchdog run {self._uri}")
            if watched.plan is not None:
                self._tell(watched.plan)
                status = newest_status(watched.plan.after, dict(watched.picture or ()))
                if status is VmStatus.RUNNING or watched.final:
                    return status
                if not patient and watched.plan.next_try_s is not None:
                    return None
            if not again:
                pause(self._watchdog.interval_s)

    def _tell(self, plan: Plan) -> None:
        for line in end_lines(plan.after):
            self._once(line)
        if plan.next_try_s is not None:
            at = datetime.fromtimestamp(plan.next_try_s).astimezone()
            self._once(f"  no VM now: {plan.note[:MOST_WORDS]}; the next try is at {at:%H:%M:%S}")
        refuse_over(plan.after, self._uri, self._project)

    def _once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._say(line)


def newest_status(claims: Claims, listed: Mapping[str, VmStatus]) -> VmStatus | None:
    """What the cloud's list says of the VM of the newest claim; None where it has none, or the claim is over."""
    newest = claims.newest
    return None if newest is None or newest.vm is None or newest.ended is not None else listed.get(newest.vm)


def end_lines(claims: Claims) -> list[str]:
    """What became of the VMs that this run got, or did not get, so far."""
    return [_end_line(claim, claim.ended) for claim in claims.attempts if claim.kind == "vm" and claim.ended]


def _end_line(claim: Claim, end: SeenEnd) -> str:
    where = f"attempt {claim.number}, {claim.machine_type} in {claim.zone}"
    return f"  {where}: {end.how}: {end.detail[:MOST_WORDS]}".rstrip(": ")


def refuse_over(claims: Claims, uri: str, project: str) -> None:
    """Raises NeedsPerson for a run that is not wanted any more, with what to do about what ended it."""
    if claims.want == "run":
        return
    newest = claims.newest
    end = None if newest is None else newest.ended
    advice = None if end is None else advice_on(end, project)
    raise NeedsPerson(
        f"the run {uri} {'is stopped' if claims.want == 'stop' else 'has failed'}: {claims.reason or 'no reason'}.",
        fix=f"{advice}   Then: baton resume {uri}" if advice else f"Mend the cause, then: baton resume {uri}",
    )


def advice_on(end: SeenEnd, project: str) -> str | None:
    """What a person does about the end of a VM that was refused; None where nothing particular is known."""
    if end.how == "quota":
        metric = end.detail.partition(" ")[0]
        return how_to_ask(Trouble(TroubleKind.QUOTA, "", end.detail, metric=metric), project)
    if end.how == "refused" and "permission" in end.detail.lower():
        return how_to_grant(Trouble(TroubleKind.FORBIDDEN, "", end.detail), project)
    return None
