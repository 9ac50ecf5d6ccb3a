"""The Compute Engine in memory that creates VMs too, or refuses to."""

from collections.abc import Mapping

from fake_cloud import FakeCloud

from infra.cloud.types import CloudError, Operation, OperationKind, Trouble, Vm, VmList, VmOrder, VmStatus


class CreatingCloud(FakeCloud):
    """Creates VMs too, unless it is told to refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[VmOrder] = []
        self.refuses: Trouble | None = None
        self.inside: Trouble | None = None
        """A refusal inside the operation."""
        self.now_s = 0.0
        self.going: dict[str, int] = {}
        """VMs that are stopping, and for how many lists."""

    starts_as = VmStatus.STARTING

    def insert(self, order: VmOrder) -> Operation:
        self._ask("insert", order.name)
        self.orders.append(order)
        if self.refuses is not None:
            raise CloudError(self.refuses)
        if self.inside is None:
            self.vms[order.name] = Vm(
                order.name,
                order.zone,
                self.starts_as,
                "7",
                order.machine_type,
                order.spot,
                order.labels,
                self.now_s,
            )
        return Operation("op", OperationKind.INSERT, True, "w", "7", self.now_s, trouble=self.inside)

    def list_vms(self, labels: Mapping[str, str]) -> VmList:
        found = super().list_vms(labels)
        for name in [*self.going]:
            self.going[name] -= 1
            if not self.going[name]:
                del self.going[name], self.vms[name]
        return found

    def count(self, method: str) -> int:
        return len([name for name, _ in self.asked if name == method])
