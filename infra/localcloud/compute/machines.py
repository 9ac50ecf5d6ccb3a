"""What the API asks of the machines behind it: infra/localcloud/vm has them, tests have their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Machines(Protocol):
    """The VMs as machines, by name. infra/localcloud/vm/machines.py says what each of these does."""

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
        """Switches a VM on."""

    def is_running(self, name: str) -> bool:
        """Whether any process of it lives."""

    def on_exit(self, callback: Callable[[str], None]) -> None:
        """Calls back after the last process of a VM is gone."""

    def announce_preemption(self, name: str) -> None:
        """The metadata server says so."""

    def acpi_stop(self, name: str, grace_s: float) -> None:
        """Presses the power button; cuts the power after the grace."""

    def kill(self, name: str) -> None:
        """Cuts the power."""

    def partition(self, name: str, *, cut: bool = True) -> None:
        """Takes the network away, or gives it back."""

    def is_cut(self, port: int) -> bool:
        """Whether a VM without network has this port."""

    def sick_gpu(self, name: str) -> None:
        """The GPU fails."""

    def out_of_memory(self, name: str) -> None:
        """The kernel kills the container."""

    def token_account(self, token: str) -> str | None:
        """Whose token it is."""

    def owns_peer(self, port: int) -> str | None:
        """Which VM has this port."""

    def console(self, name: str) -> str:
        """What the VM printed."""

    def forget(self, name: str) -> None:
        """Deletes its disk."""
