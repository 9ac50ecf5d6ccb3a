"""What VMs use of the project's quotas. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from infra.localcloud.compute.catalog import QUOTA_OF_GPU, region_of
from infra.localcloud.compute.records import ON, Instance, last

GLOBAL = ("GPUS_ALL_REGIONS", "CPUS_ALL_REGIONS")
GPU_METRICS = tuple(f"{prefix}{metric}" for metric in QUOTA_OF_GPU.values() for prefix in ("", "PREEMPTIBLE_"))
REGIONAL = (*GPU_METRICS, "A2_CPUS", "CPUS", "INSTANCES", "SSD_TOTAL_GB")
METRICS = (*GLOBAL, *REGIONAL)
LIMITS = {
    "SSD_TOTAL_GB": 81_920.0,
    "CPUS": 4_800.0,
    "A2_CPUS": 4_800.0,
    "INSTANCES": 4_800.0,
    "CPUS_ALL_REGIONS": 9_600,
}
"""Where nobody set another one; of GPUs there are always 128."""
GPUS = 128.0
SSD = ("pd-ssd", "pd-balanced", "hyperdisk-balanced")


def limit_of(metric: str) -> float:
    """What the project has, unless it was changed."""
    return float(LIMITS.get(metric, GPUS))


def needs(instance: Instance) -> dict[str, float]:
    """Metric to what this VM takes of it while it is on."""
    gpu, count = instance.gpus
    cpus = float(instance.type.cpus)
    found = {"CPUS_ALL_REGIONS": cpus, "A2_CPUS" if instance.machine_type.startswith("a2-") else "CPUS": cpus}
    if gpu:
        metric = QUOTA_OF_GPU[gpu]
        found |= {f"PREEMPTIBLE_{metric}" if instance.spot else metric: float(count), "GPUS_ALL_REGIONS": float(count)}
    return found | always_needs(instance)


def always_needs(instance: Instance) -> dict[str, float]:
    """Metric to what this VM takes of it even when it is off."""
    disk_gb = sum(
        float(disk["diskSizeGb"]) for disk in instance.resource["disks"] if last(str(disk.get("diskType", ""))) in SSD
    )
    return {"INSTANCES": 1.0, "SSD_TOTAL_GB": disk_gb}


def used(instances: Iterable[Instance], region: str) -> dict[str, float]:
    """Metric to what is used of it in the region; of the project's, in all of them."""
    total: dict[str, float] = defaultdict(float)
    for instance in instances:
        here = region_of(instance.zone) == region
        for metric, amount in (needs if instance.status in ON else always_needs)(instance).items():
            if here or metric in GLOBAL:
                total[metric] += amount
    return total
