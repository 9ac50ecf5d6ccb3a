"""What every test may rely on: no other machine, none of the developer's settings, one thread, no hub."""

import functools
import os
import shutil
import socket
import subprocess
import tempfile
from typing import Any

import pytest

RIGHTS = {
    "the right to mount": (
        "mount -t tmpfs tmpfs {} && umount {}",
        "run the tests as root (container: --cap-add SYS_ADMIN)",
    ),
    "the right to unshare": ("unshare --pid --fork true", "run the tests as root (container: --cap-add SYS_ADMIN)"),
}
"""What `needs_system` may ask for beside programs: the command that shows whether it is there, and how to get it."""
LOOPBACK = ("127.", "localhost", "::1", "0.0.0.0")


def pytest_configure() -> None:
    """Cleans the environment before what reads it at import (torch, the hub's client) is imported."""
    for name in [name for name in os.environ if name.startswith("BATON_") and name != "BATON_TEST_BUCKET"]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Two processes with two threads each on two cores ran 4 to 20 times slower than with one each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, by name, a test that needs what the system does not have; with CI=true that is a failure."""
    for marker in item.iter_markers("needs_system"):
        if (reason := _lack([need for need in marker.args if not _has(need)])) is not None:
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@functools.cache
def _has(need: str) -> bool:
    if need not in RIGHTS:
        return shutil.which(need) is not None
    with tempfile.TemporaryDirectory() as folder:
        command = RIGHTS[need][0].replace("{}", folder)
        return subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0


def _lack(missing: list[str]) -> str | None:
    """What to say of the needs that are not met, None when there are none."""
    fixes = dict.fromkeys(RIGHTS[need][1] if need in RIGHTS else "sudo make system-deps" for need in missing)
    return f"needs {', '.join(missing)}: {'; '.join(fixes)}" if missing else None


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
