"""The root of a local VM's processes: PID 1 and hypervisor in one. One per VM, for as long as it is on.

    python -m infra.localcloud.vm.keeper [STARTUP-SCRIPT]

Whoever switched the VM on holds the other end of stdin, and writes `acpi SECONDS` (the power button; after so long the
power is cut) or `off` (cuts it now). Its end of file means that he is gone: the VM goes too. stdout is the serial port.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from infra.localcloud.vm.processes import ROOT_PID, adopt_orphans, children, die_with_parent, end_descendants

LAST_WORDS_S = 2.0  # between SIGTERM and SIGKILL for what no unit has stopped: systemd gives it more, the platform less


class Machine:
    """What happens to it while it is on."""

    def __init__(self) -> None:
        self._waker, self._wakes = socket.socketpair()
        self._off_s = float("inf")  # time.monotonic() at which the power is cut
        self._shutting_down = False

    def run(self, startup_script: Sequence[str]) -> None:
        """From the switch to the end of the last process."""
        adopt_orphans()
        die_with_parent(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._wakes.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        os.environ[ROOT_PID] = str(os.getpid())
        if startup_script:
            subprocess.Popen(["bash", *startup_script], stdin=subprocess.DEVNULL, start_new_session=True)
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ, self._hear)
            selector.register(self._waker, selectors.EVENT_READ, self._signalled)
            while (left_s := self._off_s - time.monotonic()) > 0:
                for key, _ in selector.select(None if left_s == float("inf") else left_s):
                    key.data()
        end_descendants()

    def _hear(self) -> None:
        said = os.read(0, 4096).decode()
        if not said or "off" in said.split():
            self._off_s = 0.0
            return
        for line in said.splitlines():
            self._off_s = min(self._off_s, time.monotonic() + float(line.removeprefix("acpi ")))
            subprocess.Popen(["systemctl", "poweroff"], stdin=subprocess.DEVNULL, start_new_session=True)

    def _signalled(self) -> None:
        for number in self._waker.recv(4096):
            if number == signal.SIGTERM:
                self._off_s = 0.0
            elif number == signal.SIGUSR1:  # the units have stopped
                self._shut_down()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            if self._shutting_down:
                self._off_s = 0.0

    def _shut_down(self) -> None:
        self._shutting_down = True
        for pid in children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self._off_s = min(self._off_s, time.monotonic() + LAST_WORDS_S)


if __name__ == "__main__":
    Machine().run(sys.argv[1:])
