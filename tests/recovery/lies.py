"""How a watchdog sees the world: late, twice, in another order, or not at all; and where it dies or falls asleep."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from infra.cloud.types import CloudError, Operation, OperationKind, Trouble, TroubleKind, Vm, VmList, VmOrder
from job.errors import Transient
from job.storage import Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.chunks import chunks
from job.storage.usage import Usage

from .truth import Truth, heartbeat_number

NO_ANSWER = Trouble(TroubleKind.UNAVAILABLE, "backendError", "no answer")


class Died(BaseException):
    """The watchdog is killed here."""


@dataclass
class Lies:
    """How often what goes wrong, for one watchdog."""

    fail: float = 0.0
    late: float = 0.0
    lose: float = 0.0
    die: float = 0.0
    sleep: float = 0.0


class Senses:
    """One watchdog's way to the world. `nap` lets the world go on while it sleeps."""

    def __init__(self, truth: Truth, rng: random.Random, lies: Lies, nap: Callable[[float], None]) -> None:
        self.truth, self.rng, self.lies, self.nap = truth, rng, lies, nap

    def before(self, what: str) -> None:
        """Any call may be the last one for a long time."""
        if self.lies.die and self.rng.random() < self.lies.die:
            self.truth.tell(f"a watchdog dies before: {what}")
            raise Died
        if self.lies.sleep and self.rng.random() < self.lies.sleep:
            self.truth.tell(f"a watchdog sleeps before: {what}")
            self.nap(self.rng.choice((40.0, 300.0, 3600.0)))

    def after(self, what: str) -> None:
        if self.lies.die and self.rng.random() < self.lies.die:
            self.truth.tell(f"a watchdog dies after: {what}")
            raise Died

    def fails(self) -> bool:
        return self.rng.random() < self.lies.fail


class LyingBucket:
    """The run's bucket. Reads are right or fail; a write's reply may be lost, and so may the write."""

    uri = "gs://bucket/runs/mine"
    usage = Usage()

    def __init__(self, senses: Senses, *, on_write: Callable[[str, bytes, bytes], None]) -> None:
        self._senses, self._truth, self._on_write = senses, senses.truth, on_write

    def location(self) -> str | None:
        return "US-CENTRAL1"

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        self._ask(f"read {name}")
        found = self._truth.store.get(name)
        if found is None:
            raise NotFound(name)
        return found.data, ObjectInfo(name, found.generation, len(found.data), None, found.updated_s)

    def stat(self, name: str) -> ObjectInfo | None:
        self._ask(f"stat {name}")
        number = heartbeat_number(name)
        if number is not None:
            beat_s = self._truth.beat_s(number)
            return None if beat_s is None else ObjectInfo(name, int(beat_s), 10, None, beat_s)
        found = self._truth.store.get(name)
        return None if found is None else ObjectInfo(name, found.generation, len(found.data), None, found.updated_s)

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        self._ask(f"write {name}")
        held = self._truth.store.get(name)
        if if_generation is not None and if_generation != (0 if held is None else held.generation):
            raise PreconditionFailed(name)
        new = b"".join(bytes(chunk) for chunk in chunks(data))
        self._on_write(name, b"" if held is None else held.data, new)
        stored = self._truth.put(name, new)
        self._senses.after(f"write {name}")
        if self._senses.fails():
            raise Transient(f"the reply of {name} is lost")
        return ObjectInfo(name, stored.generation, len(stored.data), None, stored.updated_s)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._ask(f"list {prefix}")
        for name in sorted(self._truth.store):
            if name.startswith(prefix):
                found = self._truth.store[name]
                yield ObjectInfo(name, found.generation, len(found.data), None, found.updated_s)

    def folders(self, prefix: str) -> Iterator[str]:
        raise NotImplementedError

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        raise NotImplementedError

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        raise NotImplementedError

    def _ask(self, what: str) -> None:
        self._senses.before(what)
        if self._truth.now_s < self._truth.bucket_down_s or self._senses.fails():
            raise Transient(f"{what}: no answer")


