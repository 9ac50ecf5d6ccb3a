"""A Cloud Storage on loopback whose streams have a cap, and whose CPU time is measured apart: it shares the machine."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from infra.localcloud.storage.process import StorageProcess, serve

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(server: StorageProcess) -> float:
    """CPU time of all its threads so far (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.contextmanager
def served(
    *, cap_bytes_per_s: float = 0.0, folder: Path | None = None, discard: bool = False
) -> Iterator[StorageProcess]:
    """Serves this process and its children. `cap_bytes_per_s`: of each stream, 0 for none."""
    flags = [*(("--root", str(folder)) if folder else ()), *(("--discard",) if discard else ())]
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with serve(*flags) as server:
        for verb in ("upload", "download") if cap_bytes_per_s else ():
            server.arm("slow", verb=verb, count=None, bandwidth_bytes_per_s=cap_bytes_per_s)
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        try:
            yield server
        finally:
            if before is None:
                del os.environ["STORAGE_EMULATOR_HOST"]
            else:
                os.environ["STORAGE_EMULATOR_HOST"] = before
