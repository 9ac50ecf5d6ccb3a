"""Starting attempts as real processes, killing them from outside, and reading what they left in the run."""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from job.run.records import transient_retry
from job.storage import Bucket, NotFound, open_bucket

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

    def kill_group(self, number: signal.Signals) -> None:
        """Sends a signal to agent, spawner and trainer alike, as a terminal does on Ctrl-C."""
        os.killpg(self.pid, number)

    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return lives(self.pid)

    @property
    def err(self) -> str:
        """What it printed on stderr so far."""
        return (self.folder / f"{self.name}.err").read_text(errors="replace")

    def children(self) -> list[int]:
        """Pids of the agent's own children: the spawner."""
        return _children_of(self.pid)

    def trainer_pid(self) -> int | None:
        """Pid of the trainer, None when there is none right now."""
        for spawner in self.children():
            for trainer in _children_of(spawner):
                return trainer
        return None


def lives(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
        *,
        cwd: Path,
        folder: Path,
        env: Mapping[str, str] | None = None,
        patches: Sequence[str] = (),
    ) -> Process:
        """Starts `python -m job ARGV` in `cwd`, its output into `folder`.

        `patches`: functions of the tests (module:function) that the new process calls before anything else.
        """
        self.count += 1
        name = f"attempt-{self.count}"
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        request = {"argv": list(argv), "cwd": str(cwd), "env": attempt_env(env or {}), "patches": list(patches)}
        with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
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


def cold_attempt(
    argv: Sequence[str], *, cwd: Path, folder: Path, env: Mapping[str, str] | None = None, name: str = "cold"
) -> Process:
    """Starts `python -m job ARGV` as a user's shell would."""
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "job", *argv],
            cwd=cwd,
            env=attempt_env({"PYTHONPATH": str(ROOT), **(env or {})}),
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Process(process.pid, folder, lambda wait_s: process.wait(wait_s), name)


