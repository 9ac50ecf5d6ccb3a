"""Operations: get, list, and wait, which answers within two minutes whether the operation is over or not."""

from typing import Any

from infra.localcloud.compute.errors import not_found
from infra.localcloud.compute.instances_api import by_zone
from infra.localcloud.compute.records import Operation
from infra.localcloud.compute.resources import operation_json
from infra.localcloud.compute.routes import Route
from infra.localcloud.compute.service import Service, page
from infra.localcloud.messages import Request

WAIT_S = 120.0


def get(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """An operation."""
    return operation_json(_operation(service, where), service.urls(request))


def wait(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """An operation, once it is over; or as it is when the time is up."""
    over = service.world.wait_done(_operation(service, where), WAIT_S / service.life.timings.scale)
    return operation_json(over, service.urls(request))


def listing(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """What was done in a zone."""
    urls = service.urls(request)
    found = [operation_json(each, urls) for each in service.world.operations(service.zone(where))]
    return page(request, "compute#operationList", found)


def aggregated(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """What was done in all zones."""
    urls = service.urls(request)
    found = [(each.zone, operation_json(each, urls)) for each in service.world.operations()]
    return by_zone(service, request, "compute#operationAggregatedList", "operations", found)


def _operation(service: Service, where: Route) -> Operation:
    found = service.world.operation(service.zone(where), where.name)
    if found is None:
        raise not_found(f"projects/{where.project}/zones/{where.zone}/operations/{where.name}")
    return found
