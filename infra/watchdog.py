"""The loop around recovery.decide: looks, asks what is to be done, does it. Any number at once, killed anywhere.

One aggregated list of VMs serves all runs. A run is looked at closely when its VMs changed, while something is under
way, and every few seconds besides. Nothing is remembered but what saves requests: all memory is control/claims.json.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from infra.cloud.types import Cloud, CloudError, Trouble, TroubleKind, VmList, VmStatus
from infra.naming import OF_BUCKET, OF_RUN, OWNER, hash8
from infra.recovery import Ask, Plan, decide, refusal
from infra.watch.ends import durable_step
from infra.watch.looks import Clock, Looks, by_run
from infra.watch.notify import Teller, events_of, waiting_event
from infra.watch.observed import Observed, Policy, Unknown, Wanted
from infra.watch.orders import attempt_order
from job.errors import BatonError, NeedsPerson
from job.run.claims import Claim, Claims, SeenEnd, update_claims
from job.run.head import Status
from job.storage import Bucket
from job.storage.parallel import in_parallel

INTERVAL_S = 2.5
"""Between two lists of VMs: with the looks that follow a change it detects one within 5 s."""
LOOK_S = 10.0
"""Between two close looks at a run of which nothing new is seen."""
FINAL_S = 15.0
"""The same for a run that is over: somebody may resume it."""
TELL_S = 60.0
"""Between two words in control/looked.json."""
RUNS_S = 30.0
"""Between two lists of the bucket's runs."""
PLAN_S = 20.0
"""A plan that is older is not carried out: this process may have slept."""
AT_ONCE = 16
ASK_AGAIN_S = 5.0
ASK_MOST_S = 60.0


class _Overtaken(Exception):
    """Somebody else has written claims.json since the look."""


@dataclass
class _Asked:
    """Politeness towards a service that refuses: what was asked when, and how long to leave it."""

    at_s: float
    pause_s: float


@dataclass
class Watched:
    """One run that is watched."""

    looks: Looks
    teller: Teller
    uri: str
    project: str | None = None
    learned_s: float = float("-inf")
    picture: tuple[tuple[str, VmStatus], ...] | None = None
    looked_s: float = float("-inf")
    told_s: float = float("-inf")
    told_note: str = ""
    busy: bool = True
    final: bool = False
    over: bool = False
    """Final, and nothing of it is left in the cloud."""
    trouble: str = ""
    new_trouble: str = ""
    again: bool = False
    asked: dict[int, _Asked] = field(default_factory=dict)
    refused: Trouble | None = None
    """What the newest insert was answered with, where it is going to be asked again."""
    plan: Plan | None = None

    @property
    def label(self) -> str:
        """That its VMs carry."""
        return hash8(self.uri)


