"""How many cores this process may use: those it may run on, and no more than a container's quota pays for."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Whole cores; 0 when the quota is less than one."""
    return math.floor(min(len(os.sched_getaffinity(0)), quota_cores(CGROUPS, OWN_CGROUPS)))


def quota_cores(mount: Path, own: Path) -> float:
    """Cores' worth of time that the cgroups of this process get (`docker run --cpus`), infinite without a quota.

    `mount`: where cgroups are mounted; `own`: /proc/self/cgroup. Every group above counts too.
    """
    with contextlib.suppress(OSError):
        return min((_folder_cores(folder) for folder in _folders(mount, own.read_text())), default=math.inf)
    return math.inf


def parse_cpu_max(text: str) -> float:
    """Cores by the text of a cpu.max (version 2): "QUOTA PERIOD" in microseconds, or "max PERIOD"; pure."""
    quota, period = text.split()
    return math.inf if quota == "max" else int(quota) / int(period)


def parse_cfs(quota_us: str, period_us: str) -> float:
    """Cores by the texts of cpu.cfs_quota_us, -1 for none, and cpu.cfs_period_us (version 1); pure."""
    return math.inf if int(quota_us) < 0 else int(quota_us) / int(period_us)


def _folder_cores(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return parse_cpu_max((folder / "cpu.max").read_text())
    with contextlib.suppress(FileNotFoundError):
        return parse_cfs((folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text())
    return math.inf


def _folders(mount: Path, own: str) -> Iterator[Path]:
    """Where this process's quota and those of the groups above it may stand, the mounted root included.

    In a container the path in `own` may be the host's, while what is mounted begins at the container's group: the
    root says it all then.
    """
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers == "":
            roots = [mount, mount / "unified"]
        elif "cpu" in names:
            roots = [mount / "cpu", mount / controllers]
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for root in roots:
            yield from (root / above for above in (group, *group.parents))
