"""One run as a watchdog looks at it: what is read from the bucket and asked of the cloud, and how often.

Nothing that is remembered here decides anything: it saves reads. A look that fails becomes Unknown.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from infra.cloud.types import Cloud, CloudError, Operation, OperationKind, Vm, VmList, VmStatus
from infra.expected import Work
from infra.launch.estimate import parameters_of, work_of
from infra.machines import machines
from infra.naming import run_labels
from infra.plan import offers
from infra.watch.observed import Damaged, Dated, Foreign, Observed, Unknown, Wanted
from job.errors import BatonError
from job.run.claims import Claim, Claims
from job.run.exit import ContainerExit
from job.run.head import Head, Status
from job.run.layout import CLAIMS, HEAD, LOOKED, exit_name, heartbeat_name
from job.run.looked import Looked
from job.run.records import Record
from job.run.spec import Machine, Spec, read_spec
from job.settings import from_plain
from job.storage import Bucket, NotFound, ObjectInfo

R = TypeVar("R", bound=Record)
SPEC_S = 60.0
"""For which a spec is believed; it is read again before a VM is claimed."""
CLOCK_S = 600.0
"""For which the bucket's time is known from the last write."""
MOST_BYTES = 1 << 20
"""Of a record that a VM wrote. Heads have some kilobytes."""
QUIET_HEARTBEAT_S = 30.0
"""Age from which on exit.json is asked for as well."""


@dataclass
class Clock:
    """The bucket's time, by the last write there: ages are told by it, not by this machine's clock."""

    now: Callable[[], float] = time.time
    ahead_s: float = 0.0
    read_at_s: float | None = None

    def learn(self, sent_s: float, told_s: float) -> None:
        """The service wrote an object at `told_s`; it was asked at `sent_s` of this machine's time."""
        answered_s = self.now()
        self.ahead_s, self.read_at_s = told_s - (sent_s + answered_s) / 2, answered_s

    def is_known(self) -> bool:
        """Whether the last write is not too long ago."""
        return self.read_at_s is not None and 0 <= self.now() - self.read_at_s < CLOCK_S

    def time_s(self) -> float:
        """Seconds since the epoch, by the bucket's clock."""
        return self.now() + self.ahead_s