@dataclass
class Run:
    """One run of the story's recipe, in a folder of its own, and the attempts at it."""

    server: ForkServer
    workplace: Path
    folder: Path
    settings: list[str] = field(default_factory=list)
    """KEY=VALUE over the recipe, the same for every attempt."""
    cloud_uri: str = ""
    """Where the run is in Cloud Storage, if it is there."""

    @property
    def bucket(self) -> Path:
        """Where the run's objects lie as files, unless it is in Cloud Storage."""
        assert not self.cloud_uri
        return self.folder / "run"

    @property
    def uri(self) -> str:
        """The run's URI."""
        return self.cloud_uri or f"file://{self.bucket}"

    @cached_property
    def store(self) -> Bucket:
        """The run's objects, wherever they are."""
        return open_bucket(self.uri)

    def argv(self) -> list[str]:
        """The command line of every attempt."""
        return ["story.toml", "--run", self.uri, *(f"--set={setting}" for setting in self.settings)]

    def start(self, *, patches: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Process:
        """Starts an attempt from the fork server."""
        return self.server.attempt(self.argv(), cwd=self.workplace, folder=self.folder, env=env, patches=patches)

    def start_at(self, place: str, *patches: str, env: Mapping[str, str] | None = None) -> Process:
        """Starts an attempt and returns when it is at `place` (tests/story/places.py), where it stays."""
        self.marker(place).unlink(missing_ok=True)
        self._go_on(place).unlink(missing_ok=True)
        attempt = self.start(
            patches=[f"tests.story.places:{name}" for name in (place, *patches)],
            env={"BATON_TEST_PLACE": str(self.marker(place)), **(env or {})},
        )
        self.wait_at(place, attempt)
        return attempt

    def wait_at(self, place: str, attempt: Process) -> None:
        """Returns when the attempt is at `place`."""
        wait_until(lambda: self.marker(place).exists() or not attempt.lives(), f"{place}\n{attempt.err}")
        assert self.marker(place).exists(), attempt.err

    def go_on(self, place: str) -> None:
        """Lets whoever stays at `place` go on."""
        self._go_on(place).touch()

    def marker(self, place: str) -> Path:
        """The file that a process makes when it gets to `place`."""
        return self.folder / f"at-{place}"

    def _go_on(self, place: str) -> Path:
        return self.folder / f"at-{place}.go"

    def kill_at(self, place: str, number: signal.Signals, *patches: str, env: Mapping[str, str] | None = None) -> int:
        """Lets an attempt go to `place` and kills its agent there; its exit code."""
        attempt = self.start_at(place, *patches, env=env)
        attempt.kill(number)
        self.go_on(place)  # an upload on SIGTERM must
        return attempt.wait()

    def start_cold(self, name: str = "cold", env: Mapping[str, str] | None = None) -> Process:
        """Starts an attempt as a user's shell would."""
        return cold_attempt(self.argv(), cwd=self.workplace, folder=self.folder, env=env, name=name)

    def finish(self) -> str:
        """Starts an attempt that finishes the run; the sha256 of its weights."""
        attempt = self.start()
        assert attempt.wait() == 0, attempt.err
        return weights_sha256(self)

    def json(self, name: str) -> dict[str, Any]:
        """One JSON object of the run."""
        found: dict[str, Any] = json.loads(self.read(name))
        return found

    def read(self, name: str) -> bytes:
        """One object of the run, also while its storage fails now and then."""
        return transient_retry()(self.store.read, name)[0]

    def head(self) -> dict[str, Any] | None:
        """Head, None before there is one."""
        try:
            return self.json("head.json")
        except NotFound:
            return None

    def durable_step(self) -> int:
        """The step that head names, -1 before there is one."""
        head = self.head()
        return -1 if head is None or head["checkpoint"] is None else head["checkpoint"]["step"]

    def wait_for_step(self, step: int, attempt: Process) -> None:
        """Returns when that step is durable, or the attempt has ended."""
        wait_until(lambda: self.durable_step() >= step or not attempt.lives(), f"step {step}\n{attempt.err}")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """All events of a kind, of all attempts."""
        rows = []
        for info in self.store.list("attempts/"):
            if "/events/" in info.name:
                rows += [json.loads(line) for line in self.read(info.name).splitlines()]
        return [row for row in rows if row["kind"] == kind]


def weights_sha256(run: Run) -> str:
    """Of the run's result: the adapter, or the whole model after full fine-tuning."""
    names = ("result/adapter/adapter_model.safetensors", "result/model/model.safetensors")
    (name,) = [name for name in names if transient_retry()(run.store.stat, name) is not None]
    return hashlib.sha256(run.read(name)).hexdigest()


def logged(run: Run) -> list[dict[str, Any]]:
    """The rows of the run's result/metrics.jsonl, without what tells of seconds."""
    rows = [json.loads(line) for line in run.read("result/metrics.jsonl").splitlines()]
    timed = ("step_time", "_runtime", "_per_second")
    return [{key: value for key, value in row.items() if not key.endswith(timed)} for row in rows]


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every object of a run, by its name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def random_moments() -> random.Random:
    """A source of moments to kill at. Prints its seed; BATON_TEST_SEED repeats one."""
    seed = int(os.environ.get("BATON_TEST_SEED", random.randrange(1 << 32)))
    print(f"BATON_TEST_SEED={seed}")
    return random.Random(seed)


def stop_group(run: Run, attempt: Process) -> None:
    """Freezes an attempt, all of its processes, but not while it holds the bucket's lock."""
    while True:
        attempt.kill_group(signal.SIGSTOP)
        wait_until(lambda: _state(attempt.pid) == "T", "SIGSTOP")
        with (run.bucket / ".lock").open("rb") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        attempt.kill_group(signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def attempt_env(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of an attempt: nothing of the developer's BATON_* settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BATON_")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **extra}