class LyingCloud:
    """Compute Engine. Looks may be late by up to a minute, incomplete, doubled and shuffled; calls may arrive late,
    twice, or without a reply."""

    project = "p"

    def __init__(self, senses: Senses, *, on_end: Callable[[str, str], None]) -> None:
        self._senses, self._truth, self._on_end = senses, senses.truth, on_end

    def list_vms(self, labels: Mapping[str, str]) -> VmList:
        self._ask("list")
        vms = [vm for vm in self._shown() if labels.items() <= vm.labels.items()]
        rng, lies = self._senses.rng, self._senses.lies
        if rng.random() < lies.lose:  # a zone that does not answer, or one page twice, or a VM left out
            kind = rng.choice(("zone", "twice", "lost"))
            if kind == "zone" and vms:
                zone = rng.choice(vms).zone
                return VmList(tuple(vm for vm in vms if vm.zone != zone), frozenset((zone,)))
            if kind == "twice":
                vms = [*vms, *vms]
            elif vms:
                vms.remove(rng.choice(vms))
        rng.shuffle(vms)
        return VmList(tuple(vms))

    def get_vm(self, zone: str, name: str) -> Vm | None:
        self._ask(f"get {name}")
        return next((vm for vm in self._shown() if vm.name == name and vm.zone == zone), None)

    def operations(self, zone: str, name: str, instance_id: str | None = None) -> tuple[Operation, ...]:
        self._ask(f"operations of {name}")
        rng, lies = self._senses.rng, self._senses.lies
        late_s = rng.uniform(0, 60) if rng.random() < lies.late else 0.0
        found: list[Operation] = []
        for machine in self._truth.machines:
            if machine.order.name != name or (instance_id is not None and machine.instance_id != instance_id):
                continue
            for seen_s, op in machine.operations:
                own = op.kind in (OperationKind.INSERT, OperationKind.DELETE, OperationKind.STOP)
                if seen_s + late_s > self._truth.now_s or (instance_id is None and not own):
                    continue
                if (
                    op.kind is OperationKind.INSERT
                    and op.ended_s is not None
                    and op.ended_s + late_s > self._truth.now_s
                ):
                    op = replace(op, done=False, ended_s=None, trouble=None)
                found.append(op)
        if rng.random() < lies.lose:
            found = rng.choice(([*found, *found], found[:-1]))
        rng.shuffle(found)
        return tuple(found)

    def insert(self, order: VmOrder) -> Operation:
        self._senses.before(f"insert {order.name}")
        if self._lost():
            raise CloudError(NO_ANSWER)
        if self._senses.fails():  # it arrives, sooner or later; nobody hears
            self._truth.at(self._senses.rng.choice((0.0, 20.0, 90.0)), lambda: self._truth.insert(order) and None)
            raise CloudError(NO_ANSWER)
        done = self._truth.insert(order)
        self._senses.after(f"insert {order.name}")
        return done

    def delete(self, zone: str, name: str) -> None:
        self._end("delete", name, OperationKind.DELETE)

    def stop(self, zone: str, name: str) -> None:
        self._end("stop", name, OperationKind.STOP)

    def _end(self, what: str, name: str, kind: OperationKind) -> None:
        self._senses.before(f"{what} {name}")
        if self._lost():
            raise CloudError(NO_ANSWER)
        self._on_end(what, name)
        for machine in self._truth.machines:
            if machine.order.name == name:
                self._truth.power_off(machine, kind, "watchdog")
        self._senses.after(f"{what} {name}")
        if self._senses.fails():
            raise CloudError(NO_ANSWER)

    def _shown(self) -> tuple[Vm, ...]:
        """What a list shows; a late one what it showed up to a minute ago."""
        rng, snapshots = self._senses.rng, self._truth.snapshots
        if rng.random() >= self._senses.lies.late:
            return snapshots[-1][1]
        at_s = self._truth.now_s - rng.uniform(0, 60)
        return next((vms for since_s, vms in reversed(snapshots) if since_s <= at_s), ())

    def _lost(self) -> bool:
        return self._truth.now_s < self._truth.cloud_down_s or self._senses.fails()

    def _ask(self, what: str) -> None:
        self._senses.before(what)
        if self._lost():
            raise CloudError(NO_ANSWER)
