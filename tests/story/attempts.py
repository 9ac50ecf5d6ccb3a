"""Starting attempts as real processes, killing them from outside, and reading what they left in the run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0  # for conditions that take a second; a machine with other work on it may be slow


def wait_until(condition: Callable[[], bool], what: str, *, wait_s: float = WAIT_S) -> None:
    """Waits for a condition, not for a time. Fails with `what` when it does not come."""
    end_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end_s, f"{what}: not within {wait_s:.0f} s"
        time.sleep(0.002)  # between two looks


@dataclass
class Process:
    """One attempt that runs, cold or from the fork server."""

    pid: int
    folder: Path
    wait_for_exit: Callable[[float], int]
    name: str = "attempt"
    exit_code: int | None = None

    def wait(self, wait_s: float = WAIT_S) -> int:
        """Its exit code; -N for signal N."""
        if self.exit_code is None:
            self.exit_code = self.wait_for_exit(wait_s)
        return self.exit_code

    def kill(self, number: signal.Signals) -> None:
        """Sends a signal to the agent alone, as `docker stop` and `kill` do."""
        os.kill(self.pid, number)

    @property
    def err(self) -> str:
        """What it printed on stderr so far."""
        return (self.folder / f"{self.name}.err").read_text(errors="replace")

    def children(self) -> list[int]:
        """Pids of the spawner and, below it, the trainer."""
        found: list[int] = []
        for parent in [self.pid, *found]:
            try:
                text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
            except FileNotFoundError:
                continue
            found += [int(pid) for pid in text.split()]
        return found

    def trainer_pid(self) -> int | None:
        """Pid of the trainer, None when there is none right now."""
        for spawner in _children_of(self.pid):
            for trainer in _children_of(spawner):
                return trainer
        return None


def _children_of(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass
class ForkServer:
    """The client's end of tests/story/forkserver.py."""

    path: Path
    process: subprocess.Popen[bytes]
    count: int = field(default=0)

    @classmethod
    def start(cls, folder: Path) -> "ForkServer":
        """Starts the server and waits until it has imported everything."""
        path = folder / "forkserver.sock"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.story.forkserver", str(path)], cwd=ROOT, env=attempt_env({})
        )

        def answers() -> bool:
            assert process.poll() is None, "the fork server ended"
            return path.exists()

        wait_until(answers, "fork server")
        return cls(path, process)

    def attempt(
        self,
        argv: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        patches: Sequence[str] = (),
    ) -> Process:
        """Starts `python -m job ARGV` in `folder`. `patches`: functions of tests (module:function) called first."""
        self.count += 1
        name = f"attempt-{self.count}"
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        request = {"argv": list(argv), "cwd": str(folder), "env": attempt_env(env or {}), "patches": list(patches)}
        with open(folder / f"{name}.out", "wb") as out, open(folder / f"{name}.err", "wb") as err:
            socket.send_fds(connection, [json.dumps(request).encode()], [out.fileno(), err.fileno()])
        lines = connection.makefile("r")
        pid = int(lines.readline())

        def wait_for_exit(wait_s: float) -> int:
            connection.settimeout(wait_s)
            with connection:
                return int(lines.readline())

        return Process(pid, folder, wait_for_exit, name)

    def stop(self) -> None:
        """Ends the server."""
        self.process.kill()
        self.process.wait()


def cold_attempt(argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, name: str = "cold") -> Process:
    """Starts `python -m job ARGV` as a user's shell would."""
    with open(folder / f"{name}.out", "wb") as out, open(folder / f"{name}.err", "wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "job", *argv],
            cwd=folder,
            env=attempt_env({"PYTHONPATH": str(ROOT), **(env or {})}),
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Process(process.pid, folder, lambda wait_s: process.wait(wait_s), name)


def attempt_env(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of an attempt: nothing of the developer's BATON_* settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BATON_")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **extra}
