"""A plan is carried out: claims first, by compare-and-swap; then the cloud. Whoever dies in between leaves the rest to
the next look."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from infra.cloud.types import Cloud, CloudError, Trouble, TroubleKind
from infra.recovery import Ask, Plan
from infra.watch.ends import durable_step
from infra.watch.observed import Observed, Wanted
from infra.watch.orders import SHORTEST_RUN_S, attempt_order
from infra.watch.refusals import refusal
from infra.watch.watched import Watched
from job.errors import NeedsPerson
from job.run.claims import Claim, Claims, SeenEnd, update_claims
from job.run.costs import share_s
from job.run.spec import Machine

PLAN_S = 20.0
"""A plan that is older is not carried out: this process may have slept."""


class _Overtaken(Exception):
    """Somebody else has written claims.json since the look."""


@dataclass(frozen=True)
class Acting:
    """Carries out what was decided on one look at one run."""

    run: Watched
    cloud: Cloud
    wanted: Wanted
    seen: Observed

    def carry_out(self, plan: Plan) -> None:
        """All of it, in its order, as long as it is fresh. Raises BatonError where the bucket cannot be written."""
        if plan.rewrites and not self._write(plan):
            return
        for ask in plan.asks:
            if self._is_fresh():
                self._ask(ask, plan.after)
        for stop in plan.stops:
            if self._is_fresh():
                vm = stop.vm
                self._do(f"stopping {vm.name} ({stop.why})", partial(self.cloud.stop, vm.zone, vm.name))
        for delete in plan.deletes:
            if self._is_fresh():
                vm = delete.vm
                self._do(f"deleting {vm.name} ({delete.why})", partial(self.cloud.delete, vm.zone, vm.name))

    def _is_fresh(self) -> bool:
        return abs(self.run.looks.clock.time_s() - self.seen.now_s) < PLAN_S

    def _write(self, plan: Plan) -> bool:
        """Writes the plan's claims over those that it was decided on; False when others have written meanwhile."""

        def swap(now: Claims) -> Claims:
            if _content(now) != _content(plan.before) or not self._is_fresh():
                raise _Overtaken
            return plan.after

        try:
            update_claims(self.run.looks.bucket, swap)
        except _Overtaken:
            self.run.again = True
            return False
        self.run.again = True
        return True

    def _ask(self, ask: Ask, claims: Claims) -> None:
        """Asks for a claim's VM. A refusal that stands ends the claim; another is left alone for a while."""
        claim, clock = ask.claim, self.run.looks.clock
        assert self.wanted.machine is not None
        if not self.run.may_ask(claim.number, clock.now()):
            return
        step = durable_step(self.seen)
        try:
            max_run_s = within_cap(self.wanted.machine, claims, claim, ask.max_run_s)
            order = attempt_order(self.run.uri, self.wanted.machine, claim, max_run_s)
        except NeedsPerson as error:
            end = SeenEnd(how="refused", at_s=self.seen.now_s, detail=error.what[:200], durable_step=step)
            self._end_claim(claim, end)
            return
        try:
            trouble = self.cloud.insert(order).trouble
        except CloudError as error:
            trouble = error.trouble
        self.run.refused = trouble
        if trouble is None:
            return
        found = refusal(claim, trouble, clock.time_s(), step)
        if found is not None:
            self._end_claim(claim, found)
        else:
            self.run.complain(f"{claim.vm} in {claim.zone}: {_advised(trouble)}")

    def _end_claim(self, claim: Claim, end: SeenEnd) -> None:
        """Records how an insert was refused, unless others have changed the claim."""

        def change(now: Claims) -> Claims:
            if claim not in now.attempts:
                raise _Overtaken
            ended = claim.model_copy(update={"ended": end})
            return now.model_copy(update={"attempts": tuple(ended if one == claim else one for one in now.attempts)})

        with contextlib.suppress(_Overtaken):
            update_claims(self.run.looks.bucket, change)
        self.run.again = True

    def _do(self, what: str, act: Callable[[], None]) -> None:
        self.run.say(what)
        try:
            act()
        except CloudError as error:
            self.run.complain(f"{what}: {_advised(error.trouble)}")


def within_cap(machine: Machine, claims: Claims, claim: Claim, max_run_s: int) -> int:
    """For how long the VM may run, whatever was decided: the cap is held once more, by claims alone, where the request
    is made. Raises NeedsPerson when nothing is left."""
    share = share_s(machine.max_usd, claims.attempts, claim.number)
    if share is None:
        return max_run_s
    if share < SHORTEST_RUN_S:
        raise NeedsPerson(
            f"the cap of ${machine.max_usd:.2f} is reached: attempt {claim.number} gets no VM.",
            fix="Allow more: baton resume RUN --max-usd",
        )
    return min(max_run_s, int(share))


def _content(claims: Claims) -> Claims:
    """Claims without the marks of who wrote them last."""
    return claims.model_copy(update={"write_id": "", "earlier": ()})


def _advised(trouble: Trouble) -> str:
    """A refusal with what a person does about it."""
    advice = {
        TroubleKind.CREDENTIALS: "; sign in: gcloud auth application-default login",
        TroubleKind.FORBIDDEN: "; a role is missing, such as roles/compute.instanceAdmin.v1",
    }
    return f"{trouble.code}: {trouble.message}{advice.get(trouble.kind, '')}"
