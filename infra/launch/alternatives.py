"""What else would do for a run, and what that is expected to cost: a smaller GPU, on demand, flex-start. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from infra.expected import Odds, Ranked, Zone, rank
from infra.launch.estimate import gpu_gb, host_gb, work_of
from infra.launch.prepare import MOST_SLOTS
from infra.machines import Gpu, MachineType, machines
from infra.plan import Kind, LivePrices, offers
from job.settings import Settings

FLEX_DAYS = 7
"""That a flex-start VM runs at most."""


@dataclass(frozen=True)
class Looked:
    """For what, and where."""

    settings: Settings
    parameters: float
    steps: int
    image: str
    zones: Sequence[str]
    regions: Sequence[str]
    bucket_region: str | None
    boot_disk_gb: int
    known: Mapping[Zone, Odds] | None = None
    live: LivePrices | None = None


@dataclass(frozen=True)
class Alternative:
    """One of them."""

    gpu: str
    kind: Kind
    ranked: Ranked
    note: str
    """What is different about it."""


def alternatives(looked: Looked, gpu: str, chosen: Ranked, *, spot: bool) -> tuple[Alternative, ...]:
    """Smaller GPUs that hold the run, the same on demand, and flex-start where it is cheaper."""
    kind: Kind = "spot" if spot else "on_demand"
    found = [*_smaller(looked, gpu, kind)]
    if spot:
        found += _best(looked, gpu, "on_demand", "never preempted")
    days = f"waits in a queue for capacity, is not preempted, runs {FLEX_DAYS} days at most"
    for flex in _best(looked, gpu, "flex", f"{days}; Baton starts none yet"):
        if flex.ranked.expected.usd < chosen.expected.usd and flex.ranked.expected.hours < FLEX_DAYS * 24:
            found.append(flex)
    return tuple(found)


def _smaller(looked: Looked, gpu: str, kind: Kind) -> Iterator[Alternative]:
    settings, own = looked.settings, machines().gpu[gpu]
    about_gb = gpu_gb(settings, looked.parameters)[1]
    for name, other in machines().gpu.items():
        computes = other.bf16 or settings.model.dtype not in ("bfloat16", "auto")
        if other.memory_gb < own.memory_gb and about_gb <= other.memory_gb and computes:
            yield from _best(looked, name, kind, "a smaller GPU, large enough")


def _best(looked: Looked, gpu: str, kind: Kind, note: str) -> list[Alternative]:
    """The least expected cost with that GPU; none where none is offered."""
    other = machines().gpu[gpu]
    fitting = [machine.type for machine in _fitting(looked, other)]
    found = offers(
        gpu,
        kind,
        looked.zones,
        looked.regions,
        looked.bucket_region,
        machine_types=fitting,
        boot_disk_gb=looked.boot_disk_gb,
        live=looked.live,
    )
    if not fitting or not found:
        return []
    work = work_of(looked.settings, other, looked.parameters, looked.steps, image=looked.image)
    return [Alternative(gpu, kind, rank(found, work, looked.known)[0], note)]


def _fitting(looked: Looked, gpu: Gpu) -> list[MachineType]:
    slots = looked.settings.checkpoint.slots or (MOST_SLOTS if looked.settings.lora.enabled else 2)
    needs_gb = host_gb(looked.settings, looked.parameters, slots)
    return [machine for machine in gpu.single if machine.host_gb >= needs_gb]