class Looks:
    """Looks at one run."""

    def __init__(self, uri: str, bucket: Bucket, clock: Clock) -> None:
        self.uri, self.bucket, self.clock = uri, bucket, clock
        self._spec: Spec | None = None
        self._spec_at_s: float | None = None
        self._location: str | None = None
        self._located = False
        self._wanted: tuple[int, tuple[str, ...], Wanted] | None = None
        self._held: dict[str, tuple[int, Dated[Any] | Damaged]] = {}

    def tell_looked(self, watcher: str, note: str, next_at_s: float | None) -> None:
        """Writes control/looked.json, and learns the bucket's time from it. Raises BatonError."""
        looked = Looked(watcher=watcher, at_s=self.clock.time_s(), next_at_s=next_at_s, note=note)
        sent_s = self.clock.now()
        info = self.bucket.write(LOOKED, looked.to_bytes())
        self.clock.learn(sent_s, info.updated_s)

    def claims(self) -> Dated[Claims] | None:
        """control/claims.json. Raises BatonError: without it nothing is known."""
        found = Claims.read(self.bucket, CLAIMS)
        return None if found is None else Dated(found[0], found[1].updated_s)

    def wanted(self, claims: Claims) -> Wanted:
        """What control/spec says, read anew before a VM is claimed. Raises BatonError."""
        newest = claims.newest
        settled = newest is not None and newest.ended is None
        if self._spec_at_s is None or not settled or self.clock.now() - self._spec_at_s > SPEC_S:
            self._spec, self._spec_at_s = read_spec(self.bucket), self.clock.now()
        machine = None if self._spec is None else self._spec.machine
        if self._spec is None or machine is None:
            return Wanted(self.uri, None)
        if not self._located and machine.bucket_region is None:
            self._location, self._located = self.bucket.location(), True
        used = tuple(sorted({claim.machine_type for claim in claims.attempts if claim.machine_type is not None}))
        if self._wanted is None or self._wanted[:2] != (self._spec.revision, used):
            self._wanted = self._spec.revision, used, self._offered(self._spec, machine, used)
        return self._wanted[2]

    def _offered(self, spec: Spec, machine: Machine, used: Sequence[str]) -> Wanted:
        """Other machines than those that launch chose are not taken: the run may not fit them."""
        if machine.gpu not in machines().gpu:
            return Wanted(self.uri, machine)
        location = machine.bucket_region or (None if self._location is None else self._location.lower())
        spot, on_demand = (
            offers(
                machine.gpu,
                kind,
                machine.zones,
                machine.regions,
                location,
                machine_types=used,
                boot_disk_gb=machine.boot_disk_gb,
            )
            for kind in (True, False)
        )
        told = spec.recipe.get("train", {}).get("max_steps")
        steps = told if isinstance(told, int) else None
        return Wanted(self.uri, machine, spot, on_demand, max_steps=steps, work=_work(spec, machine, steps))

    def look(self, claims: Dated[Claims], vms: VmList | Unknown, cloud: Cloud | None) -> Observed:
        """Everything that a decision about the run needs. `vms`: those with its label."""
        newest = claims.record.newest
        listed = vms if isinstance(vms, Unknown) else vms.vms
        unreachable = frozenset() if isinstance(vms, Unknown) else vms.unreachable
        head = self._read(Head, HEAD)
        seen = Observed(self.clock.time_s(), claims.record, claims.at_s, listed, unreachable, head=head)
        if newest is None or newest.kind != "vm" or newest.ended is not None:
            return seen
        vm = seen.vm_of(newest)
        heartbeat = self._beat(newest)
        exit_ = self._exit(newest, vm, head, heartbeat, seen.now_s)
        operations: tuple[Operation, ...] | Unknown = Unknown("not asked for")
        looked_up: Vm | Foreign | Unknown | None = Unknown("not asked for")
        steady = isinstance(vm, Vm) and vm.status in (VmStatus.STARTING, VmStatus.RUNNING)
        if cloud is not None and not isinstance(vm, Unknown) and (not steady or exit_ is not None):
            operations = operations_of(cloud, newest)
            if vm is None:
                looked_up = look_up(cloud, newest, run_labels(self.uri, newest.number))
        return Observed(
            self.clock.time_s(),
            claims.record,
            claims.at_s,
            listed,
            unreachable,
            operations,
            looked_up,
            head,
            heartbeat,
            exit_,
        )

    def _exit(
        self,
        claim: Claim,
        vm: Vm | Unknown | None,
        head: Dated[Head] | Unknown | Damaged | None,
        heartbeat_s: float | Unknown | None,
        now_s: float,
    ) -> Dated[ContainerExit] | Unknown | Damaged | None:
        """Not asked for while all is well: a VM that is over does not stay running."""
        running = isinstance(vm, Vm) and vm.status is VmStatus.RUNNING
        beats = isinstance(heartbeat_s, float) and now_s - heartbeat_s < QUIET_HEARTBEAT_S
        at_work = isinstance(head, Dated) and head.record.status in (Status.RUNNING, Status.FINISHING)
        if running and beats and at_work:
            return None
        return self._read(ContainerExit, exit_name(claim.number))

    def _beat(self, claim: Claim) -> float | Unknown | None:
        try:
            found = self.bucket.stat(heartbeat_name(claim.number))
        except BatonError as error:
            return Unknown(error.what)
        return None if found is None else found.updated_s

    def _read(self, kind: type[R], name: str) -> Dated[R] | Unknown | Damaged | None:
        """A record that a VM may write, read when its generation is a new one. It may be nonsense, of any length."""
        try:
            found = self.bucket.stat(name)
            if found is None:
                return None
            held = self._held.get(name)
            if held is None or held[0] != found.generation:
                held = found.generation, self._parsed(kind, name, found)
                self._held = {**{key: self._held[key] for key in self._held if key == HEAD}, name: held}
        except NotFound:
            return None
        except BatonError as error:
            return Unknown(error.what)
        return cast("Dated[R] | Damaged", held[1])

    def _parsed(self, kind: type[R], name: str, info: ObjectInfo) -> Dated[R] | Damaged:
        if info.size_bytes > MOST_BYTES:
            return Damaged(f"{name} has {info.size_bytes} bytes")
        data, _ = self.bucket.read(name)
        try:
            return Dated(kind.model_validate_json(data), info.updated_s)
        except ValidationError:
            return Damaged(f"{name} cannot be read")


def _work(spec: Spec, machine: Machine, steps: int | None) -> Work:
    """What the offers are ranked by, as launch ranks them; a recipe of another version tells nothing."""
    try:
        settings = from_plain(spec.recipe)
    except BatonError:
        return Work()
    known = parameters_of(settings.model.name)
    return work_of(settings, machines().gpu[machine.gpu], known, steps, image=machine.image)


def operations_of(cloud: Cloud, claim: Claim) -> tuple[Operation, ...] | Unknown:
    """What was done to the claim's VM. The platform's doings are found by its number only, which its insert names: that
    of the claim, not of another VM that has the name, or had it before."""
    assert claim.zone is not None
    assert claim.vm is not None
    number = claim.instance_id
    try:
        named = () if number is not None else cloud.operations(claim.zone, claim.vm)
        found = tuple(op for op in named if op.kind is OperationKind.INSERT and op.request_id == claim.request_id)
        if number is None and found:
            number = found[-1].instance_id or None
        if number is not None:
            known = {op.name for op in found}
            of_it = cloud.operations(claim.zone, claim.vm, number)
            found = (*found, *(op for op in of_it if op.name not in known))
    except CloudError as error:
        return Unknown(str(error))
    return tuple(sorted(found, key=lambda op: op.at_s))


def look_up(cloud: Cloud, claim: Claim, labels: Mapping[str, str]) -> Vm | Foreign | Unknown | None:
    """The claim's VM by its name; None also where another VM has the name by now, after the claim's own has gone."""
    assert claim.zone is not None
    assert claim.vm is not None
    try:
        vm = cloud.get_vm(claim.zone, claim.vm)
    except CloudError as error:
        return Unknown(str(error))
    if vm is None or labels.items() <= vm.labels.items():
        return vm
    return Foreign(vm) if claim.instance_id in (None, vm.instance_id) else None


def by_run(vms: VmList, label: str) -> Mapping[str, VmList]:
    """A list of all runs' VMs, by the run's label."""
    found: dict[str, list[Vm]] = {}
    for vm in vms.vms:
        found.setdefault(vm.labels.get(label, ""), []).append(vm)
    return {run: VmList(tuple(some), vms.unreachable) for run, some in found.items()}
