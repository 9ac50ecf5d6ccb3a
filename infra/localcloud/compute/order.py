"""From the body of an insert to a VM: what it says is checked as Compute Engine does, its defaults filled in. Pure."""

import re
from typing import Any

from infra.localcloud.compute import catalog
from infra.localcloud.compute.errors import bad_value, not_found
from infra.localcloud.compute.records import Instance, last
from infra.localcloud.errors import Refusal

NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
METADATA_KEY = re.compile(r"[-_a-zA-Z0-9]{1,128}")
MOST_LABELS = 64
VALUE_BYTES, METADATA_BYTES = 256 * 1024, 512 * 1024
RUN_S = (30, 120 * 24 * 3600)
NOTICES_S = (0, 120)
SMALLEST_DISK_GB = 10


def make_instance(body: dict[str, Any], *, project: str, zone: str, id: int, now_s: float) -> Instance:
    """The VM that is asked for, about to be provisioned. Raises 400 for what is wrong with it."""
    name = str(body.get("name", ""))
    if not NAME.fullmatch(name):
        raise bad_value("resource.name", name, f"Must be a match of regex '{NAME.pattern}'")
    machine = _machine_type(str(body.get("machineType", "")), zone)
    gpus = _gpus(body, machine, project, zone)
    resource = {
        **{key: value for key, value in body.items() if key not in ("name", "machineType")},
        "labels": _labels(body.get("labels", {})),
        "metadata": _metadata(body.get("metadata", {})),
        "scheduling": _scheduling(body.get("scheduling", {}), has_gpu=bool(gpus)),
        "disks": _disks(body.get("disks", []), name, machine.name),
        "networkInterfaces": _interfaces(body.get("networkInterfaces", []), id),
        "serviceAccounts": _accounts(body.get("serviceAccounts", [])),
        "guestAccelerators": gpus,
    }
    if machine.name.startswith("a3-highgpu-") and machine.gpus < 8 and not resource["scheduling"]["preemptible"]:
        raise bad_value("resource.machineType", machine.name, "It is offered as Spot or Flex-start only.")
    return Instance(id, name, zone, machine.name, resource, "PROVISIONING", now_s)


def _machine_type(url: str, zone: str) -> catalog.MachineType:
    field, name = "resource.machineType", last(url)
    there = re.search(r"zones/([^/]+)/machineTypes/", url)
    if there is None or there[1] != zone:
        raise bad_value(field, url, f"It must be zones/{zone}/machineTypes/NAME.")
    machine = catalog.MACHINE_TYPES.get(name)
    if machine is None or not catalog.sold_in(zone, machine):
        raise bad_value(field, url, f"Machine type with name '{name}' does not exist in zone '{zone}'.")
    return machine


def _gpus(body: dict[str, Any], machine: catalog.MachineType, project: str, zone: str) -> list[dict[str, Any]]:
    asked = body.get("guestAccelerators", [])
    if machine.gpu is not None:
        return [{"acceleratorType": f"zones/{zone}/acceleratorTypes/{machine.gpu}", "acceleratorCount": machine.gpus}]
    for each in asked:
        name = last(str(each.get("acceleratorType", "")))
        if not machine.name.startswith("n1-"):
            raise bad_value("resource.guestAccelerators", name, f"{machine.name} takes no accelerators.")
        if name not in catalog.GPU_ZONES or zone not in catalog.zones_of_gpu(name):
            raise not_found(f"projects/{project}/zones/{zone}/acceleratorTypes/{name}")
        each["acceleratorCount"] = int(each.get("acceleratorCount", 1))
    return [dict(each) for each in asked]


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise bad_value("resource.labels", f"{key}={value}", "Small letters, digits, '-' and '_' only, 63 at most.")
    if len(labels) > MOST_LABELS:
        raise bad_value("resource.labels", len(labels), f"No more than {MOST_LABELS} labels.")
    return dict(labels)


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    items = metadata.get("items", [])
    sizes = []
    for item in items:
        sizes.append(len(str(item.get("value", "")).encode()))
        if not METADATA_KEY.fullmatch(item.get("key", "")):
            raise bad_value("resource.metadata.items[0].key", item.get("key", ""))
    if any(size > VALUE_BYTES for size in sizes) or sum(sizes) > METADATA_BYTES:
        raise bad_value("resource.metadata", f"{sum(sizes)} bytes", "256 KiB for each value, 512 KiB for all.")
    if len({item["key"] for item in items}) < len(items):
        raise bad_value("resource.metadata.items", "", "Metadata has duplicate keys.")
    return {"items": [{"key": item["key"], "value": str(item.get("value", ""))} for item in items]}


