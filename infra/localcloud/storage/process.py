"""The server in a process of its own, for tests and benchmarks; its faults are armed over the wire."""

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
BUCKET = "baton"
"""Is there from the start."""


@dataclass(frozen=True)
class StorageProcess:
    """A server that runs."""

    url: str
    pid: int

    def arm(self, kind: str, **rule: Any) -> None:
        """One more fault (infra/localcloud/storage/faults.py says which there are)."""
        self._ask("POST", {"kind": kind, **rule})

    def requests(self, operation: str = "") -> list[dict[str, Any]]:
        """What was asked since `clear`, or those requests of it."""
        asked = self._ask("GET")["requests"]
        return [entry for entry in asked if operation in ("", entry["operation"])]

    def armed(self) -> list[dict[str, Any]]:
        """The faults that have not struck yet."""
        armed: list[dict[str, Any]] = self._ask("GET")["armed"]
        return armed

    def clear(self) -> None:
        """No faults, nothing asked."""
        self._ask("DELETE")

    def _ask(self, method: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_faults", data=data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serve(*flags: str) -> Iterator[StorageProcess]:
    """Serves until the end of the block."""
    command = [sys.executable, "-m", "infra.localcloud.storage", "--bucket", BUCKET, *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield StorageProcess(server.stdout.readline().strip(), server.pid)
        finally:
            server.terminate()
