"""The loop around recovery.decide: looks, asks what is to be done, does it. Any number at once, killed anywhere.

One aggregated list of VMs serves all runs. A run is looked at closely when its VMs changed, while something is under
way, and every few seconds besides. Nothing is remembered but what saves requests: all memory is control/claims.json.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from infra.cloud.types import Cloud, CloudError, VmList
from infra.naming import OF_BUCKET, OF_RUN, OWNER, hash8
from infra.recovery import decide
from infra.watch.acting import PLAN_S, Acting
from infra.watch.looks import Clock, Looks, by_run
from infra.watch.notify import Teller
from infra.watch.observed import Policy, Unknown
from infra.watch.watched import Watched
from job.errors import BatonError, NeedsPerson
from job.storage import Bucket
from job.storage.parallel import in_parallel

INTERVAL_S = 2.5
"""Between two lists of VMs: with the looks that follow a change it detects one within 5 s."""
RUNS_S = 30.0
"""Between two lists of the bucket's runs."""
AT_ONCE = 16
Lists = Mapping[str, Mapping[str, VmList] | Unknown]
"""What the cloud has: by project, then by the label of the run."""


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
        new = [run for run in self.watched.values() if run.is_new(began_s)]
        in_parallel((partial(run.guarded, partial(self._learn, run)) for run in new), AT_ONCE)
        lists = self._list_vms()
        due = [run for run in self.watched.values() if run.is_due(_vms_of(run, lists), self._now())]
        in_parallel((partial(run.guarded, partial(self._attend, run, lists)) for run in due), AT_ONCE)
        self._sweep(lists, began_s)
        return any(run.again for run in due)

    def is_over(self) -> bool:
        """Whether every run is final and has nothing left in the cloud."""
        return bool(self.watched) and all(run.over for run in self.watched.values())

    def _refresh(self) -> None:
        """Which runs there are, every now and then."""
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

        def say(text: str) -> None:
            self._say(f"{uri}: {text}")

        return Watched(uri, Looks(uri, bucket, self._clock), Teller(uri, bucket, self._call, say), say)

    def _learn(self, run: Watched) -> None:
        """Which project its VMs are in; none of a run of processes. Raises BatonError."""
        run.learned_s = self._now()
        claims = run.looks.claims()
        machine = None if claims is None else run.looks.wanted(claims.record).machine
        run.project = None if machine is None else machine.project

    def _list_vms(self) -> Lists:
        """One request for each project."""
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

    def _attend(self, run: Watched, lists: Lists) -> None:
        """Looks closely at one run and does what is to be done. Raises BatonError."""
        run.looked_s, run.busy = self._now(), True
        claims = run.looks.claims()
        if claims is None:
            raise NeedsPerson(f"{run.uri} has lost its claims.")
        wanted = run.looks.wanted(claims.record)
        if wanted.machine is None:
            raise NeedsPerson(f"{run.uri} has lost its spec.")
        run.project = wanted.machine.project
        run.tell_looked(self._watcher)
        cloud = self._cloud(run.project)
        seen = run.looks.look(claims, _vms_of(run, lists), cloud)
        plan = run.plan = decide(wanted, seen, self._policy)
        Acting(run, cloud, wanted, seen).carry_out(plan)
        run.settle(seen, plan)

    def _sweep(self, lists: Lists, began_s: float) -> None:
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

    def _say_once(self, what: str, text: str) -> None:
        if self._trouble.get(what) != text:
            self._trouble[what] = text
            self._say(text)


def _vms_of(run: Watched, lists: Lists) -> VmList | Unknown:
    listed = Unknown("no project") if run.project is None else lists.get(run.project, Unknown("not listed yet"))
    if isinstance(listed, Unknown):
        return listed
    return listed.get(run.label) or VmList((), listed[""].unreachable)
