"""Starts engines: the only file here that runs programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from job.errors import BatonError, NeedsPerson
from tools.image import engine, host, trouble

PROBE_S = 20.0
SETTINGS = Path("build/image/containers.conf")


@dataclass(frozen=True)
class Engines:
    """The engine that works here, and the environment in which it does."""

    engine: engine.Engine
    env: dict[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str], *, doing: str, image: str = "", show: bool = False) -> str:
        """Its stdout; `show`: everything on stderr as it comes. Raises what trouble.explain makes of a failure."""
        print(f"image: {doing}", file=sys.stderr)
        told: list[str] = []
        with subprocess.Popen(
            command,
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if show else subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            if show:
                assert process.stdout is not None
                for line in process.stdout:
                    told.append(line)
                    sys.stderr.write(line)
                output, errors = "".join(told), ""
            else:
                output, errors = process.communicate()
        if process.returncode != 0:
            raise trouble.explain(output + errors, doing=doing, image=image)
        return output


def find(asked: str | None = None) -> Engines:
    """The engine to work with. Raises NeedsPerson when none works here."""
    env = {"DOCKER_BUILDKIT": "1", **settings()}
    answers = {name: _answers(probe, env) for name, probe in engine.PROBES.items() if asked in (None, name)}
    return Engines(engine.choose(answers, buildx=_answers(engine.BUILDX_PROBE, env), asked=asked), env)


def settings() -> dict[str, str]:
    """Writes the containers.conf that this machine needs; the variable that names it, none where none is needed."""
    text = host.containers_conf(host.observe())
    if not text or "CONTAINERS_CONF" in os.environ:
        return {}
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text(text)
    return {"CONTAINERS_CONF": str(SETTINGS.resolve())}


def storage_folder(engines: Engines) -> Path | None:
    """Where the engine keeps layers; None where it does not tell, or keeps them on another machine."""
    commands = {
        "docker": ["docker", "info", "--format", "{{.DockerRootDir}}"],
        "podman": ["podman", "info", "--format", "{{.Store.GraphRoot}}"],
        "buildah": ["buildah", "info", "--format", "{{.store.GraphRoot}}"],
    }
    try:
        told = engines.run(commands[engines.engine.name], doing="looking for space").strip()
    except BatonError:
        return None
    return Path(told) if told and Path(told).is_dir() else None


def program(name: str, *, why: str) -> str:
    """Its path. Raises NeedsPerson when it is not installed."""
    if found := shutil.which(name):
        return found
    raise NeedsPerson(f"{name} is not installed: {why}.", fix="sudo tools/system-deps.sh image")


def _answers(command: Sequence[str], env: dict[str, str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(
            command, env=os.environ | env, capture_output=True, stdin=subprocess.DEVNULL, timeout=PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
