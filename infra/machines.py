"""Which GPUs there are, in which machines: machines.toml read, and what is said of a name that is not in it."""

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from job.errors import UsageError

FILE = Path(__file__).with_name("machines.toml")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MachineType(_Entry):
    """A machine that Compute Engine rents with that GPU in it."""

    type: str
    gpus: int
    vcpus: int
    host_gb: int
    """Memory of the machine itself."""
    disk: str
    """Type of boot disk that it takes."""
    accelerator: str | None = None
    """Where the machine type does not imply its GPU."""


class Gpu(_Entry):
    """A GPU as `--gpu` names it."""

    title: str
    memory_gb: int
    bf16: bool
    gb_per_s: int
    """Bandwidth of its memory: what generation waits for."""
    tflops: int
    """Dense, of 16 bits: what training waits for."""
    quota: str
    """Metric that counts its on-demand VMs in a region; that of spot ones has PREEMPTIBLE_ before it."""
    on_demand: bool = True
    """Whether single ones are rented other than spot."""
    machines: tuple[MachineType, ...]

    @property
    def single(self) -> tuple[MachineType, ...]:
        """Machines with one of it."""
        return tuple(machine for machine in self.machines if machine.gpus == 1)


class WatchdogMachine(_Entry):
    """The small VM that watches a bucket's runs."""

    machine_type: str
    disk: str
    boot_disk_gb: int
    usd_per_hour: float
    """Without its disk."""


class Machines(_Entry):
    """All of machines.toml."""

    date: str
    boot_image: str
    boot_disk_gb: int
    hours_per_month: int
    disk_usd_per_gb_month: Mapping[str, float]
    watchdog: WatchdogMachine
    gpu: Mapping[str, Gpu]
    not_here: Mapping[str, str]

    def disk_usd_per_hour(self, disk: str, gb: int) -> float:
        """What a boot disk of that type and size costs while its VM is there."""
        return self.disk_usd_per_gb_month[disk] * gb / self.hours_per_month

    @property
    def watchdog_usd_per_hour(self) -> float:
        """All that a watchdog VM costs: machine and disk."""
        small = self.watchdog
        return small.usd_per_hour + self.disk_usd_per_hour(small.disk, small.boot_disk_gb)


@cache
def machines() -> Machines:
    """The file, read once."""
    return Machines.model_validate(tomllib.loads(FILE.read_text(encoding="utf-8")))


@cache
def machine_types() -> Mapping[str, MachineType]:
    """Every machine by its type: the allow-list of what may be created with a GPU."""
    return MappingProxyType({machine.type: machine for gpu in machines().gpu.values() for machine in gpu.machines})


def find_gpu(name: str) -> Gpu:
    """The GPU that `--gpu` names. Raises UsageError: unknown (names the nearest), not rented here, only by eights."""
    known = machines().gpu
    plain = name.strip().lower().replace("_", "-")
    plain = next((key for key in known if key.replace("-", "") == plain.replace("-", "").replace(" ", "")), plain)
    if (match := machines().not_here.get(plain)) is not None:
        raise UsageError(
            f"--gpu {name}: not on Google Cloud; {known[match].title.split()[0]} is its match.",
            fix=f"Use --gpu {match}.",
        )
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=3, cutoff=0.4) or list(known)
        raise UsageError(
            f"--gpu {name}: there is no such GPU.",
            fix=f"Did you mean {' or '.join(near)}? All: {', '.join(known)}.",
        )
    found = known[plain]
    if not found.single:
        machine = found.machines[0]
        largest = max((gpu.memory_gb, key) for key, gpu in known.items() if gpu.single)
        raise UsageError(
            f"--gpu {name}: Google Cloud rents it {machine.gpus} at a time only ({machine.type}), and a run trains on "
            f"one GPU until distributed training is there: {machine.gpus - 1} would be paid for and idle.",
            fix=f"Use --gpu {largest[1]}, the largest single one ({largest[0]} GB).",
        )
    return found


def gpu_key(name: str) -> str:
    """The name under which that GPU is in the file: what a spec holds. Raises UsageError as `find_gpu` does."""
    found = find_gpu(name)
    return next(key for key, gpu in machines().gpu.items() if gpu is found)
