#!/usr/bin/env python3
"""`systemctl` on a local VM, as far as the scripts of infra/vm use it; infra/localcloud/vm/unit.py runs the units."""

import os
import signal
import sys
import time
from pathlib import Path

from infra.localcloud.vm.processes import ROOT_PID, detach
from infra.localcloud.vm.unit import Unit

DISK = Path(os.environ["LOCAL_VM_DISK"])
UNITS, STATE = DISK / "etc/systemd/system", DISK / "run/systemd"
STOPPING = STATE / "stopping"


def _link(path: str) -> None:
    link = UNITS / Path(path).name
    link.unlink(missing_ok=True)
    link.symlink_to(path)


def _start(name: str) -> None:
    unit = Unit(UNITS / name, DISK, STATE)
    detach(lambda: unit.live(lambda: detach(_power_off)))
    while not (STATE / f"{name}.restarts").exists():
        time.sleep(0.001)


def _power_off() -> None:
    """Stops the units, the last started first; then the machine is off."""
    STOPPING.touch()
    for file in sorted(STATE.glob("*.pid"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            pid = int(file.read_text())
            os.kill(pid, signal.SIGTERM)
            while file.exists() and Path(f"/proc/{pid}").exists():
                time.sleep(0.005)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended by itself
    os.kill(int(os.environ[ROOT_PID]), signal.SIGUSR1)


def _main(verb: str, words: list[str]) -> int:
    names = [word for word in words if not word.startswith("--")]
    if verb == "link":
        for path in names:
            _link(path)
    elif verb == "start":
        _start(names[0])
    elif verb == "poweroff":
        detach(_power_off)
    elif verb == "is-system-running":
        print("stopping" if STOPPING.exists() else "running")
        return int(STOPPING.exists())
    elif verb == "show" and names[0] == "NRestarts":
        print((STATE / f"{names[1]}.restarts").read_text())
    elif verb == "show":
        print(Unit(UNITS / names[1], DISK, STATE).value(names[0]))
    else:
        print(f"Unknown command verb {verb}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1], sys.argv[2:]))
