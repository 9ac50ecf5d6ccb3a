"""One systemd unit of a local VM: its real file, and what systemd.service(5) says of the settings in it.

A setting that is not known here is refused, so that the files cannot grow past what was tried.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from infra.localcloud.vm.processes import die_with_parent

LISTS = ("Environment", "EnvironmentFile", "ExecStartPre", "ExecStart", "ExecStop", "ExecStopPost")
VALUES = (
    "StandardOutput",
    "TimeoutStopSec",
    "Restart",
    "RestartSec",
    "StartLimitBurst",
    "StartLimitAction",
    "SuccessExitStatus",
    "RestartPreventExitStatus",
)
SO_HERE_ANYWAY = (
    "Description",
    "After",  # units stop in the reverse order of their starts
    "Wants",
    "StandardError",  # with StandardOutput
    "KillMode",  # mixed
    "TimeoutStartSec",
    "StartLimitIntervalSec",  # infinity, where there is a StartLimitBurst
)
STOP, ENDED = signal.SIGTERM, signal.SIGCHLD
UNLIMITED = "1000000000"


class Unit:
    """A unit file, and its life in this process. `state`: folder of what others may know of it."""

    def __init__(self, file: Path, disk: Path, state: Path) -> None:
        self.name = file.name
        self._disk = disk
        self._state = state
        self._stopping = False
        self._settings: dict[str, list[str]] = {}
        for line in file.read_text().replace("%S", str(disk / "var/lib")).splitlines():
            if line and line[0] not in "#[":
                key, _, value = line.partition("=")
                self._settings.setdefault(key, []).append(value)
        if unknown := self._settings.keys() - {*LISTS, *VALUES, *SO_HERE_ANYWAY}:
            raise ValueError(f"{self.name}: {', '.join(sorted(unknown))} is not known to the local systemd")
        files = [Path(name).read_text() for name in self._settings.get("EnvironmentFile", [])]
        lines = "\n".join([*self._settings.get("Environment", []), *files]).splitlines()
        self._env = os.environ | dict(line.split("=", 1) for line in lines)
        self._out = Path(self.value("StandardOutput").removeprefix("append:"))
        self._stop_s = float(self.value("TimeoutStopSec", "90"))

    def value(self, key: str, default: str = "") -> str:
        """A setting; of several of one name the last."""
        return self._settings.get(key, [default])[-1]

    def live(self, power_off: Callable[[], None]) -> None:
        """From its first start to its last end. SIGTERM stops it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (STOP, ENDED))
        self._tell("pid", os.getpid())
        for restarts in range(int(self.value("StartLimitBurst", UNLIMITED))):
            self._tell("restarts", restarts)
            failed, prevented = self._run()
            again = {"": False, "no": False, "on-failure": failed, "always": True}[self.value("Restart")]
            if self._stopping or prevented or not again:
                break
            self._stopping = signal.sigtimedwait([STOP], float(self.value("RestartSec", "0.1"))) is not None
        else:
            if self.value("StartLimitAction") == "poweroff":
                power_off()
        (self._state / f"{self.name}.pid").unlink()

    def _tell(self, what: str, number: int) -> None:
        """In a file that is never half written."""
        fresh = self._state / f".{self.name}.{what}"
        fresh.write_text(str(number))
        fresh.rename(self._state / f"{self.name}.{what}")

    def _run(self) -> tuple[bool, bool]:
        """One start and its end: (whether it failed, whether that forbids another start)."""
        failed, prevented, told = self._do("ExecStartPre") != 0, False, {}
        if not failed and not self._stopping:
            main = self._spawn(self.value("ExecStart"), {})
            by_itself = self._ends(main, float(UNLIMITED), until_stopped=True)
            if not by_itself:
                self._do("ExecStop")
                os.kill(main.pid, STOP)  # send_signal would reap it first
                self._ends(main, self._stop_s)
            status = str(self._reap(main))
            failed = status not in ["0", *self.value("SuccessExitStatus").split()]
            prevented = status in self.value("RestartPreventExitStatus").split()
            told = {"EXIT_STATUS": status}
            if by_itself and not failed:
                self._do("ExecStop")
        failed = self._do("ExecStopPost", told) != 0 or failed
        return failed, prevented

    def _do(self, key: str, more: dict[str, str] | None = None) -> int:
        """Runs the commands of a list; the exit code of the first that failed and may not."""
        for line in self._settings.get(key, []):
            child = self._spawn(line.removeprefix("-"), more or {})
            self._ends(child, self._stop_s)
            if (status := self._reap(child)) and not line.startswith("-"):
                return status
        return 0

    def _spawn(self, line: str, more: dict[str, str]) -> "subprocess.Popen[bytes]":
        words: list[str] = []
        for word in shlex.split(line):
            words += self._env.get(word[1:], "").split() if word.startswith("$") else [word]
        with self._out.open("ab") as out:
            return subprocess.Popen(
                words,
                env=self._env | more,
                cwd=self._disk,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_begin,
            )

    def _ends(self, child: "subprocess.Popen[bytes]", limit_s: float, *, until_stopped: bool = False) -> bool:
        """Waits for the end of a child, which stays a zombie; False when the time is over or the unit is to stop."""
        end_s = time.monotonic() + limit_s
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or (until_stopped and self._stopping):
                return False
            got = signal.sigtimedwait([STOP, ENDED], left_s)
            self._stopping = self._stopping or (got is not None and got.si_signo == STOP)
        return True

    def _reap(self, child: "subprocess.Popen[bytes]") -> int:
        """Ends what is left of a child's processes; its exit code as a shell tells it."""
        os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
        return code if code >= 0 else 128 - code


def _begin() -> None:
    """In a unit's new process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    die_with_parent()
