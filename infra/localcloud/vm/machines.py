"""The VMs of a local cloud: each a process tree with a disk of its own, which boots the repository's startup script.

Whoever answers for Compute Engine calls this; how long things take in the cloud (insert, boot, notice, grace) is its
business. Every time here is given in real seconds.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.localcloud.vm.box import REPOSITORY, Box, gpus_of
from infra.localcloud.vm.guest import Guest
from infra.localcloud.vm.metadata import MetadataServer, serve_metadata
from infra.localcloud.vm.sockets import root_of_port
from infra.localcloud.vm.tokens import Tokens
from infra.vm import boot_attributes

GONE_S = 30.0  # a tree that is still there so long after SIGKILL is a bug


@dataclass(frozen=True)
class _Vm:
    """One that is on, or was."""

    box: Box
    server: MetadataServer
    serving: contextlib.ExitStack
    address: str
    keeper: "subprocess.Popen[bytes]"

    @property
    def is_on(self) -> bool:
        return self.keeper.poll() is None

    def tell(self, word: str) -> None:
        """Says it to the keeper, unless it is gone."""
        assert self.keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self.keeper.stdin.fileno(), f"{word}\n".encode())


class Machines:
    """All VMs of one local cloud. Safe to use from several threads. `close`, or its process's end, ends them all.

    `root`: folder for the disks. `policy`: the storage server's file of tokens and rights, written here, for
    the objects of `bucket`. `image_env`:
    what an image would set for its containers (a cache that is baked in), beside what `docker run` gives. `pull_s`:
    how long `docker pull` takes.
    """

    def __init__(
        self,
        root: Path,
        *,
        project: str,
        storage_url: str,
        compute_url: str,
        secrets_url: str = "",
        policy: Path,
        bucket: str = "*",
        image_env: Mapping[str, str] | None = None,
        scale: float = 1.0,
        pull_s: float = 0.0,
    ) -> None:
        """`compute_url`, `secrets_url`: as in CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE and ..._SECRETMANAGER. `scale`:
        how much faster the cloud is."""
        self._root = root.absolute()
        self._project = project
        self._urls = {"STORAGE_EMULATOR_HOST": storage_url, "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": compute_url}
        if secrets_url:
            self._urls["CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"] = secrets_url
        self._image_env = dict(image_env or {})
        self._scale = scale
        self._pull_s = pull_s
        self._tokens = Tokens(policy, bucket)
        self._lock = threading.RLock()
        self._vms: dict[str, _Vm] = {}
        self._numbers = itertools.count()
        self._broken: dict[str, dict[str, bool]] = {}
        self._cut: set[str] = set()
        self._callbacks: list[Callable[[str], None]] = []
        # The kernel tells a keeper that its parent is gone when the thread that started it is: this one stays.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keepers")

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
        the repository's own (infra/vm); without a startup script the VM idles. Raises ValueError when one of that
        name runs.
        """
        own = boot_attributes()
        attributes = {key: own.get(key, value) for key, value in attributes.items()}
        if "startup-script" in attributes:
            attributes |= own
        guest = Guest(
            name,
            self._project,
            zone,
            machine_type,
            instance_id,
            attributes,
            dict(scheduling or {}),
            service_account,
            tuple(scopes),
        )
        server = MetadataServer(guest, lambda: self._token(name, service_account), scale=self._scale)
        with self._lock, contextlib.ExitStack() as stack:
            if self.is_running(name):
                raise ValueError(f"{name} runs already")
            box = Box(self._root / name)
            box.make(instance_id)
            box.set_hardware(
                gpus=gpus_of(machine_type, attributes.get("baton-gpu", "none")),
                entrypoint=str(REPOSITORY / "entrypoint.sh"),
                image_env=box.image_env(self._image_env),
                pull_s=self._pull_s,
                **{"gpu_sick": False, "registry_down": False} | self._broken.get(name, {}),
            )
            number = next(self._numbers)
            address = stack.enter_context(serve_metadata(server, f"127.77.{number // 250}.{number % 250 + 1}"))
            server.cut(name in self._cut)
            env = box.env(self._urls | {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address})
            script = [str(box.startup_script)] if "startup-script" in attributes else []
            keeper = self._starter.submit(_start_keeper, box, script, env).result()
            self._vms[name] = vm = _Vm(box, server, stack.pop_all(), address, keeper)
        threading.Thread(target=self._watch, args=(name, vm), name=f"watch {name}", daemon=True).start()

    def _token(self, name: str, account: str | None) -> str | None:
        return None if account is None else self._tokens.of(name, account)

    def _watch(self, name: str, vm: _Vm) -> None:
        """Until its last process is gone."""
        vm.keeper.wait()
        vm.serving.close()
        assert vm.keeper.stdin is not None
        vm.keeper.stdin.close()
        for callback in list(self._callbacks):
            callback(name)

    def is_running(self, name: str) -> bool:
        """Whether any process of it lives."""
        with self._lock:
            return name in self._vms and self._vms[name].is_on

    def names(self) -> list[str]:
        """Of the VMs that run."""
        with self._lock:
            return [name for name, vm in self._vms.items() if vm.is_on]

    def on_exit(self, callback: Callable[[str], None]) -> None:
        """`callback(name)` is called, in a thread of this class, after the last process of a VM is gone: it powered
        off by itself, or was made to.
        """
        self._callbacks.append(callback)

    def announce_preemption(self, name: str) -> None:
        """The metadata server says `preempted` TRUE from now on; whoever waits for the change hears of it."""
        if (vm := self._on(name)) is not None:
            vm.server.announce_preemption()

    def acpi_stop(self, name: str, grace_s: float) -> None:
        """Presses the power button: services stop in systemd's order; after `grace_s` the power is cut. Returns at
        once; `on_exit` tells the end. Nothing for a VM that does not run.
        """
        if (vm := self._on(name)) is not None:
            vm.tell(f"acpi {grace_s}")

    def kill(self, name: str) -> None:
        """Cuts the power: SIGKILL for every process of it at once. Returns when they are gone."""
        if (vm := self._on(name)) is not None:
            vm.tell("off")
            vm.keeper.wait(GONE_S)

    def partition(self, name: str, *, cut: bool = True) -> None:
        """Takes the VM's network away, or gives it back: metadata refuses it, and `is_cut` tells the other servers."""
        with self._lock:
            (self._cut.add if cut else self._cut.discard)(name)
            if name in self._vms:
                self._vms[name].server.cut(cut)

    def is_cut(self, port: int) -> bool:
        """Whether the client on this port of 127.0.0.1 is a process of a VM without network. Cheap while there is
        none.
        """
        return bool(self._cut) and self.owns_peer(port) in self._cut

    def sick_gpu(self, name: str) -> None:
        """The VM's GPU fails from now on, as `nvidia-smi` tells it. For a VM that does not run yet: once it boots."""
        self._break(name, "gpu_sick")

    def registry_down(self, name: str) -> None:
        """No image can be pulled on the VM from now on; for one that does not run yet: once it boots."""
        self._break(name, "registry_down")

    def _break(self, name: str, what: str) -> None:
        with self._lock:
            self._broken.setdefault(name, {})[what] = True
            if (vm := self._on(name)) is not None:
                vm.box.set_hardware(**{what: True})

    def out_of_memory(self, name: str) -> None:
        """What the kernel does when memory is short: SIGKILL for the container, and Docker is told why."""
        vm = self._on(name)
        if vm is not None and (vm.box.container / "pid").exists():
            (vm.box.container / "oom").touch()
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((vm.box.container / "pid").read_text()), signal.SIGKILL)

    def metadata_url(self, name: str) -> str:
        """Of the VM's metadata server, `http://127.A.B.C:PORT`; raises KeyError for a VM that never booted."""
        return f"http://{self._vms[name].address}"

    def token_account(self, token: str) -> str | None:
        """The service account that a VM's token stands for; None for a token that no VM was given."""
        return self._tokens.account(token)

    def owns_peer(self, port: int) -> str | None:
        """The VM whose process has this port of 127.0.0.1, as the client's end of a connection."""
        with self._lock:
            roots = {vm.keeper.pid: name for name, vm in self._vms.items() if vm.is_on}
        found = root_of_port(port, roots) if roots else None
        return None if found is None else roots[found]

    def console(self, name: str) -> str:
        """What the VM printed since it was created; empty for one that never booted."""
        box = Box(self._root / name)
        for file in (box.console, box.serial_port):
            if file.exists():
                return file.read_text(errors="replace")
        return ""

    def forget(self, name: str) -> None:
        """Deletes the disk of a VM that does not run, and its token. Raises ValueError for one that runs."""
        with self._lock:
            if self.is_running(name):
                raise ValueError(f"{name} runs")
            for known in (self._vms, self._broken):
                known.pop(name, None)
            self._cut.discard(name)
            self._tokens.take_back(name)
            shutil.rmtree(self._root / name, ignore_errors=True)

    def close(self) -> None:
        """Cuts the power of all, and ends their metadata servers."""
        with self._lock:
            for vm in self._vms.values():
                if vm.is_on:
                    vm.tell("off")
            for vm in self._vms.values():
                vm.keeper.wait(GONE_S)
        self._starter.shutdown()

    def _on(self, name: str) -> _Vm | None:
        with self._lock:
            vm = self._vms.get(name)
            return vm if vm is not None and vm.is_on else None


def _start_keeper(box: Box, script: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    with box.serial_port.open("wb") as serial_port:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.localcloud.vm.keeper", *script],
            cwd=box.disk,
            env=env,
            stdin=subprocess.PIPE,
            stdout=serial_port,
            stderr=serial_port,
            start_new_session=True,
            bufsize=0,
        )
