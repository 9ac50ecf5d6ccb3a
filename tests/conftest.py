"""What every test may rely on: no other machine, none of the developer's settings, one thread, no hub."""

import os
import shutil
import socket
from typing import Any

import pytest

LOOPBACK = ("127.", "localhost", "::1", "0.0.0.0")


def pytest_configure() -> None:
    """Cleans the environment before what reads it at import (torch, the hub's client) is imported."""
    for name in [name for name in os.environ if name.startswith("BATON_")]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Two processes with two threads each on two cores ran 4 to 20 times slower than with one each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, by name, a test whose programs are missing; with CI=true that is a failure."""
    for marker in item.iter_markers("needs_system"):
        missing = [program for program in marker.args if shutil.which(program) is None]
        if missing:
            reason = f"needs {', '.join(missing)}: sudo make system-deps"
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection of the test's own process to another machine."""
    if request.node.get_closest_marker("network_allowed"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(LOOPBACK):
            raise PermissionError(f"a test opened a connection to {address}: tests talk to loopback only")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
