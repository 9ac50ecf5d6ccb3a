#!/usr/bin/env python3
"""`docker` on a local VM: a container is the repository's entrypoint with this Python, detached as Docker's are, with
nothing of the caller's environment but the addresses that name servers and routes give a real one."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from infra.localcloud.vm.processes import contain, detach

DISK, HARDWARE = Path(os.environ["LOCAL_VM_DISK"]), json.loads(Path(os.environ["LOCAL_VM_HARDWARE"]).read_text())
IMAGES, BOXES = DISK / "var/lib/docker/images", DISK / "var/lib/docker/containers"
ADDRESSES = ("GCE_METADATA_", "STORAGE_EMULATOR_HOST", "CLOUDSDK_API_ENDPOINT_OVERRIDES_")
ALONE = ("--init", "--force", "--quiet", "--password-stdin")  # flags without a value
STATE = "{{.State.ExitCode}} {{.State.OOMKilled}}"


def _run(flags: dict[str, str], image: str, *command: str) -> int:
    box = BOXES / flags["--name"]
    if not (IMAGES / image.replace("/", "+")).exists() or box.exists() or ("--gpus" in flags and not HARDWARE["gpus"]):
        print("docker: no such image here, the name is in use, or there is no GPU", file=sys.stderr)
        return 125
    env = HARDWARE["image_env"] | {name: value for name, value in os.environ.items() if name.startswith(ADDRESSES)}
    env |= dict(line.split("=", 1) for line in Path(flags["--env-file"]).read_text().splitlines())
    box.mkdir()
    reading, writing = os.pipe()
    detach(lambda: contain([flags.get("--entrypoint", HARDWARE["entrypoint"]), *command], env, DISK, box))
    os.close(writing)
    signal.signal(signal.SIGTERM, lambda *_: _end(box, signal.SIGTERM, float("inf")))
    os.read(reading, 1)  # until the holder is gone
    return int((box / "code").read_text())


def _end(box: Path, number: int, patience_s: float = 0) -> None:
    """Sends a signal, and SIGKILL when the patience is over; returns when the container has ended."""
    while not (box / "pid").exists() or not (pid := (box / "pid").read_text()):
        time.sleep(0.001)
    end_s = time.monotonic() + patience_s
    while not (box / "code").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), number)
        number = signal.SIGKILL if time.monotonic() > end_s else 0  # 0 is no signal
        time.sleep(0.01)


def _main(verb: str, words: list[str]) -> int:
    flags = {}
    while words and (flag := words[0]).startswith("--"):
        flags[flag], words = ("", words[1:]) if flag in ALONE else (words[1], words[2:])
    if verb == "run":
        return _run(flags, *words)
    if verb == "login":
        return 0 if sys.stdin.read().strip() else 1
    if verb == "pull":
        time.sleep(HARDWARE["pull_s"])
        if not HARDWARE["registry_down"]:
            (IMAGES / words[0].replace("/", "+")).touch()
        return int(HARDWARE["registry_down"])
    box = BOXES / words[0]
    if not box.exists() or flags.get("--format", STATE) != STATE:
        return 1
    if verb == "inspect":
        print((box / "code").read_text(), str((box / "oom").exists()).lower())
    if verb == "stop":
        _end(box, signal.SIGTERM, float(flags["--time"]))
    if verb == "rm":
        _end(box, signal.SIGKILL)
        shutil.rmtree(box)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1], sys.argv[2:]))
