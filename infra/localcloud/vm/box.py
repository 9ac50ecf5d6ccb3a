"""What a local VM is made of: a disk, what its hardware is, and the programs that stand in for a real machine's."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.vm import FOLDER, STARTUP_SCRIPT
from job.errors import UsageError

REPOSITORY = Path(__file__).parents[3]
SHIMS = {"docker": "docker.py", "systemctl": "systemctl.py", "nvidia-smi": "nvidia_smi.py"}
TOOLS = (
    "bash",
    "cat",
    "curl",
    "env",
    "fallocate",
    "head",
    "mkdir",
    "rm",
    "sed",
    "sleep",
    "stat",
    "tail",
    "tee",
    "timeout",
)
"""All of this machine that its scripts find: a `systemctl poweroff` must never reach the real one."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FOLDERS = (
    "etc/systemd/system",
    "root",
    "run/systemd",
    "tmp",
    "var/lib/docker/containers",
    "var/lib/docker/images",
)
GPUS = {
    "a2-highgpu": "NVIDIA A100-SXM4-40GB",
    "a2-megagpu": "NVIDIA A100-SXM4-40GB",
    "a2-ultragpu": "NVIDIA A100-SXM4-80GB",
    "a3-highgpu": "NVIDIA H100 80GB HBM3",
    "a3-megagpu": "NVIDIA H100 80GB HBM3",
    "a3-ultragpu": "NVIDIA H200",
    "a4-highgpu": "NVIDIA B200",
    "g2-standard": "NVIDIA L4",
    "g4-standard": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
}
"""By the family of machine types that brings them along."""


@dataclass(frozen=True)
class Box:
    """One machine's folder."""

    folder: Path

    @property
    def disk(self) -> Path:
        """What the VM has for a file system."""
        return self.folder / "disk"

    @property
    def hardware(self) -> Path:
        """What the shims know of the machine."""
        return self.folder / "hardware.json"

    @property
    def startup_script(self) -> Path:
        """As the guest agent has it before it runs it."""
        return self.folder / "startup-script"

    @property
    def serial_port(self) -> Path:
        """What it prints there."""
        return self.folder / "serial.log"

    @property
    def console(self) -> Path:
        """What its scripts and its container print."""
        return self.disk / "var/lib/baton/console.log"

    @property
    def container(self) -> Path:
        """What its Docker knows of the container."""
        return self.disk / "var/lib/docker/containers/baton"

    def make(self, instance_id: int) -> None:
        """An empty disk, unless the instance had one before."""
        mark = self.folder / "instance-id"
        if not mark.exists() or mark.read_text() != str(instance_id):
            shutil.rmtree(self.folder, ignore_errors=True)
        for name in FOLDERS:
            (self.disk / name).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.disk / "run")
        (self.disk / "run/systemd").mkdir(parents=True)
        self._make_programs(self.folder / "bin")
        shutil.copyfile(FOLDER / STARTUP_SCRIPT, self.startup_script)
        mark.write_text(str(instance_id))

    def _make_programs(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "python3").symlink_to(sys.executable)
        for name in TOOLS:
            if (found := shutil.which(name)) is None:
                raise UsageError(f"a local VM needs {name}, which is not installed.", fix=f"Install {name}.")
            (folder / name).symlink_to(found)
        for name, shim in SHIMS.items():
            shutil.copyfile(Path(__file__).parent / "shims" / shim, folder / name)
            (folder / name).chmod(0o755)
            if not os.access(folder / name, os.X_OK):
                raise UsageError(f"no program may be run in {self.folder}.", fix="Use a folder that allows it.")

    def set_hardware(self, **facts: Any) -> None:
        """Changes what the shims know: gpus, gpu_sick, pull_s, registry_down, entrypoint, image_env."""
        known = json.loads(self.hardware.read_text()) if self.hardware.exists() else {}
        fresh = self.hardware.with_suffix(".new")
        fresh.write_text(json.dumps(known | facts))
        fresh.replace(self.hardware)

    def image_env(self, more: Mapping[str, str]) -> dict[str, str]:
        """What the image sets for its containers: this repository and its Python, everything else on the disk."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.disk / "root"),
            "TMPDIR": str(self.disk / "tmp"),
            "LANG": "C.UTF-8",
        } | dict(more)

    def env(self, network: Mapping[str, str]) -> dict[str, str]:
        """Of the VM's first process, and of all its scripts."""
        return {
            "PATH": str(self.folder / "bin"),
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.disk / "root"),
            "LANG": "C.UTF-8",
            "STATE_DIRECTORY": str(self.disk / "var/lib/baton"),
            "LOCAL_VM_DISK": str(self.disk),
            "LOCAL_VM_HARDWARE": str(self.hardware),
        } | dict(network)


def gpus_of(machine_type: str, gpu: str) -> list[str]:
    """The GPUs of a machine type; of n1, which has none of its own, the T4 that is asked for; pure."""
    family, _, size = machine_type.rpartition("-")
    if machine_type.startswith("n1-") and gpu == "t4":
        return ["Tesla T4"]
    if family not in GPUS:
        return []
    return [GPUS[family]] * (int(size[:-1]) if size.endswith("g") else 1)