class Watchdog:
    """Watches some runs, or all of a bucket. `call` is told what is worth calling a person for, `say` everything."""

    def __init__(
        self,
        runs: Callable[[], Sequence[str]],
        *,
        open_bucket: Callable[[str], Bucket],
        open_cloud: Callable[[str], Cloud],
        watcher: str,
        bucket_uri: str | None = None,
        call: Callable[[str], None] = lambda text: None,
        say: Callable[[str], None] = lambda text: None,
        policy: Policy | None = None,
        interval_s: float = INTERVAL_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`runs`: URIs of the runs now. `bucket_uri`: where they are all of one bucket's: VMs of runs that are gone
        are deleted too."""
        self._runs, self._open_bucket, self._open_cloud = runs, open_bucket, open_cloud
        self._watcher, self._bucket_uri, self._call, self._say = watcher, bucket_uri, call, say
        self._policy, self.interval_s, self._now = policy or Policy(), interval_s, now
        self._clock = Clock(now)
        self._clouds: dict[str, Cloud] = {}
        self._runs_s = float("-inf")
        self._trouble: dict[str, str] = {}
        self.watched: dict[str, Watched] = {}

    def tick(self) -> bool:
        """One look at all runs, and what follows. Returns whether something was done that is worth another look at
        once. Nothing that fails for one run reaches another."""
        began_s = self._now()
        self._refresh()
        new = [run for run in self.watched.values() if run.project is None and began_s - run.learned_s >= FINAL_S]
        in_parallel((partial(self._guarded, run, partial(self._learn, run)) for run in new), AT_ONCE)
        lists = self._list_vms()
        due = [run for run in self.watched.values() if self._is_due(run, lists)]
        in_parallel((partial(self._guarded, run, partial(self._attend, run, lists)) for run in due), AT_ONCE)
        self._sweep(lists, began_s)
        return any(run.again for run in due)

    def is_over(self) -> bool:
        """Whether every run is final and has nothing left in the cloud."""
        return bool(self.watched) and all(run.over for run in self.watched.values())

    # --- looking -------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self._now() - self._runs_s < RUNS_S:
            return
        self._trouble.pop("runs", None)
        try:
            uris = self._runs()
        except BatonError as error:
            self._say_once("runs", f"the runs cannot be listed: {error.what}")
            return
        self._runs_s = self._now()
        self.watched = {uri: self.watched.get(uri) or self._watch(uri) for uri in uris}

    def _watch(self, uri: str) -> Watched:
        bucket = self._open_bucket(uri)
        say = partial(self._say_of, uri)
        return Watched(Looks(uri, bucket, self._clock), Teller(uri, bucket, self._call, say), uri)

    def _list_vms(self) -> Mapping[str, Mapping[str, VmList] | Unknown]:
        """By project, then by run. One request for each project."""
        projects = {run.project for run in self.watched.values() if run.project is not None}
        labels = {OWNER: "run"}
        if self._bucket_uri is not None:
            labels[OF_BUCKET] = hash8(self._bucket_uri)
        elif len(self.watched) == 1:
            labels[OF_RUN] = next(iter(self.watched.values())).label
        found: dict[str, Mapping[str, VmList] | Unknown] = {}
        for project in projects:
            try:
                vms = self._cloud(project).list_vms(labels)
            except CloudError as error:
                found[project] = Unknown(str(error))
                self._say_once(project, f"VMs of {project} cannot be listed: {error}")
                continue
            self._trouble.pop(project, None)
            found[project] = {"": VmList((), vms.unreachable), **by_run(vms, OF_RUN)}
        return found

    def _vms_of(self, run: Watched, lists: Mapping[str, Mapping[str, VmList] | Unknown]) -> VmList | Unknown:
        listed = Unknown("no project") if run.project is None else lists.get(run.project, Unknown("not listed yet"))
        if isinstance(listed, Unknown):
            return listed
        return listed.get(run.label) or VmList((), listed[""].unreachable)

    def _is_due(self, run: Watched, lists: Mapping[str, Mapping[str, VmList] | Unknown]) -> bool:
        """Whether to look closely: its VMs changed, something is under way, or it is time."""
        vms = self._vms_of(run, lists)
        picture = None if isinstance(vms, Unknown) else tuple(sorted((vm.name, vm.status) for vm in vms.vms))
        changed = picture is not None and picture != run.picture
        run.picture = picture if picture is not None else run.picture
        if run.project is None:
            return False
        pause_s = FINAL_S if run.final else LOOK_S
        return changed or run.busy or self._now() - run.looked_s >= pause_s

    def _guarded(self, run: Watched, work: Callable[[], None]) -> None:
        """What fails with one run leaves the others watched."""
        run.new_trouble, run.again = "", False
        try:
            work()
        except BatonError as error:
            self._complain(run, error.what)
        except Exception:
            self._complain(run, traceback.format_exc().rstrip())
        run.trouble = run.new_trouble

    def _learn(self, run: Watched) -> None:
        """Which project its VMs are in; none of a run of processes. Raises BatonError."""
        run.learned_s = self._now()
        claims = run.looks.claims()
        machine = None if claims is None else run.looks.wanted(claims.record).machine
        run.project = None if machine is None else machine.project

    def _attend(self, run: Watched, lists: Mapping[str, Mapping[str, VmList] | Unknown]) -> None:
        """Looks closely at one run and does what is to be done. Raises BatonError."""
        run.looked_s, run.busy = self._now(), True
        claims = run.looks.claims()
        if claims is None:
            raise NeedsPerson(f"{run.uri} has lost its claims.")
        wanted = run.looks.wanted(claims.record)
        if wanted.machine is None:
            raise NeedsPerson(f"{run.uri} has lost its spec.")
        run.project = wanted.machine.project
        self._tell_looked(run)
        seen = run.looks.look(claims, self._vms_of(run, lists), self._cloud(run.project))
        plan = run.plan = decide(wanted, seen, self._policy)
        self._carry_out(run, wanted, seen, plan)
        self._settle(run, seen, plan)

    def _tell_looked(self, run: Watched) -> None:
        """That somebody looks, for people; and the bucket's time, without which no age is known."""
        known = self._clock.is_known()
        note = "" if run.plan is None else run.plan.note
        if known and (run.final or self._now() - run.told_s < TELL_S) and run.told_note == note:
            return
        run.looks.tell_looked(self._watcher, note, self._clock.time_s() + TELL_S)
        run.told_s, run.told_note = self._now(), note

    def _settle(self, run: Watched, seen: Observed, plan: Plan) -> None:
        """How soon to look again, what people hear."""
        claims, newest = plan.after, plan.after.newest
        head = seen.head_record()
        finished = head is not None and head.status is Status.FINISHED
        open_vm = newest is not None and newest.kind == "vm" and newest.ended is None
        run.final = not open_vm and (claims.want != "run" or finished)
        vm = None if newest is None else seen.vm_of(newest)
        steady = not isinstance(vm, Unknown) and vm is not None and vm.status is VmStatus.RUNNING
        doubted = newest is not None and newest.doubted_at_s is not None
        acted = bool(plan.rewrites or plan.asks or plan.stops or plan.deletes)
        waits = plan.next_try_s is not None and plan.next_try_s - seen.now_s > LOOK_S
        run.busy = acted or doubted or (open_vm and not steady and not isinstance(seen.vms, Unknown))
        run.busy = run.busy and not waits
        run.over = run.final and not acted and not isinstance(seen.vms, Unknown) and not seen.vms
        events = events_of(claims)
        if plan.next_try_s is not None and waits:
            waiting = waiting_event(claims, plan.note, plan.next_try_s, seen.now_s)
            events = events if waiting is None else (*events, waiting)
        run.teller.tell(events, seen.now_s)

    # --- acting --------------------------------------------------------------------------------------------------

    def _carry_out(self, run: Watched, wanted: Wanted, seen: Observed, plan: Plan) -> None:
        """Claims first, by compare-and-swap; then the cloud. Whoever dies in between leaves it to the next look."""
        if plan.rewrites and not self._write(run, seen, plan):
            return
        assert run.project is not None
        cloud = self._cloud(run.project)
        for ask in plan.asks:
            if self._is_fresh(seen):
                self._ask(run, cloud, wanted, seen, ask)
        for stop in plan.stops:
            if self._is_fresh(seen):
                self._do(run, f"stopping {stop.vm.name} ({stop.why})", partial(cloud.stop, stop.vm.zone, stop.vm.name))
        for delete in plan.deletes:
            if self._is_fresh(seen):
                vm = delete.vm
                self._do(run, f"deleting {vm.name} ({delete.why})", partial(cloud.delete, vm.zone, vm.name))

    def _is_fresh(self, seen: Observed) -> bool:
        return abs(self._clock.time_s() - seen.now_s) < PLAN_S

    def _write(self, run: Watched, seen: Observed, plan: Plan) -> bool:
        """Writes the plan's claims over those that it was decided on; False when others have written meanwhile."""

        def swap(now: Claims) -> Claims:
            if _content(now) != _content(plan.before) or not self._is_fresh(seen):
                raise _Overtaken
            return plan.after

        try:
            update_claims(run.looks.bucket, swap)
        except _Overtaken:
            run.again = True
            return False
        run.again = True
        return True

    def _ask(self, run: Watched, cloud: Cloud, wanted: Wanted, seen: Observed, ask: Ask) -> None:
        """Asks for a claim's VM. A refusal that stands ends the claim; another is left alone for a while."""
        claim, machine = ask.claim, wanted.machine
        assert machine is not None
        before = run.asked.get(claim.number)
        if before is not None and self._now() - before.at_s < before.pause_s:
            return
        pause_s = ASK_AGAIN_S if before is None else min(ASK_MOST_S, 2 * before.pause_s)
        run.asked = {claim.number: _Asked(self._now(), pause_s)}
        try:
            order = attempt_order(run.uri, machine, claim, ask.max_run_s)
        except NeedsPerson as error:
            end = SeenEnd(how="refused", at_s=seen.now_s, detail=error.what[:200], durable_step=durable_step(seen))
            self._end_claim(run, claim, end)
            return
        try:
            trouble = cloud.insert(order).trouble
        except CloudError as error:
            trouble = error.trouble
        run.refused = trouble
        if trouble is None:
            return
        found = refusal(claim, trouble, self._clock.time_s(), durable_step(seen))
        if found is not None:
            self._end_claim(run, claim, found)
        else:
            self._complain(run, f"{claim.vm} in {claim.zone}: {_advised(trouble)}")

    def _end_claim(self, run: Watched, claim: Claim, end: SeenEnd) -> None:
        """Records how an insert was refused, unless others have changed the claim."""

        def change(now: Claims) -> Claims:
            if claim not in now.attempts:
                raise _Overtaken
            ended = claim.model_copy(update={"ended": end})
            return now.model_copy(update={"attempts": tuple(ended if one == claim else one for one in now.attempts)})

        with contextlib.suppress(_Overtaken):
            update_claims(run.looks.bucket, change)
        run.again = True

    def _do(self, run: Watched, what: str, act: Callable[[], None]) -> None:
        self._say_of(run.uri, what)
        try:
            act()
        except CloudError as error:
            self._complain(run, f"{what}: {_advised(error.trouble)}")

    def _sweep(self, lists: Mapping[str, Mapping[str, VmList] | Unknown], began_s: float) -> None:
        """VMs with the bucket's label whose run is not in it any more."""
        if self._bucket_uri is None or not self._clock.is_known() or "runs" in self._trouble:
            return
        labels = {run.label for run in self.watched.values()}
        for project, listed in lists.items():
            if isinstance(listed, Unknown):
                continue
            for label, vms in listed.items():
                for vm in vms.vms if label not in labels else ():
                    old = self._clock.time_s() - vm.created_s > self._policy.superfluous_s
                    fresh = self._now() - began_s < PLAN_S
                    if old and fresh and vm.labels.get(OF_BUCKET) == hash8(self._bucket_uri):
                        self._say(f"deleting {vm.name}: its run is not in {self._bucket_uri}")
                        try:
                            self._cloud(project).delete(vm.zone, vm.name)
                        except CloudError as error:
                            self._say_once(vm.name, f"{vm.name}: {error}")

    def _cloud(self, project: str) -> Cloud:
        if project not in self._clouds:
            self._clouds[project] = self._open_cloud(project)
        return self._clouds[project]

    # --- talking -------------------------------------------------------------------------------------------------

    def _say_of(self, uri: str, text: str) -> None:
        self._say(f"{uri}: {text}")

    def _complain(self, run: Watched, text: str) -> None:
        """Once, until it works or fails otherwise."""
        run.new_trouble = text
        if run.trouble != text:
            self._say_of(run.uri, text)

    def _say_once(self, what: str, text: str) -> None:
        if self._trouble.get(what) != text:
            self._trouble[what] = text
            self._say(text)


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
