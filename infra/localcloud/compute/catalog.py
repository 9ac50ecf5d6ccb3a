"""What this cloud sells, as of July 2026: machine types with their GPUs, and in which zones."""

from dataclasses import dataclass

ZONES = {
    "asia-east1": "abc",
    "asia-east2": "ac",
    "asia-northeast1": "abc",
    "asia-northeast3": "abc",
    "asia-south1": "abc",
    "asia-south2": "b",
    "asia-southeast1": "abc",
    "asia-southeast2": "ab",
    "australia-southeast1": "ac",
    "europe-central2": "bc",
    "europe-north1": "c",
    "europe-west1": "bcd",
    "europe-west2": "ab",
    "europe-west3": "abc",
    "europe-west4": "abc",
    "europe-west6": "bc",
    "europe-west9": "c",
    "me-central2": "ac",
    "me-west1": "abc",
    "northamerica-northeast1": "bc",
    "northamerica-northeast2": "ab",
    "southamerica-east1": "abc",
    "us-central1": "abcf",
    "us-east1": "bcd",
    "us-east4": "abc",
    "us-east5": "ab",
    "us-west1": "abc",
    "us-west2": "bc",
    "us-west3": "b",
    "us-west4": "abc",
}
"""Region to the last letters of its zones."""
GPU_ZONES = {
    "nvidia-l4": "asia-east1-abc asia-northeast1-abc asia-northeast3-ab asia-south1-abc asia-southeast1-abc "
    "europe-west1-bc europe-west2-ab europe-west3-ab europe-west4-abc europe-west6-bc me-central2-ac "
    "northamerica-northeast1-bc northamerica-northeast2-ab us-central1-abc us-east1-bcd us-east4-ac us-west1-abc "
    "us-west4-ac",
    "nvidia-tesla-t4": "asia-east1-ac asia-east2-ac asia-northeast1-ac asia-northeast3-bc asia-south1-ab "
    "asia-southeast1-abc asia-southeast2-ab australia-southeast1-ac europe-central2-bc europe-west1-bcd "
    "europe-west2-ab europe-west3-b europe-west4-abc me-west1-bc northamerica-northeast1-c southamerica-east1-abc "
    "us-central1-abcf us-east1-bcd us-east4-abc us-west1-ab us-west2-bc us-west3-b us-west4-ab",
    "nvidia-tesla-v100": "asia-east1-c europe-west4-abc us-central1-abcf us-east1-bc us-west1-ab",
    "nvidia-tesla-a100": "asia-northeast1-ac asia-northeast3-ab asia-southeast1-abc europe-west4-ab me-west1-ac "
    "us-central1-abcf us-east1-b us-west1-b us-west3-b us-west4-b",
    "nvidia-a100-80gb": "asia-southeast1-c europe-west4-a us-central1-ac us-east4-c us-east5-ab",
    "nvidia-h100-80gb": "asia-east1-c asia-northeast1-b asia-south1-c asia-south2-b asia-southeast1-bc "
    "australia-southeast1-c europe-north1-c europe-west1-bc europe-west3-c europe-west4-bc europe-west9-c "
    "us-central1-abc us-east4-abc us-east5-a us-west1-ab us-west4-a",
    "nvidia-h200-141gb": "us-central1-b us-east4-b",
    "nvidia-b200": "us-central1-b us-east4-b",
    "nvidia-rtx-pro-6000": "us-central1-bf",
}
"""GPU to its zones, written as region and letters."""
QUOTA_OF_GPU = {
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-h200-141gb": "NVIDIA_H200_GPUS",
    "nvidia-b200": "NVIDIA_B200_GPUS",
    "nvidia-rtx-pro-6000": "NVIDIA_RTX_PRO_6000_GPUS",
}
"""GPU to its metric; that of spot VMs has PREEMPTIBLE_ before it."""
NO_STANDARD_DISK = ("g2-", "a3-", "a4-", "g4-")
"""Families that do not take pd-standard."""


@dataclass(frozen=True)
class MachineType:
    """One machine type."""

    name: str
    cpus: int
    memory_mb: int
    gpu: str | None = None
    """Implied by the type."""
    gpus: int = 0


def _types() -> dict[str, MachineType]:
    gb = 1024
    found = [MachineType(f"g2-standard-{cpus}", cpus, 4 * cpus * gb, "nvidia-l4", 1) for cpus in (4, 8, 12, 16, 32)]
    found += [
        MachineType(f"g2-standard-{cpus}", cpus, 4 * cpus * gb, "nvidia-l4", gpus)
        for cpus, gpus in ((24, 2), (48, 4), (96, 8))
    ]
    for gpus in (1, 2, 4, 8):
        found += [
            MachineType(f"a2-highgpu-{gpus}g", 12 * gpus, 85 * gb * gpus, "nvidia-tesla-a100", gpus),
            MachineType(f"a2-ultragpu-{gpus}g", 12 * gpus, 170 * gb * gpus, "nvidia-a100-80gb", gpus),
            MachineType(f"a3-highgpu-{gpus}g", 26 * gpus, 234 * gb * gpus, "nvidia-h100-80gb", gpus),
            MachineType(f"g4-standard-{48 * gpus}", 48 * gpus, 180 * gb * gpus, "nvidia-rtx-pro-6000", gpus),
        ]
    found += [
        MachineType("a3-ultragpu-8g", 224, 2952 * gb, "nvidia-h200-141gb", 8),
        MachineType("a4-highgpu-8g", 224, 3968 * gb, "nvidia-b200", 8),
        MachineType("e2-micro", 2, gb),
        MachineType("e2-small", 2, 2 * gb),
        MachineType("e2-medium", 2, 4 * gb),
    ]
    for cpus in (1, 2, 4, 8, 16, 32):
        found.append(MachineType(f"n1-standard-{cpus}", cpus, 3840 * cpus))
    for cpus in (2, 4, 8, 16, 32):
        found.append(MachineType(f"n1-highmem-{cpus}", cpus, 6656 * cpus))
        found.append(MachineType(f"e2-standard-{cpus}", cpus, 4 * cpus * gb))
        found.append(MachineType(f"n2-standard-{cpus}", cpus, 4 * cpus * gb))
    return {machine.name: machine for machine in found}


MACHINE_TYPES = _types()


def all_zones() -> list[str]:
    """Every zone, by name."""
    return sorted(f"{region}-{letter}" for region, letters in ZONES.items() for letter in letters)


def region_of(zone: str) -> str:
    """`us-central1` of `us-central1-a`."""
    return zone.rpartition("-")[0]


def zones_of_gpu(gpu: str) -> set[str]:
    """Where it is sold."""
    written = (part.rpartition("-") for part in GPU_ZONES[gpu].split())
    return {f"{region}-{letter}" for region, _, letters in written for letter in letters}


def sold_in(zone: str, machine: MachineType) -> bool:
    """Whether the zone has this type."""
    return machine.gpu is None or zone in zones_of_gpu(machine.gpu)
