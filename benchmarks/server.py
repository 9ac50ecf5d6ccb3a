"""A Cloud Storage on loopback in a process of its own, whose CPU time is measured apart: it shares the machine."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT

BUCKET = "bench"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """One that runs."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """CPU time of all its threads so far (proc(5), fields 14 and 15 of stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.contextmanager
def served(*, cap_bytes_per_s: float = 0.0, folder: Path | None = None, discard: bool = False) -> Iterator[Server]:
    """Serves the bucket BUCKET, to this process and its children too. `cap_bytes_per_s`: of each stream, 0 for none."""
    command = [sys.executable, "-m", "infra.localcloud.storage", "--bucket", BUCKET]
    command += [] if folder is None else ["--root", str(folder)]
    command += ["--discard"] if discard else []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            server = Server(process.stdout.readline().strip(), process.pid)
            if cap_bytes_per_s:
                slow = {"kind": "slow", "count": None, "bandwidth_bytes_per_s": cap_bytes_per_s}
                rules = json.dumps([slow | {"verb": verb} for verb in ("upload", "download")])
                urllib.request.urlopen(f"{server.url}/_faults", data=rules.encode(), timeout=10).close()
            before = os.environ.get("STORAGE_EMULATOR_HOST")
            os.environ["STORAGE_EMULATOR_HOST"] = server.url
            try:
                yield server
            finally:
                if before is None:
                    del os.environ["STORAGE_EMULATOR_HOST"]
                else:
                    os.environ["STORAGE_EMULATOR_HOST"] = before
        finally:
            process.terminate()
