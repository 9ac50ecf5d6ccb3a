"""Disks: those of VMs, which end with them."""

from typing import Any

from infra.localcloud.compute.errors import not_found
from infra.localcloud.compute.instances_api import by_zone
from infra.localcloud.compute.records import last, timestamp
from infra.localcloud.compute.resources import number
from infra.localcloud.compute.routes import Route
from infra.localcloud.compute.service import Service, page
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request


def disks(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The disks of a zone: those of its VMs, which end with them."""
    zone = service.zone(where)
    return page(request, "compute#diskList", [item for there, item in _disks(service, request) if there == zone])


def disks_everywhere(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """The disks of all zones."""
    return by_zone(service, request, "compute#diskAggregatedList", "disks", _disks(service, request))


def disk(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A disk."""
    zone = service.zone(where)
    for there, item in _disks(service, request):
        if there == zone and item["name"] == where.name:
            return item
    raise not_found(f"projects/{where.project}/zones/{where.zone}/disks/{where.name}")


def delete(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """Refuses: every disk here is some VM's, and ends with it."""
    found = disk(service, request, where)
    path, user = f"projects/{where.project}/zones/{where.zone}/disks/{where.name}", last(found["users"][0])
    words = f"The disk resource '{path}' is already being used by '{user}'"
    raise Refusal(400, "resourceInUseByAnotherResource", words)


def _disks(service: Service, request: Request) -> list[tuple[str, dict[str, Any]]]:
    urls = service.urls(request)
    found = []
    for vm in service.world.instances():
        for disk in vm.resource["disks"]:
            name = disk["source"]
            item = {
                "kind": "compute#disk",
                "id": number(f"{vm.id}/{name}"),
                "creationTimestamp": timestamp(vm.created_s),
                "name": name,
                "sizeGb": disk["diskSizeGb"],
                "zone": urls.zone(vm.zone),
                "status": "READY",
                "type": urls.zone(vm.zone, "diskTypes", disk["diskType"]),
                "labels": disk["labels"],
                "users": [urls.zone(vm.zone, "instances", vm.name)],
                "selfLink": urls.zone(vm.zone, "disks", name),
            }
            found.append((vm.zone, item))
    return found
