"""What podman and buildah must be told about this machine so that they work on it."""

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

NOFILE = 1_048_576
"""Open files that podman gives each container by default, whether it may or not."""
CAP_SYS_RESOURCE = 24


@dataclass(frozen=True)
class Host:
    """What of a machine matters to a container engine."""

    cgroup_v2: bool
    systemd: bool
    may_raise_limits: bool
    nofile: int
    """The most open files that a process may have here."""
    nproc: int
    """The most processes: what this user may have, and what the kernel can number."""
    has_runc: bool


def observe() -> Host:
    """This machine."""
    capabilities = next(
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
    )
    pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())  # podman lowers its own limit to it
    return Host(
        cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        systemd=Path("/run/systemd/system").is_dir(),
        may_raise_limits=bool(int(capabilities, 16) >> CAP_SYS_RESOURCE & 1),
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        nproc=min(limit for limit in (resource.getrlimit(resource.RLIMIT_NPROC)[1], pid_max) if limit >= 0),
        has_runc=shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None,
    )


def containers_conf(host: Host) -> str:
    """The lines of containers.conf that podman and buildah need here; empty where their own defaults work; pure."""
    containers, engine = [], []
    if not host.may_raise_limits and 0 <= host.nofile < NOFILE:
        limits = f'"nofile={host.nofile}:{host.nofile}", "nproc={host.nproc}:{host.nproc}"'
        containers.append(f"default_ulimits = [{limits}]")
    if not host.cgroup_v2 and host.has_runc:
        engine.append('runtime = "runc"')  # crun refuses the hybrid of cgroup v1 and v2
    if not host.systemd:
        engine += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
    sections = {"containers": containers, "engine": engine}
    return "".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items() if lines)
