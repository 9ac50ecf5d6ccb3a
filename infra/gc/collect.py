"""What is left over and may go: VMs and disks with our labels that nobody wants, objects that nobody refers to. Pure.

Only what is certain: a VM whose run still decides about it, or an upload that may be under way, is left alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from infra.cloud.types import Disk, Vm, VmStatus
from infra.naming import OF_ATTEMPT, OF_RUN, OWNER
from job.checkpoint.retention import garbage
from job.run.claims import Claims
from job.run.head import Head, Status
from job.run.layout import CHECKPOINTS, MANIFEST
from job.storage import ObjectInfo

GRACE_S = 900.0
"""After the last change of a run, until a VM of it that is not wanted must have gone by itself."""
PART_S = 24 * 3600.0
"""An upload takes minutes; a part that is older belongs to none."""
PART = re.compile(r".+\.[0-9a-f]{16}-\d{4,}\.part")


@dataclass(frozen=True)
class Waste:
    """One thing that may go."""

    kind: Literal["vm", "disk", "object"]
    name: str
    where: str
    """Zone, or the run's URI."""
    why: str
    size_bytes: int = 0
    generation: int = 0
    """Of an object: only that one is deleted."""


@dataclass(frozen=True)
class Facts:
    """What a run says about the VMs that carry its label."""

    uri: str
    claims: Claims
    head: Head | None
    changed_s: float
    """When claims or head were last written, by the bucket's clock."""


def unwanted_vms(vms: Iterable[Vm], runs: Mapping[str, Facts], now_s: float) -> list[Waste]:
    """Of VMs that were listed before the runs were read, those that nobody wants. `runs` by the hash in the label."""
    found = []
    for vm in vms:
        if vm.labels.get(OWNER) == "run" and (why := _unwanted(vm, runs, now_s)) is not None:
            found.append(Waste("vm", vm.name, vm.zone, why))
    return found


def unwanted_disks(disks: Iterable[Disk], now_s: float) -> list[Waste]:
    """Disks of attempts' VMs that are attached to none: they go with their VM, unless something went wrong."""
    return [
        Waste("disk", disk.name, disk.zone, "attached to no VM", disk.size_gb << 30)
        for disk in disks
        if disk.labels.get(OWNER) == "run" and not disk.users and now_s - disk.created_s > GRACE_S
    ]


def unwanted_objects(uri: str, head: Head | None, objects: Sequence[ObjectInfo], now_s: float) -> list[Waste]:
    """Checkpoints of attempts below head's that head does not keep, and parts of uploads that ended. A MANIFEST comes
    before the files that it lists: killed here or there, nothing looks whole that is not."""
    folders = set() if head is None else set(garbage(head, (o.name for o in objects if o.name.startswith(CHECKPOINTS))))
    finished = head is not None and head.status is Status.FINISHED
    found = []
    for info in objects:
        if "/".join(info.name.split("/")[:2]) in folders:
            why = "of a checkpoint that is not kept"
        elif PART.fullmatch(info.name) and (finished or now_s - info.updated_s > PART_S):
            why = "part of an upload that ended"
        else:
            continue
        found.append(Waste("object", info.name, uri, why, info.size_bytes, info.generation))
    return sorted(found, key=lambda waste: (not waste.name.endswith(f"/{MANIFEST}"), waste.name))


def _unwanted(vm: Vm, runs: Mapping[str, Facts], now_s: float) -> str | None:
    """Why nobody wants a VM; None where somebody may."""
    if vm.status is VmStatus.STOPPING:
        return None
    run, label = runs.get(vm.labels.get(OF_RUN, "")), vm.labels.get(OF_ATTEMPT, "")
    if run is None:
        return "its run is not in the bucket" if now_s - vm.created_s > GRACE_S else None
    number = int(label) if label.isdecimal() else 0
    claim = next((claim for claim in run.claims.attempts if claim.number == number), None)
    if claim is None:
        return f"attempt {label or '?'} of {run.uri} was never claimed"
    if claim.ended is not None:
        return f"attempt {number} of {run.uri} is over: {claim.ended.how}"
    if claim != run.claims.newest:
        return f"attempt {number} of {run.uri} was followed by another"
    finished = run.head is not None and run.head.status is Status.FINISHED
    if finished or run.claims.want != "run":
        state = "finished" if finished else {"stop": "stopped"}.get(run.claims.want, run.claims.want)
        if vm.status is VmStatus.STOPPED or now_s - run.changed_s > GRACE_S:
            return f"{run.uri} is {state}"
    return None
