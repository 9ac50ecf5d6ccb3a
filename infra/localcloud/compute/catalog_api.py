"""What is always there: the project, zones, regions with their quotas, machine types, GPUs, images."""

from typing import Any

from infra.localcloud.compute import catalog
from infra.localcloud.compute.errors import not_found
from infra.localcloud.compute.instances_api import by_zone
from infra.localcloud.compute.quotas import GLOBAL, REGIONAL
from infra.localcloud.compute.resources import (
    Urls,
    accelerator_type_json,
    image_json,
    machine_type_json,
    project_json,
    region_json,
    zone_json,
)
from infra.localcloud.compute.routes import Route
from infra.localcloud.compute.service import Service, page
from infra.localcloud.messages import Request


def project(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """The project."""
    return project_json(service.urls(request), service.quotas(metrics=GLOBAL))


def zones(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """All zones."""
    urls = service.urls(request)
    return page(request, "compute#zoneList", [zone_json(zone, urls) for zone in catalog.all_zones()])


def zone(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A zone."""
    return zone_json(service.zone(where), service.urls(request))


def regions(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """All regions."""
    return page(request, "compute#regionList", [_region(service, request, name) for name in catalog.ZONES])


def region(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A region, with its quotas."""
    if where.region not in catalog.ZONES:
        raise not_found(f"projects/{where.project}/regions/{where.region}")
    return _region(service, request, where.region)


def _region(service: Service, request: Request, name: str) -> dict[str, Any]:
    return region_json(name, service.urls(request), service.quotas(region=name, metrics=REGIONAL))


def machine_types(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """What a zone sells."""
    found = _machine_types(service.zone(where), service.urls(request))
    return page(request, "compute#machineTypeList", found)


def machine_types_everywhere(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """What all zones sell."""
    urls = service.urls(request)
    found = [(zone, item) for zone in catalog.all_zones() for item in _machine_types(zone, urls)]
    return by_zone(service, request, "compute#machineTypeAggregatedList", "machineTypes", found)


def machine_type(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A machine type in a zone."""
    machine = catalog.MACHINE_TYPES.get(where.name)
    if machine is None or not catalog.sold_in(service.zone(where), machine):
        raise not_found(f"projects/{where.project}/zones/{where.zone}/machineTypes/{where.name}")
    return machine_type_json(machine, where.zone, service.urls(request))


def _machine_types(zone: str, urls: Urls) -> list[dict[str, Any]]:
    return [
        machine_type_json(machine, zone, urls)
        for machine in sorted(catalog.MACHINE_TYPES.values(), key=lambda machine: machine.name)
        if catalog.sold_in(zone, machine)
    ]


def accelerator_types(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The GPUs of a zone."""
    found = _accelerator_types(service.zone(where), service.urls(request))
    return page(request, "compute#acceleratorTypeList", found)


def accelerator_types_everywhere(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """The GPUs of all zones."""
    urls = service.urls(request)
    found = [(zone, item) for zone in catalog.all_zones() for item in _accelerator_types(zone, urls)]
    return by_zone(service, request, "compute#acceleratorTypeAggregatedList", "acceleratorTypes", found)


def accelerator_type(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A GPU in a zone."""
    if where.name not in catalog.GPU_ZONES or service.zone(where) not in catalog.zones_of_gpu(where.name):
        raise not_found(f"projects/{where.project}/zones/{where.zone}/acceleratorTypes/{where.name}")
    return accelerator_type_json(where.name, where.zone, service.urls(request))


def _accelerator_types(zone: str, urls: Urls) -> list[dict[str, Any]]:
    return [
        accelerator_type_json(gpu, zone, urls) for gpu in sorted(catalog.GPU_ZONES) if zone in catalog.zones_of_gpu(gpu)
    ]


def image(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """An image: whatever is named is there, and boots the repository's startup script."""
    return image_json(where.project, where.name, None, service.urls(request).base)


def image_from_family(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The newest image of a family."""
    return image_json(where.project, f"{where.name}-v20261101", where.name, service.urls(request).base)


def image_family_view(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The same, as gcloud asks for it."""
    return {"image": image_from_family(service, request, where)}
