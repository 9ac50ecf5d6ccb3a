"""All that there is in this cloud now, and what happened of late; every change is a line of the journal first."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from infra.localcloud.compute.errors import OperationError
from infra.localcloud.compute.records import Event, Instance, Operation, operation_from_json
from infra.localcloud.journal import Journal

MOST_OPERATIONS = 20_000
KEEP_OPERATIONS_S = 14 * 24 * 3600.0
MOST_EVENTS = 10_000
SYSTEM = "system"
"""Who does what no person asked for."""


class World:
    """VMs and operations. Safe to use from several threads; `changed` wakes whoever waits for a change."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._instances: dict[tuple[str, str], Instance] = {}
        self._operations: dict[tuple[str, str], Operation] = {}
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._happened = 0
        self._closed = False
        self._journal = Journal(path)
        for entry in self._journal.read():
            self._apply(entry)
        self._forget_old()
        self._journal.restart([*map(_instance_entry, self.instances()), *map(_operation_entry, self.operations())])

    def close(self) -> None:
        """Ends the journal, and all waiting."""
        with self.changed:
            if not self._closed:
                self._closed = True
                self._journal.close()
                self.changed.notify_all()

    def instances(self, zone: str | None = None) -> list[Instance]:
        """The VMs of a zone, or of all, by name."""
        with self.lock:
            return sorted(
                (vm for vm in self._instances.values() if zone in (None, vm.zone)), key=lambda vm: (vm.name, vm.zone)
            )

    def instance(self, zone: str, name: str) -> Instance | None:
        """One VM."""
        with self.lock:
            return self._instances.get((zone, name))

    def same(self, instance: Instance) -> Instance | None:
        """As it is now; None when it is gone, even where another one has its name."""
        found = self.instance(instance.zone, instance.name)
        return found if found is not None and found.id == instance.id else None

    def operations(self, zone: str | None = None) -> list[Operation]:
        """The operations of a zone, or of all, oldest first."""
        with self.lock:
            return [operation for operation in self._operations.values() if zone in (None, operation.zone)]

    def operation(self, zone: str, name: str) -> Operation | None:
        """One operation, by name or number."""
        with self.lock:
            found = self._operations.get((zone, name))
            return found or next((each for each in self.operations(zone) if str(each.id) == name), None)

    def asked_before(self, zone: str, kind: str, request_id: str) -> Operation | None:
        """The operation that an earlier request with this requestId began."""
        with self.lock:
            for operation in self._operations.values():
                if request_id and (operation.zone, operation.kind, operation.request_id) == (zone, kind, request_id):
                    return operation
        return None

    def put(self, instance: Instance) -> Instance:
        """A VM, new or changed."""
        with self.changed:
            before = self._instances.get((instance.zone, instance.name))
            self._record(_instance_entry(instance))
            if before is None or before.status != instance.status or before.id != instance.id:
                self.tell(instance.status, instance.name, zone=instance.zone, id=str(instance.id))
        return instance

    def remove(self, instance: Instance) -> None:
        """It is gone."""
        with self.changed:
            self._record({"gone": [instance.zone, instance.name]})
            self.tell("GONE", instance.name, zone=instance.zone, id=str(instance.id))

    def begin(self, instance: Instance, kind: str, user: str, request_id: str = "") -> Operation:
        """An operation that somebody asked for."""
        number = new_id()
        name = (
            f"operation-{int(self.now() * 1000)}-{secrets.token_hex(6)}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
        )
        operation = Operation(
            number,
            name,
            instance.zone,
            kind,
            instance.name,
            instance.id,
            user,
            "PENDING",
            self.now(),
            request_id=request_id,
        )
        self._put_operation(operation)
        return operation

    def system_event(self, instance: Instance, kind: str, message: str) -> Operation:
        """What the platform did to a VM: an operation that is done."""
        at_s, number = self.now(), new_id()
        name = f"systemevent-{int(at_s * 1000)}-{secrets.token_hex(6)}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
        operation = Operation(
            number,
            name,
            instance.zone,
            kind,
            instance.name,
            instance.id,
            SYSTEM,
            "DONE",
            at_s,
            at_s,
            at_s,
            status_message=message,
        )
        self._put_operation(operation)
        self.tell(kind, instance.name, zone=instance.zone, id=str(instance.id))
        return operation

    def run(self, operation: Operation) -> None:
        """It is under way."""
        with self.changed:
            now = self._operations[operation.zone, operation.name]
            if now.status == "PENDING":
                self._put_operation(replace(now, status="RUNNING", started_s=self.now()))

    def finish(self, operation: Operation, error: OperationError | None = None) -> None:
        """It is over."""
        with self.changed:
            now = self._operations[operation.zone, operation.name]
            if not now.done:
                at_s = self.now()
                started_s = at_s if now.started_s is None else now.started_s
                self._put_operation(replace(now, status="DONE", started_s=started_s, ended_s=at_s, error=error))
                code = "" if error is None else error.code
                self.tell("done", operation.target, zone=operation.zone, kind=operation.kind, error=code)

    def wait_done(self, operation: Operation, timeout_s: float) -> Operation:
        """The operation, when it is over or the time is up."""
        with self.changed:
            key = operation.zone, operation.name
            self.changed.wait_for(lambda: self._closed or self._operations[key].done, timeout_s)
            return self._operations[key]

    def tell(self, what: str, vm: str = "", **details: Any) -> None:
        """An event, for those who follow."""
        with self.changed:
            self._happened += 1
            self._events.append(Event(self._happened, self.now(), what, vm, details))
            self.changed.notify_all()

    def events(self, after: int, timeout_s: float) -> list[Event]:
        """What happened after event number `after`: at once when there is something, else when there is."""
        with self.changed:
            self.changed.wait_for(lambda: self._closed or self._happened > after, timeout_s)
            return [event for event in self._events if event.number > after]

    def _put_operation(self, operation: Operation) -> None:
        with self.changed:
            self._record(_operation_entry(operation))
            self.changed.notify_all()

    def _record(self, entry: dict[str, Any]) -> None:
        if not self._closed:
            self._journal.add(entry)
            self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if "instance" in entry:
            instance = Instance(**entry["instance"])
            self._instances[instance.zone, instance.name] = instance
        elif "operation" in entry:
            operation = operation_from_json(entry["operation"])
            self._operations[operation.zone, operation.name] = operation
        else:
            zone, name = entry["gone"]
            self._instances.pop((zone, name), None)

    def _forget_old(self) -> None:
        oldest_s = self.now() - KEEP_OPERATIONS_S
        kept = [each for each in self._operations.values() if each.inserted_s >= oldest_s][-MOST_OPERATIONS:]
        self._operations = {(each.zone, each.name): each for each in kept}


def new_id() -> int:
    """A number as Compute Engine gives them: 19 digits."""
    return 10**18 + secrets.randbelow(8 * 10**18)


def _instance_entry(instance: Instance) -> dict[str, Any]:
    return {"instance": asdict(instance)}


def _operation_entry(operation: Operation) -> dict[str, Any]:
    return {"operation": asdict(operation)}
