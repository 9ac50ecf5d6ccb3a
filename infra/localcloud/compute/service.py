"""What every answer needs, and the rules that more than one of them keeps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from infra.localcloud.compute import catalog
from infra.localcloud.compute.errors import OperationError, not_found, quota_exceeded, quota_refused, stockout
from infra.localcloud.compute.faults import Faults
from infra.localcloud.compute.filters import compile_filter
from infra.localcloud.compute.life import Life
from infra.localcloud.compute.machines import Machines
from infra.localcloud.compute.quotas import GLOBAL, needs, used
from infra.localcloud.compute.records import Instance
from infra.localcloud.compute.resources import Urls, quota_json
from infra.localcloud.compute.rights import Rights
from infra.localcloud.compute.routes import Route
from infra.localcloud.compute.world import World
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request

PAGE = 500
"""Most items of a page, and how many there are where nobody says."""


@dataclass(frozen=True)
class Service:
    """One Compute Engine with one project."""

    project: str
    world: World
    faults: Faults
    machines: Machines
    life: Life
    rights: Rights
    """What accounts may do with VMs."""

    def urls(self, request: Request) -> Urls:
        """Addresses as this client knows them."""
        return Urls(f"{request.base_url}/compute/v1", self.project)

    def instance(self, where: Route) -> Instance:
        """The VM that is meant. Raises 404."""
        found = self.world.instance(self.zone(where), where.name)
        if found is None:
            raise not_found(where.path)
        return found

    def zone(self, where: Route) -> str:
        """The zone that is meant. Raises 404."""
        if where.zone not in catalog.all_zones():
            raise not_found(f"projects/{where.project}/zones/{where.zone}")
        return where.zone

    def quotas(self, *, region: str = "", metrics: Iterable[str]) -> list[dict[str, Any]]:
        """What is used of them, and their limits."""
        limits = {metric: self.faults.limit(metric, region)[0] for metric in metrics}
        return quota_json(used(self.world.instances(), region), limits)


def over_quota(world: World, faults: Faults, instance: Instance, where: str) -> tuple[str, float, str] | None:
    """(metric, limit, region) of a quota that this VM would exceed and that is told there."""
    region = catalog.region_of(instance.zone)
    others = used((vm for vm in world.instances() if vm.id != instance.id), region)
    for metric, amount in needs(instance).items():
        limit, told = faults.limit(metric, region)
        if told == where and amount and others[metric] + amount > limit:
            return metric, limit, "" if metric in GLOBAL else region
    return None


def refuse_in_operation(project: str, world: World, faults: Faults, instance: Instance) -> OperationError | None:
    """Why the platform cannot make this VM, if it cannot."""
    error = faults.operation_error("insert", instance.zone, instance.name)
    if error is not None:
        return error
    over = over_quota(world, faults, instance, "operation")
    if over is not None:
        return quota_exceeded(*over)
    if faults.is_sold_out(instance.zone, instance.machine_type):
        gpu, count = instance.gpus
        return stockout(project, instance.zone, instance.machine_type, f"{gpu}:{count}" if gpu else "")
    return None


def refuse_at_once(world: World, faults: Faults, instance: Instance) -> Refusal | None:
    """What is told in the answer already."""
    over = over_quota(world, faults, instance, "http")
    return None if over is None else quota_refused(*over)


def page(request: Request, kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """One page of a list: those that the filter leaves, in the order that is asked for. Raises 400."""
    test = compile_filter(request.query.get("filter", ""))
    kept = [item for item in items if test(item)]
    if request.query.get("orderBy", "").replace(" ", "") == "creationTimestampdesc":
        kept.sort(key=lambda item: str(item.get("creationTimestamp", item.get("insertTime", ""))), reverse=True)
    kept, token = cut(request, kept)
    answer: dict[str, Any] = {"kind": kind, "id": kind, "selfLink": f"{request.base_url}{request.path}"}
    answer |= {"items": kept} if kept else {}
    return answer | ({"nextPageToken": token} if token else {})


def cut(request: Request, items: list[Any]) -> tuple[list[Any], str]:
    """(the page that is asked for, token of the next)."""
    try:
        size = min(PAGE, int(request.query.get("maxResults", PAGE))) or PAGE
        start = int(request.query.get("pageToken") or 0)
    except ValueError:
        raise Refusal(400, "invalid", "Invalid value for field 'pageToken'.") from None
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""
