"""The local cloud's Compute Engine with VMs in which nothing runs: for what watches them from outside.

python -m benchmarks.empty_vms        prints its address, serves until it is ended
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.localcloud.compute.server import start
from infra.localcloud.compute.timers import Timings

PROJECT = "local-project"
ROOT = Path(__file__).resolve().parent.parent


class EmptyMachines:
    """VMs that are on or off, and nothing else."""

    def __init__(self) -> None:
        self._on: set[str] = set()
        self._exits: list[Callable[[str], None]] = []

    def boot(self, name: str, **what: object) -> None:
        """Switches it on."""
        self._on.add(name)

    def is_running(self, name: str) -> bool:
        """Whether it is on."""
        return name in self._on

    def on_exit(self, callback: Callable[[str], None]) -> None:
        """Called when one goes off."""
        self._exits.append(callback)

    def kill(self, name: str) -> None:
        """Switches it off."""
        if name in self._on:
            self._on.discard(name)
            for callback in self._exits:
                callback(name)

    def acpi_stop(self, name: str, grace_s: float) -> None:
        """Switches it off; nothing on it takes any time."""
        self.kill(name)

    def announce_preemption(self, name: str) -> None:
        """Nobody listens."""

    def partition(self, name: str, *, cut: bool = True) -> None:
        """It has no network."""

    def is_cut(self, port: int) -> bool:
        """None is."""
        return False

    def sick_gpu(self, name: str) -> None:
        """It has no GPU."""

    def out_of_memory(self, name: str) -> None:
        """It has no memory."""

    def token_account(self, token: str) -> str | None:
        """It has no tokens."""
        return None

    def owns_peer(self, port: int) -> str | None:
        """Nobody calls from inside."""
        return None

    def console(self, name: str) -> str:
        """It prints nothing."""
        return ""

    def forget(self, name: str) -> None:
        """It has no disk."""


@dataclass(frozen=True)
class EmptyCloud:
    """A server that runs."""

    url: str

    def control(self, order: Mapping[str, Any] | None = None) -> Any:
        """What there is; with an order: has it done (infra/localcloud/compute/control.py)."""
        data = None if order is None else json.dumps(order).encode()
        request = urllib.request.Request(f"{self.url}/_control", data=data, method="GET" if data is None else "POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def environment(self) -> dict[str, str]:
        """Which points the real client at it."""
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.url}/compute/v1/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        }


@contextlib.contextmanager
def serve() -> Iterator[EmptyCloud]:
    """In a process of its own until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.empty_vms"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield EmptyCloud(server.stdout.readline().strip())
        finally:
            server.terminate()


def main() -> None:
    """Serves; the cloud's own times are cut to a tenth of a second, so that only the watchdog's show."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with (
        tempfile.TemporaryDirectory(prefix="empty-vms-") as folder,
        start(Path(folder), EmptyMachines(), project=PROJECT, timings=Timings().scaled(100.0)) as server,
    ):
        print(server.url, flush=True)
        over.wait()


if __name__ == "__main__":
    main()
