"""The shell around the plan: gcloud looks and makes. What it is told on standard input is on no command line."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from infra.setup.steps import Command, Found, Step
from job.errors import NeedsPerson, Transient
from job.settings.environment import SECRETS

BESIDE = 8
LOOK_S, MAKE_S = 120.0, 900.0
SETTLE_S, SETTLE_EVERY_S = 120.0, 5.0
"""How long a new account or service may take to be known everywhere (documented: a minute or two)."""
NOT_THERE = ("not_found", "not found", "404", "does not exist", "could not fetch resource")
NOT_YET = ("service_disabled", "has not been used in project", "is not enabled", "api is disabled")
"""What is said of services that are not enabled: then nothing of theirs is there."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """A step, as it was found."""

    step: Step
    found: Found
    commands: Sequence[Command]


class Gcloud:
    """gcloud in one project, with the login of whoever calls."""

    def __init__(self, project: str, sleep: Callable[[float], None] = time.sleep) -> None:
        if shutil.which("gcloud") is None:
            raise NeedsPerson(
                "gcloud is not installed here.",
                fix="https://cloud.google.com/sdk/docs/install   then: gcloud auth login",
            )
        self.project = project
        self._sleep = sleep
        without = {name: value for name, value in os.environ.items() if name not in SECRETS}
        self._env = without | {
            "CLOUDSDK_CORE_PROJECT": project,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API": "0",
        }

    def find(self, command: Command) -> Found:
        """What is there, None where nothing is. Raises NeedsPerson where that may not be asked."""
        done = self._run(command, LOOK_S)
        if done.returncode == 0:
            return json.loads(done.stdout or "null")
        said = done.stderr.lower()
        if any(words in said for words in (*NOT_THERE, *NOT_YET)):
            return None
        raise _failure(command, done.stderr)

    def do(self, command: Command) -> None:
        """Does it; waits for what was made just now to be known. Raises NeedsPerson."""
        until_s = time.monotonic() + SETTLE_S
        while (done := self._run(command, MAKE_S)).returncode != 0:
            said = done.stderr.lower()
            if not any(words in said for words in (*NOT_YET, "does not exist")) or time.monotonic() > until_s:
                raise _failure(command, done.stderr)
            self._sleep(SETTLE_EVERY_S)

    def _run(self, command: Command, timeout_s: float) -> "subprocess.CompletedProcess[str]":
        value = None if command.stdin is None else command.stdin.get_secret_value()
        try:
            return subprocess.run(
                ["gcloud", *command.words],
                input="" if value is None else value,
                capture_output=True,
                text=True,
                env=self._env,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Transient(f"gcloud did not answer in {timeout_s:.0f} s: {command}", fix="Run it again.") from None


def look_at(steps: Sequence[Step], cloud: Gcloud, *, undo: bool = False) -> list[Planned]:
    """Every step as it is found, several looks at once, each look once. Raises BatonError."""
    looks = list(dict.fromkeys(step.look for step in steps))
    with ThreadPoolExecutor(BESIDE) as pool:
        found = dict(zip(looks, pool.map(cloud.find, looks), strict=True))
    return [planned(step, found[step.look], undo=undo) for step in steps]


def planned(step: Step, found: Found, *, undo: bool = False) -> Planned:
    """What is to be done for a step; pure."""
    if undo:
        return Planned(step, found, () if found is None else step.undo(found))
    return Planned(step, found, step.make(found))


def carry_out(steps: Sequence[Planned], cloud: Gcloud, say: Say) -> None:
    """All commands, step by step. Raises BatonError at the first that fails: what is done stays, and is found again."""
    for one in steps:
        if not one.commands:
            continue
        say(one.step.what)
        with ThreadPoolExecutor(BESIDE if one.step.at_once else 1) as pool:
            for _ in pool.map(cloud.do, one.commands):
                pass


def _failure(command: Command, said: str) -> NeedsPerson:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no word")
    return NeedsPerson(f"{command} failed: {words[:500]}", fix="Mend that, then run infra/setup.sh again: it goes on.")