def _scheduling(asked: dict[str, Any], *, has_gpu: bool) -> dict[str, Any]:
    field = "resource.scheduling"
    spot = asked.get("provisioningModel") == "SPOT" or bool(asked.get("preemptible"))
    made = {
        "provisioningModel": "SPOT" if spot else "STANDARD",
        "preemptible": spot,
        "automaticRestart": not spot,
        "onHostMaintenance": "TERMINATE" if spot else "MIGRATE",
        **asked,
    }
    made["preemptible"] = spot
    if made["provisioningModel"] not in ("SPOT", "STANDARD"):
        raise Refusal(501, "notImplemented", f"This local cloud has no {made['provisioningModel']} VMs.")
    if spot and made["automaticRestart"]:
        raise bad_value(f"{field}.automaticRestart", "true", "Spot VMs cannot restart automatically.")
    if (spot or has_gpu) and made["onHostMaintenance"] != "TERMINATE":
        why = "Instances with guest accelerators do not support live migration." if has_gpu else "Spot VMs stop."
        raise bad_value(f"{field}.onHostMaintenance", made["onHostMaintenance"], why)
    _limits(made, spot=spot)
    return made


def _limits(made: dict[str, Any], *, spot: bool) -> None:
    field = "resource.scheduling"
    action = made.get("instanceTerminationAction")
    if action not in (None, "STOP", "DELETE"):
        raise bad_value(f"{field}.instanceTerminationAction", action)
    run = made.get("maxRunDuration")
    if run is not None:
        seconds = int(run.get("seconds", 0))
        if not RUN_S[0] <= seconds <= RUN_S[1]:
            raise bad_value(f"{field}.maxRunDuration", seconds, f"Must be {RUN_S[0]} s to {RUN_S[1]} s.")
        if action is None:
            raise bad_value(f"{field}.instanceTerminationAction", "", "Needed where maxRunDuration is set.")
    elif action is not None and not spot:
        raise bad_value(f"{field}.instanceTerminationAction", action, "Only for Spot VMs or with a time limit.")
    notice = made.get("preemptionNoticeDuration")
    if notice is not None and (not spot or int(notice.get("seconds", 0)) not in NOTICES_S):
        why = "Must be 0 s or 120 s, and only for Spot VMs."
        raise bad_value(f"{field}.preemptionNoticeDuration", notice.get("seconds", 0), why)


def _disks(disks: list[dict[str, Any]], name: str, machine_type: str) -> list[dict[str, Any]]:
    if not disks or not disks[0].get("boot"):
        raise bad_value("resource.disks", "", "At least one disk, the first of them for booting, must be specified.")
    made = []
    for index, disk in enumerate(disks):
        asked = disk.get("initializeParams", {})
        kind = last(str(asked.get("diskType", "pd-standard" if machine_type.startswith("n1-") else "pd-balanced")))
        size_gb = int(asked.get("diskSizeGb", disk.get("diskSizeGb", SMALLEST_DISK_GB)))
        if disk.get("boot") and not asked.get("sourceImage") and not disk.get("source"):
            raise bad_value(f"resource.disks[{index}].initializeParams", "", "No image is named.")
        if kind == "pd-standard" and machine_type.startswith(catalog.NO_STANDARD_DISK):
            raise bad_value("resource.disks", kind, f"[pd-standard] features are not compatible with {machine_type}.")
        if not disk.get("autoDelete"):
            raise Refusal(
                501, "notImplemented", "This local cloud keeps no disk longer than its VM: autoDelete, please."
            )
        if size_gb < SMALLEST_DISK_GB:
            raise bad_value(f"resource.disks[{index}].initializeParams.diskSizeGb", size_gb, "Too small for the image.")
        made.append(
            {
                "kind": "compute#attachedDisk",
                "type": disk.get("type", "PERSISTENT"),
                "mode": disk.get("mode", "READ_WRITE"),
                "boot": bool(disk.get("boot")),
                "autoDelete": bool(disk.get("autoDelete")),
                "deviceName": disk.get("deviceName", f"persistent-disk-{index}"),
                "index": index,
                "diskSizeGb": str(size_gb),
                "diskType": kind,
                "labels": _labels(asked.get("labels", {})),
                "interface": "SCSI",
                "source": asked.get("diskName", name if index == 0 else f"{name}-{index}"),
            }
        )
    return made


def _interfaces(interfaces: list[dict[str, Any]], id: int) -> list[dict[str, Any]]:
    if not interfaces:
        raise bad_value("resource.networkInterfaces", "", "At least one network interface is required.")
    address = f"10.128.{id // 251 % 251}.{2 + id % 251}"
    made: list[dict[str, Any]] = []
    for index, interface in enumerate(interfaces):
        outside = [
            {"kind": "compute#accessConfig", "name": "External NAT", "type": "ONE_TO_ONE_NAT", "networkTier": "PREMIUM"}
            | config
            | {"natIP": f"203.0.113.{1 + id % 254}"}
            for config in interface.get("accessConfigs", [])
        ]
        made.append(
            {"kind": "compute#networkInterface", "network": "global/networks/default"}
            | interface
            | {"name": f"nic{index}", "networkIP": address, "stackType": "IPV4_ONLY"}
            | ({"accessConfigs": outside} if outside else {})
        )
    return made


def _accounts(accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(accounts) > 1:
        raise bad_value("resource.serviceAccounts", len(accounts), "At most one service account.")
    return [dict(account) for account in accounts]
