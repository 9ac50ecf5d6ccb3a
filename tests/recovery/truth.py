"""What is really so: the bucket, the VMs, and what the attempts on them do. Knows nothing of recovery's rules.

Time stands still while somebody acts and jumps from event to event. Attempts keep the protocol of docs/design.md (claim
below the newest: exit 4; head by compare-and-swap; heartbeats; exit.json), or fail as real ones do.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.cloud.types import Operation, OperationKind, Trouble, TroubleKind, Vm, VmOrder, VmStatus
from infra.naming import region_of
from job.run.claims import Claim, Claims
from job.run.exit import ContainerExit
from job.run.head import CheckpointRef, Head, Status, Waiting
from job.run.layout import CLAIMS, HEAD, exit_name, heartbeat_name

BEGAN_S = 1_790_000_000.0
BEAT_S = 10.0
LONGEST_BOOT_S = 400.0
MAX_STEPS = 40


class Broken(BaseException):
    """A law does not hold. No `except Exception` of the code under test catches it."""


@dataclass
class Stored:
    data: bytes
    generation: int
    updated_s: float


@dataclass
class Machine:
    """One VM as it really is."""

    order: VmOrder
    instance_id: str
    asked_s: float
    number: int
    state: str = "creating"
    """creating, running, stopping, stopped, gone, failed."""
    started_s: float | None = None
    stopping_s: float | None = None
    over_s: float | None = None
    beats_from_s: float | None = None
    """Heartbeats are written since then, while `works`."""
    last_beat_s: float | None = None
    works: bool = False
    """Its container runs, and does what it should."""
    booting: bool = True
    zombie: bool = False
    """Reported gone, and still at work."""
    doomed: bool = False
    """The platform, a person or its own failure is about to end it, or has; or it harms itself."""
    doomed_by_itself: bool = False
    """It hangs, is cut off, or is a zombie: nothing on it hears that it is not wanted."""
    operations: list[tuple[float, Operation]] = field(default_factory=list)
    """With the time from which on they are seen."""

    def vm(self) -> Vm | None:
        """As a list shows it."""
        if self.state in ("gone", "failed") or (self.zombie and self.over_s is not None):
            return None
        status = {
            "creating": VmStatus.STARTING,
            "running": VmStatus.RUNNING,
            "stopping": VmStatus.STOPPING,
            "stopped": VmStatus.STOPPED,
        }[self.state]
        return Vm(
            self.order.name,
            self.order.zone,
            status,
            self.instance_id,
            self.order.machine_type,
            self.order.spot,
            dict(self.order.labels),
            self.asked_s,
            self.started_s,
            self.over_s if self.state == "stopped" else None,
        )


class Truth:
    """The world. `fate` says what becomes of a VM that has just started."""

    def __init__(self, rng: random.Random, fate: Callable[["Truth", Machine], None]) -> None:
        self.rng, self.fate = rng, fate
        self.now_s = BEGAN_S
        self.store: dict[str, Stored] = {}
        self.machines: list[Machine] = []
        self.full: dict[str, float] = {}
        """Zone: until when it has no capacity."""
        self.no_quota: dict[str, float] = {}
        self.cloud_down_s = self.bucket_down_s = -1.0
        self.snapshots: list[tuple[float, tuple[Vm, ...]]] = [(BEGAN_S, ())]
        self.story: list[str] = []
        self.finished_at_s: float | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ids = itertools.count(1001)

    # --- time and storage ----------------------------------------------------------------------------------------

    def at(self, delay_s: float, event: Callable[[], None]) -> None:
        """Something that happens later."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), event))

    def advance(self, to_s: float) -> None:
        """Lives until then. An event may make time pass itself."""
        while self._events and self._events[0][0] <= to_s:
            at_s, _, event = heapq.heappop(self._events)
            self.now_s = max(self.now_s, at_s)
            event()
        self.now_s = max(self.now_s, to_s)

    def tell(self, text: str) -> None:
        """A line of the story."""
        self.story.append(f"{self.now_s - BEGAN_S:8.0f}  {text}")

    def put(self, name: str, data: bytes) -> Stored:
        """Writes an object, whatever is there."""
        before = self.store.get(name)
        self.store[name] = Stored(data, 1 if before is None else before.generation + 1, self.now_s)
        return self.store[name]

    def claims(self) -> Claims:
        found = self.store.get(CLAIMS)
        return Claims() if found is None else Claims.model_validate_json(found.data)

    def head(self) -> Head | None:
        found = self.store.get(HEAD)
        try:
            return None if found is None else Head.model_validate_json(found.data)
        except ValueError:
            return None

    def beat_s(self, number: int) -> float | None:
        """When the newest heartbeat of an attempt was written."""
        beats = [self._last_beat(one) for one in self.machines if one.number == number]
        return max((beat for beat in beats if beat is not None), default=None)

    def _last_beat(self, machine: Machine) -> float | None:
        if machine.works and machine.beats_from_s is not None:
            count = int((self.now_s - machine.beats_from_s) / BEAT_S)
            machine.last_beat_s = machine.beats_from_s + count * BEAT_S
        return machine.last_beat_s

    # --- the platform --------------------------------------------------------------------------------------------

    def insert(self, order: VmOrder) -> Operation:
        """As instances.insert; a stockout or quota is found out when it is made."""
        for machine in self.machines:
            if machine.order.request_id == order.request_id and self.now_s - machine.asked_s < 3600:
                return self._insert_operation(machine)
        if any(one.order.name == order.name and one.vm() is not None for one in self.machines):
            return Operation("adopted", OperationKind.INSERT, True, "w", "", self.now_s)
        number = int(order.labels["baton-attempt"])
        machine = Machine(order, str(next(self._ids)), self.now_s, number)
        self.machines.append(machine)
        self.tell(f"insert of {number} in {order.zone} arrives")
        self._record(machine, OperationKind.INSERT, "w", lag_s=self.rng.choice((0.0, 0.0, 20.0)), done=False)
        self.snap()
        self.at(self.rng.uniform(5, 60), lambda: self._created(machine))
        return self._insert_operation(machine)

    def _created(self, machine: Machine) -> None:
        if machine.state != "creating":
            return
        zone, region = machine.order.zone, region_of(machine.order.zone)
        trouble = None
        if self.no_quota.get(region, 0) > self.now_s:
            trouble = Trouble(TroubleKind.QUOTA, "QUOTA_EXCEEDED", "no", "PREEMPTIBLE_NVIDIA_L4_GPUS", region, 0.0)
        elif self.full.get(zone, 0) > self.now_s:
            trouble = Trouble(TroubleKind.STOCKOUT, "ZONE_RESOURCE_POOL_EXHAUSTED", "full")
        if trouble is not None:
            machine.state, machine.over_s = "failed", self.now_s
            self._settle_insert(machine, trouble)
            self.tell(f"{machine.number} is refused: {trouble.kind.value}")
            self.snap()
            return
        machine.state, machine.started_s = "running", self.now_s
        self._settle_insert(machine, None)
        self.tell(f"{machine.number} runs in {zone}")
        self.snap()
        if machine.order.max_run_s is not None:
            self.at(machine.order.max_run_s, lambda: self.power_off(machine, OperationKind.DELETE, "system", 0.0))
        self.fate(self, machine)

    def power_off(
        self, machine: Machine, kind: OperationKind, user: str, grace_s: float = 30.0, lag_s: float = 0.0
    ) -> None:
        """From outside: the attempt is told by ACPI, and has so long."""
        if machine.state not in ("running", "creating"):
            if machine.state == "stopped" and kind is OperationKind.DELETE:
                machine.state = "gone"
                self.snap()
            return
        if machine.state == "creating":
            self._settle_insert(machine, None)
        machine.doomed, machine.state, machine.stopping_s = True, "stopping", self.now_s
        self._record(machine, kind, user, lag_s=lag_s)
        self.tell(f"{machine.number}: {kind.value} by {user or 'the platform'}")
        self.snap()
        if machine.works and grace_s and self.rng.random() < 0.8:
            self.at(self.rng.uniform(1, grace_s * 0.9), lambda: self.leave(machine, 75, Status.RELEASED, off=False))
        self.at(grace_s, lambda: self._gone(machine, "stopped" if kind is OperationKind.STOP else "gone"))

    def _gone(self, machine: Machine, state: str) -> None:
        if machine.over_s is not None:
            return
        self._last_beat(machine)
        machine.over_s = self.now_s
        if machine.zombie:
            self.tell(f"{machine.number} is a zombie")
            self.at(self.rng.uniform(30, 600), lambda: self._bury(machine))
        else:
            machine.works = False
        machine.state = state if not machine.zombie else "gone"
        self.snap()

    def _bury(self, machine: Machine) -> None:
        self._last_beat(machine)
        machine.works = False

    def _insert_operation(self, machine: Machine) -> Operation:
        return next(op for _, op in machine.operations if op.kind is OperationKind.INSERT)

    def _settle_insert(self, machine: Machine, trouble: Trouble | None) -> None:
        for number, (seen_s, op) in enumerate(machine.operations):
            if op.kind is OperationKind.INSERT:
                done = Operation(
                    op.name, op.kind, True, op.user, op.instance_id, op.at_s, self.now_s, trouble, op.request_id
                )
                machine.operations[number] = (seen_s, done)

    def _record(
        self, machine: Machine, kind: OperationKind, user: str, *, lag_s: float = 0.0, done: bool = True
    ) -> None:
        op = Operation(
            f"op-{len(machine.operations)}-{machine.instance_id}",
            kind,
            done,
            user,
            machine.instance_id,
            self.now_s,
            request_id=machine.order.request_id if kind is OperationKind.INSERT else "",
        )
        machine.operations.append((self.now_s + lag_s, op))

    def snap(self) -> None:
        """Keeps what a list shows now, for looks that are late."""
        shown = tuple(vm for machine in self.machines if (vm := machine.vm()) is not None)
        self.snapshots.append((self.now_s, shown))

    # --- an attempt ----------------------------------------------------------------------------------------------

    def boot(self, machine: Machine) -> None:
        """Its container starts after a while, and takes the run over if it may."""
        self.at(self.rng.uniform(60, LONGEST_BOOT_S), lambda: self._begin(machine))

    def _begin(self, machine: Machine) -> None:
        machine.booting = False
        if machine.state != "running":
            return
        claims, head = self.claims(), self.head()
        newest = claims.newest
        machine.works, machine.beats_from_s = True, self.now_s
        if newest is None or newest.number > machine.number or (head is not None and head.attempt > machine.number):
            self.leave(machine, 4)
        elif head is not None and head.status is Status.FINISHED:
            self.leave(machine, 0)
        elif claims.want != "run":
            self.leave(machine, 3)
        else:
            self.write_head(machine, Status.RUNNING, self.step())
            self.tell(f"{machine.number} has the run")
            self.at(20, lambda: self._train(machine))

    def step(self) -> int:
        head = self.head()
        return 0 if head is None or head.checkpoint is None else head.checkpoint.step

    def write_head(self, machine: Machine, status: Status, step: int, waiting: Waiting | None = None) -> None:
        ref = CheckpointRef(folder=f"checkpoints/{step}", step=step, attempt=machine.number, manifest_crc32c=0)
        before = self.head()
        if before is not None and (before.attempt > machine.number or before.status is Status.FINISHED):
            raise Broken("an attempt of this world wrote over a newer one's head")
        new = Head(
            attempt=machine.number,
            incarnation=0,
            status=status,
            waiting=waiting,
            checkpoint=ref if step else None,
            kept=(ref,) if step else (),
            write_id=f"{self.now_s}",
        )
        self.put(HEAD, new.to_bytes())
        if status is Status.FINISHED:
            self.finished_at_s = self.now_s

    def _train(self, machine: Machine) -> None:
        if not machine.works:
            return
        if self.now_s < self.bucket_down_s:
            self.at(20, lambda: self._train(machine))
            return
        head, claims = self.head(), self.claims()
        if head is None or head.attempt != machine.number:
            self.leave(machine, 4)
        elif claims.want != "run":
            self.leave(machine, 75, Status.RELEASED)
        elif head.status is Status.RUNNING:
            step = self.step() + 1
            self.write_head(machine, Status.RUNNING, step)
            if step >= MAX_STEPS:
                self.write_head(machine, Status.FINISHED, step)
                self.tell(f"{machine.number} has finished the run")
                self.leave(machine, 0)
            else:
                self.at(self.rng.uniform(15, 30), lambda: self._train(machine))

    def leave(
        self,
        machine: Machine,
        code: int,
        status: Status | None = None,
        *,
        reason: str = "exit",
        waiting: Waiting | None = None,
        off: bool = True,
    ) -> None:
        """The container ends: head if it is its own, exit.json, power off."""
        if not machine.works and not machine.booting:
            return
        machine.doomed = True
        self._last_beat(machine)
        machine.works, machine.booting = False, False
        if self.now_s >= self.bucket_down_s:
            head = self.head()
            own = head is not None and head.attempt == machine.number and head.status is not Status.FINISHED
            if status is not None and own:
                self.write_head(machine, status, self.step(), waiting)
            last = ContainerExit.model_validate({"exit_code": code, "reason": reason, "at_s": self.now_s})
            self.put(exit_name(machine.number), last.to_bytes())
        self.tell(f"{machine.number} leaves: {code} {reason}")
        if off and machine.state == "running":
            self.at(5, lambda: self._switch_off(machine))

    def _switch_off(self, machine: Machine) -> None:
        if machine.state == "running":
            machine.state, machine.stopping_s = "stopping", self.now_s
            self._record(machine, OperationKind.GUEST, "system", lag_s=self.rng.choice((0.0, 15.0)))
            self.snap()
            self.at(self.rng.uniform(2, 20), lambda: self._gone(machine, "stopped"))

    def silence(self, machine: Machine) -> None:
        """It hangs, or its network is gone: the VM runs, nobody hears of it."""
        machine.doomed = machine.doomed_by_itself = True
        self._last_beat(machine)
        machine.works = machine.booting = False
        self.tell(f"{machine.number} falls silent")

    def open_claim(self) -> Claim | None:
        """The newest, if it is open."""
        newest = self.claims().newest
        return newest if newest is not None and newest.ended is None else None


def heartbeat_number(name: str) -> int | None:
    """The attempt whose heartbeat has this name."""
    parts = name.split("/")
    return int(parts[1]) if len(parts) == 3 and parts[2] == heartbeat_name(1).rpartition("/")[2] else None
