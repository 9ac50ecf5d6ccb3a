"""A small Compute Engine in memory, behind the protocol that infra/compute.py keeps: VMs, disks, refusals on demand."""

from collections.abc import Mapping
from dataclasses import replace

from infra.cloud.types import CloudError, Disk, Operation, Trouble, TroubleKind, Vm, VmList, VmOrder, VmStatus
from infra.naming import run_labels, vm_name

BEGAN_S = 1_790_000_000.0


class FakeCloud:
    """Deletes at once. `troubles` names a method and what it raises; `asked` is what was asked, in order."""

    def __init__(self, project: str = "p") -> None:
        self.project = project
        self.vms: dict[str, Vm] = {}
        self.disks: dict[str, Disk] = {}
        self.unreachable: frozenset[str] = frozenset()
        self.asked: list[tuple[str, str]] = []
        self.troubles: dict[str, Trouble] = {}

    def add(self, run_uri: str, attempt: int, status: VmStatus = VmStatus.RUNNING, zone: str = "z-a") -> Vm:
        """A VM of an attempt."""
        vm = Vm(
            name=vm_name(run_uri, attempt),
            zone=zone,
            status=status,
            instance_id=str(1000 + attempt),
            machine_type="g2-standard-4",
            spot=True,
            labels=run_labels(run_uri, attempt),
            created_s=BEGAN_S,
            started_s=BEGAN_S + 10,
        )
        self.vms[vm.name] = vm
        return vm

    def list_vms(self, labels: Mapping[str, str]) -> VmList:
        self._ask("list_vms", "")
        return VmList(tuple(vm for vm in self.vms.values() if labels.items() <= vm.labels.items()), self.unreachable)

    def get_vm(self, zone: str, name: str) -> Vm | None:
        self._ask("get_vm", name)
        return self.vms.get(name)

    def operations(self, zone: str, name: str, instance_id: str | None = None) -> tuple[Operation, ...]:
        self._ask("operations", name)
        return ()

    def insert(self, order: VmOrder) -> Operation:
        raise NotImplementedError("no command of people but launch creates a VM")

    def delete(self, zone: str, name: str) -> None:
        self._ask("delete", name)
        self.vms.pop(name, None)

    def stop(self, zone: str, name: str) -> None:
        self._ask("stop", name)

    def preempt(self, zone: str, name: str) -> None:
        self._ask("preempt", name)
        self.vms[name] = replace(self.vms[name], status=VmStatus.STOPPING)

    def list_disks(self, labels: Mapping[str, str]) -> tuple[Disk, ...]:
        self._ask("list_disks", "")
        return tuple(disk for disk in self.disks.values() if labels.items() <= disk.labels.items())

    def delete_disk(self, zone: str, name: str) -> None:
        self._ask("delete_disk", name)
        self.disks.pop(name, None)

    def _ask(self, method: str, name: str) -> None:
        self.asked.append((method, name))
        if (trouble := self.troubles.get(method)) is not None:
            raise CloudError(trouble)


REFUSED = Trouble(TroubleKind.FORBIDDEN, "forbidden", "Required 'compute.instances.delete' permission")
NO_CLOUD = Trouble(TroubleKind.UNAVAILABLE, "connection refused", "nobody there")
