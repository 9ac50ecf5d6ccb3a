"""The VMs of a local cloud: each a process tree with a disk of its own, which boots the repository's startup script.

Whoever answers for Compute Engine calls this; how long things take in the cloud (insert, boot, notice, grace) is its
business. Every time here is given in real seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Machines:
    """All VMs of one local cloud. Safe to use from several threads. `close`, or its process's end, ends them all.

    `root`: folder for the disks. `policy`: the storage server's file of tokens and rights, written here. `image_env`:
    what an image would set for its containers (a cache that is baked in), beside what `docker run` gives.
    """

    def __init__(
        self,
        root: Path,
        *,
        project: str,
        storage_url: str,
        compute_url: str,
        policy: Path,
        image_env: Mapping[str, str] | None = None,
        scale: float = 1.0,
    ) -> None:
        """`compute_url`: as in CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE. `scale`: how much faster the cloud is."""
        raise NotImplementedError

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
        """Switches a VM on; returns when its metadata server answers and its first process runs.

        An instance_id seen before under this name finds its disk again, another an empty one. `scheduling`: as in the
        API's resource (provisioningModel, onHostMaintenance...). Of `attributes`, what carries code is replaced by
        the repository's own (infra/vm). Raises ValueError when a VM of that name runs.
        """
        raise NotImplementedError

    def is_running(self, name: str) -> bool:
        """Whether any process of it lives."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Of the VMs that run."""
        raise NotImplementedError

    def on_exit(self, callback: Callable[[str], None]) -> None:
        """`callback(name)` is called, in a thread of this class, after the last process of a VM is gone: it powered
        off by itself, or was made to.
        """
        raise NotImplementedError

    def announce_preemption(self, name: str) -> None:
        """The metadata server says `preempted` TRUE from now on; whoever waits for the change hears of it."""
        raise NotImplementedError

    def acpi_stop(self, name: str, grace_s: float) -> None:
        """Presses the power button: services stop in systemd's order; after `grace_s` the power is cut. Returns at
        once; `on_exit` tells the end. Nothing for a VM that does not run.
        """
        raise NotImplementedError

    def kill(self, name: str) -> None:
        """Cuts the power: SIGKILL for every process of it at once. Returns when they are gone."""
        raise NotImplementedError

    def partition(self, name: str, *, cut: bool = True) -> None:
        """Takes the VM's network away, or gives it back: metadata refuses it, and `is_cut` tells the other servers."""
        raise NotImplementedError

    def is_cut(self, port: int) -> bool:
        """Whether the client on this port of 127.0.0.1 is a process of a VM without network. Cheap while there is
        none.
        """
        raise NotImplementedError

    def sick_gpu(self, name: str) -> None:
        """The VM's GPU fails from now on, as `nvidia-smi` tells it. For a VM that does not run yet: once it boots."""
        raise NotImplementedError

    def out_of_memory(self, name: str) -> None:
        """What the kernel does when memory is short: SIGKILL for the container, and Docker is told why."""
        raise NotImplementedError

    def metadata_url(self, name: str) -> str:
        """Of the VM's metadata server, `http://127.A.B.C:PORT`; raises KeyError for a VM that never booted."""
        raise NotImplementedError

    def token_account(self, token: str) -> str | None:
        """The service account that a VM's token stands for; None for a token that no VM was given."""
        raise NotImplementedError

    def owns_peer(self, port: int) -> str | None:
        """The VM whose process has this port of 127.0.0.1, as the client's end of a connection."""
        raise NotImplementedError

    def console(self, name: str) -> str:
        """What the VM printed since its last boot, as its serial port has it; empty for one that never booted."""
        raise NotImplementedError

    def forget(self, name: str) -> None:
        """Deletes the disk of a VM that does not run, and its tokens."""
        raise NotImplementedError

    def close(self) -> None:
        """Cuts the power of all, and ends their metadata servers."""
        raise NotImplementedError
