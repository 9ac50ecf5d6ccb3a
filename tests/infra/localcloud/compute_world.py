"""Machines that are not there, a clock that is turned by hand, and the real clients of a Compute Engine on loopback."""

import heapq
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from infra.localcloud.compute import ComputeServer
from infra.localcloud.compute.timers import guarded

PROJECT = "local-project"
ZONE = "us-central1-a"


class FakeMachines:
    """Does what it is told at once, and remembers it. A guest ignores ACPI until `obedient` is True."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.on: set[str] = set()
        self.cut_ports: set[int] = set()
        self.owners: dict[int, str] = {}
        self.every_peer: str | None = None
        self.tokens: dict[str, str] = {}
        self.obedient = True
        self._exits: list[Callable[[str], None]] = []

    def boot(
        self,
        name: str,
        *,
        instance_id: int,
        zone: str,
        machine_type: str,
        attributes: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
        scheduling: Mapping[str, Any] | None = None,
        service_account: str | None = None,
        scopes: Sequence[str] = (),
    ) -> None:
        if name in self.on:
            raise ValueError(f"{name} runs")
        self.calls.append(("boot", name, instance_id, zone, machine_type, dict(attributes), service_account))
        self.on.add(name)

    def is_running(self, name: str) -> bool:
        return name in self.on

    def on_exit(self, callback: Callable[[str], None]) -> None:
        self._exits.append(callback)

    def power_off(self, name: str) -> None:
        """The guest's own doing."""
        self.on.discard(name)
        for callback in self._exits:
            callback(name)

    def announce_preemption(self, name: str) -> None:
        self.calls.append(("notice", name))

    def acpi_stop(self, name: str, grace_s: float) -> None:
        self.calls.append(("acpi", name, grace_s))
        if self.obedient and name in self.on:
            self.power_off(name)

    def kill(self, name: str) -> None:
        self.calls.append(("kill", name))
        if name in self.on:
            self.power_off(name)

    def partition(self, name: str, *, cut: bool = True) -> None:
        self.calls.append(("partition", name, cut))

    def is_cut(self, port: int) -> bool:
        return port in self.cut_ports

    def sick_gpu(self, name: str) -> None:
        self.calls.append(("sick", name))

    def out_of_memory(self, name: str) -> None:
        self.calls.append(("oom", name))

    def token_account(self, token: str) -> str | None:
        return self.tokens.get(token)

    def owns_peer(self, port: int) -> str | None:
        return self.every_peer or self.owners.get(port)

    def console(self, name: str) -> str:
        return f"console of {name}\n"

    def forget(self, name: str) -> None:
        self.calls.append(("forget", name))

    def done(self, what: str) -> list[tuple[Any, ...]]:
        """The calls of one kind."""
        return [call for call in self.calls if call[0] == what]


class HandClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_790_000_000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.seconds

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._due, (self.seconds + seconds, next(self._numbers), action))

    def close(self) -> None:
        self._due = []


class Cloud:
    """A server with its machines, its clock, and clients."""

    def __init__(self, server: ComputeServer, machines: FakeMachines, clock: HandClock) -> None:
        self.server, self.machines, self.clock = server, machines, clock
        options = {"credentials": AnonymousCredentials(), "client_options": {"api_endpoint": server.url}}
        self.instances = compute_v1.InstancesClient(**options)
        self.operations = compute_v1.ZoneOperationsClient(**options)

    def settle(self) -> None:
        """Until the machines have done what they were told."""
        assert self.server.service.life.hands.wait(20)

    def pass_time(self, seconds: float) -> None:
        """Lets so much time pass; the machines keep up with it."""
        end = self.clock.seconds + seconds
        self.settle()
        while self.clock._due and self.clock._due[0][0] <= end:
            at_s, _, action = heapq.heappop(self.clock._due)
            self.clock.seconds = max(self.clock.seconds, at_s)
            guarded(action)
            self.settle()
        self.clock.seconds = end

    def control(self, do: str, **order: Any) -> dict[str, Any]:
        """An order over the wire."""
        reply = httpx.post(f"{self.server.url}/_control", json={"do": do, **order})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def insert(self, name: str = "vm-1", zone: str = ZONE, request_id: str | None = None, **changes: Any) -> Any:
        """Asks for a VM by the real client; the operation as it was answered."""
        request = compute_v1.InsertInstanceRequest(
            project=PROJECT, zone=zone, instance_resource=order(name, zone, **changes), request_id=request_id
        )
        return self.instances.insert_unary(request)

    def running(self, name: str = "vm-1", **changes: Any) -> Any:
        """A VM that runs and has booted."""
        self.insert(name, **changes)
        self.pass_time(60)
        found = self.get(name, changes.get("zone", ZONE))
        assert found.status == "RUNNING"
        return found

    def get(self, name: str = "vm-1", zone: str = ZONE) -> Any:
        """A VM as the real client sees it."""
        return self.instances.get(project=PROJECT, zone=zone, instance=name, retry=None)

    def operation(self, name: str, zone: str = ZONE) -> Any:
        """An operation as the real client sees it."""
        return self.operations.get(project=PROJECT, zone=zone, operation=name)

    def names(self) -> list[str]:
        """All VMs there are."""
        return [vm.name for vm in self.server.service.world.instances()]

    def kinds(self, name: str = "vm-1") -> list[str]:
        """What was done to the VMs of that name."""
        return [each.kind for each in self.server.service.world.operations() if each.target == name]


def order(
    name: str, zone: str = ZONE, *, machine_type: str = "g2-standard-8", spot: bool = True, **changes: Any
) -> Any:
    """What is asked for: a spot VM with an L4 that is deleted when it is preempted."""
    scheduling: dict[str, Any] = {"on_host_maintenance": "TERMINATE", "automatic_restart": not spot}
    if spot:
        scheduling |= {
            "provisioning_model": "SPOT",
            "instance_termination_action": "DELETE",
            "preemption_notice_duration": {"seconds": 120},
        }
    resource = {
        "name": name,
        "machine_type": f"zones/{zone}/machineTypes/{machine_type}",
        "scheduling": scheduling | changes.pop("scheduling", {}),
        "labels": {"baton": "run"},
        "metadata": {
            "items": [{"key": "startup-script", "value": "echo mine"}, {"key": "baton-role", "value": "attempt"}]
        },
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "source_image": "projects/any/global/images/any",
                    "disk_size_gb": 100,
                    "disk_type": f"zones/{zone}/diskTypes/pd-balanced",
                },
            }
        ],
        "network_interfaces": [{"network": "global/networks/default"}],
        "service_accounts": [{"email": "baton-vm@x.iam.gserviceaccount.com", "scopes": ["cloud-platform"]}],
    }
    return compute_v1.Instance(resource | changes)
