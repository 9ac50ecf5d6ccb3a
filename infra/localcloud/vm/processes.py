"""What keeps the processes of a VM together: orphans stay in the tree, and the tree goes with its root. Linux only."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
ROOT_PID = "LOCAL_VM_KEEPER"
"""Variable of all processes of a VM, but not of its containers: the pid of the tree's root."""
_prctl = ctypes.CDLL(None).prctl


def adopt_orphans() -> None:
    """Descendants of this process whose parent ends become its children, instead of init's."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """The kernel sends this process `number` when its parent ends, whoever that is by then. Survives exec."""
    _prctl(PR_SET_PDEATHSIG, number)


def detach(work: Callable[[], None]) -> None:
    """Lets a new process, child of the tree's root as a daemon is of init, do `work` in a session of its own."""
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            os.setsid()
            while os.getppid() != int(os.environ[ROOT_PID]):
                time.sleep(0.001)  # the process between is about to end
            die_with_parent()
            try:
                work()
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)


def children(pid: int) -> list[int]:
    """Pids of the children of a process; none when it is gone."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def end_descendants() -> None:
    """SIGKILL for everything below this process, parents before their children, until nothing is left.

    Only where orphans are adopted, and for a process without threads that start others.
    """
    while True:
        generation = children(os.getpid())
        while generation:
            for pid in generation:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            generation = [child for pid in generation for child in children(pid)]
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def contain(command: Sequence[str], env: Mapping[str, str], cwd: Path, box: Path) -> None:
    """A container: when its first process has ended, so do all others. Its pid and exit code are files in `box`."""
    adopt_orphans()
    first = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    (box / "pid").write_text(f"{first.pid}\n")
    code = first.wait()
    end_descendants()
    (box / "code").write_text(str(code if code >= 0 else 128 - code))
