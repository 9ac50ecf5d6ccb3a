"""Containers as a VM runs them, and as nobody could run them tighter: read-only, not root, without any capability."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.image.run import Engines

ROOT = Path(__file__).parents[2]
WAIT_S = 180.0
STOP_S = 25  # as in infra/vm/baton.service
IMAGE_USER = 1000
TIGHT = (
    "--read-only",
    "--tmpfs=/tmp:rw,nosuid,nodev,mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=host",
    "--pull=never",
)


@dataclass(frozen=True)
class Images:
    """Names of what was built."""

    slim: str
    train_cpu: str


def wait_until(condition: Callable[[], bool], what: Callable[[], str], *, wait_s: float = WAIT_S) -> None:
    """Waits for a condition, not for a time. Fails with `what()` when it does not come."""
    end_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {wait_s:.0f} s: {what()}"
        time.sleep(0.05)  # between two looks


@dataclass
class Container:
    """One that was started in the background."""

    boxes: "Boxes"
    name: str

    def lives(self) -> bool:
        """Whether it still runs."""
        return self.boxes.ask("inspect", "--format={{.State.Running}}", self.name).strip() == "true"

    def exit_code(self, wait_s: float = WAIT_S) -> int:
        """Waits for its end."""
        wait_until(lambda: not self.lives(), lambda: f"{self.name} still runs: {self.said()}", wait_s=wait_s)
        return int(self.boxes.ask("inspect", "--format={{.State.ExitCode}}", self.name))

    def stop(self) -> float:
        """`stop` as the unit on the VM does it; the seconds that it took."""
        began_s = time.monotonic()
        self.boxes.ask("stop", f"--time={STOP_S}", self.name)
        return time.monotonic() - began_s

    def said(self) -> str:
        """Its output so far."""
        done = self.boxes.command("logs", self.name)
        return done.stdout + done.stderr


@dataclass
class Boxes:
    """Starts containers with one engine, and removes them all."""

    engines: Engines
    flags: Sequence[str] = ()
    """Of the engine itself: another storage."""
    made: list[str] = field(default_factory=list)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The engine, run."""
        return subprocess.run(
            [self.engines.engine.name, *self.flags, *words],
            env=os.environ | self.engines.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def ask(self, *words: str) -> str:
        """The engine's answer; fails where it fails."""
        done = self.command(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def start(
        self, image: str, *words: str, env: Mapping[str, str] | None = None, flags: Sequence[str] = ()
    ) -> Container:
        """A container in the background."""
        name = f"baton-test-{uuid.uuid4().hex[:8]}"
        self.made.append(name)
        self.ask("run", "--detach", f"--name={name}", *TIGHT, *_env(env), *flags, image, *words)
        return Container(self, name)

    def run(
        self,
        image: str,
        *words: str,
        env: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        tight: Sequence[str] = TIGHT,
    ) -> "subprocess.CompletedProcess[str]":
        """A container, to its end."""
        return self.command("run", "--rm", *tight, *_env(env), *flags, image, *words)

    def close(self) -> None:
        """Nothing of them stays."""
        for name in self.made:
            self.command("rm", "--force", "--volumes", name)


def _env(env: Mapping[str, str] | None) -> list[str]:
    return [f"--env={name}={value}" for name, value in (env or {}).items()]
