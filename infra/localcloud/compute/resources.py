"""What there is, as the API shows it. Pure."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from infra.localcloud.compute import catalog
from infra.localcloud.compute.records import Instance, Operation, timestamp

EPOCH = "1969-12-31T16:00:00.000-08:00"


@dataclass(frozen=True)
class Urls:
    """Addresses of resources, as this client knows the server."""

    base: str
    """`http://127.0.0.1:PORT/compute/v1`."""
    project: str

    def of(self, *path: str) -> str:
        """A resource of the project."""
        return "/".join((self.base, "projects", self.project, *path))

    def zone(self, zone: str, *path: str) -> str:
        """A zone, or something in it."""
        return self.of("zones", zone, *path)


def instance_json(vm: Instance, urls: Urls) -> dict[str, Any]:
    """A VM."""
    made: dict[str, Any] = {
        **vm.resource,
        "kind": "compute#instance",
        "id": str(vm.id),
        "creationTimestamp": timestamp(vm.created_s),
        "name": vm.name,
        "zone": urls.zone(vm.zone),
        "machineType": urls.zone(vm.zone, "machineTypes", vm.machine_type),
        "selfLink": urls.zone(vm.zone, "instances", vm.name),
        "status": vm.status,
        "cpuPlatform": "Unknown CPU Platform" if vm.status in ("PROVISIONING", "TERMINATED") else "Intel Cascade Lake",
        "labelFingerprint": fingerprint(vm.labels),
        "fingerprint": fingerprint([vm.id, vm.resource["scheduling"]]),
        "metadata": {
            "kind": "compute#metadata",
            "fingerprint": fingerprint(vm.resource["metadata"]),
            **vm.resource["metadata"],
        },
        "tags": {"fingerprint": fingerprint(vm.resource.get("tags", {})), **vm.resource.get("tags", {})},
        "disks": [
            {
                **{key: value for key, value in disk.items() if key not in ("diskType", "labels")},
                "source": urls.zone(vm.zone, "disks", disk["source"]),
            }
            for disk in vm.resource["disks"]
        ],
        "networkInterfaces": [
            {**nic, "network": urls.of("global", "networks", "default")} for nic in vm.resource["networkInterfaces"]
        ],
        "guestAccelerators": [
            {**gpu, "acceleratorType": urls.zone(vm.zone, "acceleratorTypes", vm.gpus[0])}
            for gpu in vm.resource["guestAccelerators"]
        ],
        "deletionProtection": False,
        "startRestricted": False,
        "resourceStatus": {},
    }
    for key, at_s in (("lastStartTimestamp", vm.started_s), ("lastStopTimestamp", vm.stopped_s)):
        if at_s is not None:
            made[key] = timestamp(at_s)
    if vm.ends_at_s is not None:
        made["resourceStatus"] = {"scheduling": {"terminationTimestamp": timestamp(vm.ends_at_s)}}
    return {key: value for key, value in made.items() if value not in ([], {})}


def operation_json(operation: Operation, urls: Urls) -> dict[str, Any]:
    """An operation."""
    made: dict[str, Any] = {
        "kind": "compute#operation",
        "id": str(operation.id),
        "name": operation.name,
        "zone": urls.zone(operation.zone),
        "operationType": operation.kind,
        "targetLink": urls.zone(operation.zone, "instances", operation.target),
        "targetId": str(operation.target_id),
        "status": operation.status,
        "user": operation.user,
        "progress": 100 if operation.done else 0,
        "insertTime": timestamp(operation.inserted_s),
        "selfLink": urls.zone(operation.zone, "operations", operation.name),
    }
    if operation.request_id:
        made["clientOperationId"] = operation.request_id
    if operation.status_message:
        made["statusMessage"] = operation.status_message
    for key, at_s in (("startTime", operation.started_s), ("endTime", operation.ended_s)):
        if at_s is not None:
            made[key] = timestamp(at_s)
    return made | ({} if operation.error is None else operation.error.as_json())


def zone_json(zone: str, urls: Urls) -> dict[str, Any]:
    """A zone."""
    region = catalog.region_of(zone)
    return {
        "kind": "compute#zone",
        "id": number(zone),
        "creationTimestamp": EPOCH,
        "name": zone,
        "description": zone,
        "status": "UP",
        "region": urls.of("regions", region),
        "selfLink": urls.zone(zone),
        "supportsPzs": False,
    }


def region_json(region: str, urls: Urls, quotas: list[dict[str, Any]]) -> dict[str, Any]:
    """A region, with what is used of its quotas."""
    return {
        "kind": "compute#region",
        "id": number(region),
        "creationTimestamp": EPOCH,
        "name": region,
        "description": region,
        "status": "UP",
        "zones": [urls.zone(f"{region}-{letter}") for letter in catalog.ZONES[region]],
        "quotas": quotas,
        "selfLink": urls.of("regions", region),
    }


def machine_type_json(machine: catalog.MachineType, zone: str, urls: Urls) -> dict[str, Any]:
    """A machine type in a zone."""
    made: dict[str, Any] = {
        "kind": "compute#machineType",
        "id": number(machine.name),
        "creationTimestamp": EPOCH,
        "name": machine.name,
        "description": f"{machine.cpus} vCPUs, {machine.memory_mb / 1024:g} GB RAM",
        "guestCpus": machine.cpus,
        "memoryMb": machine.memory_mb,
        "imageSpaceGb": 0,
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "zone": zone,
        "selfLink": urls.zone(zone, "machineTypes", machine.name),
        "isSharedCpu": machine.name in ("e2-micro", "e2-small", "e2-medium"),
    }
    if machine.gpu is not None:
        made["accelerators"] = [{"guestAcceleratorType": machine.gpu, "guestAcceleratorCount": machine.gpus}]
    return made


def accelerator_type_json(gpu: str, zone: str, urls: Urls) -> dict[str, Any]:
    """A GPU in a zone."""
    return {
        "kind": "compute#acceleratorType",
        "id": number(gpu),
        "creationTimestamp": EPOCH,
        "name": gpu,
        "description": gpu,
        "maximumCardsPerInstance": 8,
        "zone": urls.zone(zone),
        "selfLink": urls.zone(zone, "acceleratorTypes", gpu),
    }


def image_json(project: str, name: str, family: str | None, base: str) -> dict[str, Any]:
    """An image: whatever its name, there is one."""
    made = {
        "kind": "compute#image",
        "id": number(f"{project}/{name}"),
        "creationTimestamp": EPOCH,
        "name": name,
        "status": "READY",
        "sourceType": "RAW",
        "diskSizeGb": "10",
        "architecture": "X86_64",
        "selfLink": f"{base}/projects/{project}/global/images/{name}",
    }
    return made | ({} if family is None else {"family": family})


def project_json(urls: Urls, quotas: list[dict[str, Any]]) -> dict[str, Any]:
    """The project."""
    return {
        "kind": "compute#project",
        "id": number(urls.project),
        "creationTimestamp": EPOCH,
        "name": urls.project,
        "quotas": quotas,
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": fingerprint({})},
        "defaultServiceAccount": f"{number(urls.project)}-compute@developer.gserviceaccount.com",
        "defaultNetworkTier": "PREMIUM",
        "selfLink": urls.of(),
    }


def quota_json(used: dict[str, float], limits: dict[str, float]) -> list[dict[str, Any]]:
    """Quotas with their limits."""
    return [
        {"metric": metric, "limit": limit, "usage": float(used.get(metric, 0.0))} for metric, limit in limits.items()
    ]


def fingerprint(data: object) -> str:
    """Changes with what it stands for."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).digest()
    return base64.urlsafe_b64encode(digest[:8]).decode()


def number(name: str) -> str:
    """The id of what has always been there."""
    return str(10**18 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]))
