"""VMs: insert, get, list, delete, stop, start, what they printed, and maintenance on demand."""

from collections.abc import Callable
from typing import Any

from infra.localcloud.compute import catalog
from infra.localcloud.compute.errors import already_exists, bad_value, not_ready
from infra.localcloud.compute.order import make_instance
from infra.localcloud.compute.records import Instance, Operation
from infra.localcloud.compute.resources import instance_json, operation_json
from infra.localcloud.compute.rights import acted_as, of_insert
from infra.localcloud.compute.routes import Route
from infra.localcloud.compute.service import Service, page, refuse_at_once
from infra.localcloud.compute.world import new_id
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request

CONSOLE_BYTES = 1024 * 1024


def insert(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A VM; what becomes of it tells the operation."""
    world, zone = service.world, service.zone(where)
    body = request.json()
    path = f"projects/{service.project}/zones/{zone}/instances/{body.get('name', '')}"
    service.rights.require(request.account, of_insert(body), path, str(body.get("name", "")))
    for account in acted_as(body):
        service.rights.require_acting(request.account, account, path)
    if "sourceInstanceTemplate" in request.query or "sourceMachineImage" in request.query:
        raise Refusal(501, "notImplemented", "This local cloud makes VMs from what the request says only.")
    with world.lock:
        before = _before(service, request, where, "insert")
        if before is None:
            wanted = make_instance(body, project=service.project, zone=zone, id=new_id(), now_s=world.now())
            _refuse_taken(service, wanted)
            refusal = refuse_at_once(world, service.faults, wanted)
            if refusal is not None:
                raise refusal
            made = world.put(wanted)
            before = world.begin(made, "insert", request.account, request.query.get("requestId", ""))
            service.life.create(made, before)
    return operation_json(before, service.urls(request))


def _refuse_taken(service: Service, wanted: Instance) -> None:
    for other in service.world.instances():
        if other.name == wanted.name and other.zone == wanted.zone:
            raise already_exists(f"projects/{service.project}/zones/{wanted.zone}/instances/{wanted.name}")
        if other.name == wanted.name:
            raise Refusal(501, "notImplemented", f"This local cloud has one VM of a name: it is in {other.zone}.")


def get(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """A VM."""
    return instance_json(service.instance(where), service.urls(request))


def listing(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The VMs of a zone."""
    urls = service.urls(request)
    found = [instance_json(vm, urls) for vm in service.world.instances(service.zone(where))]
    return page(request, "compute#instanceList", found)


def aggregated(service: Service, request: Request, _: Route) -> dict[str, Any]:
    """The VMs of all zones."""
    urls = service.urls(request)
    found = [(vm.zone, instance_json(vm, urls)) for vm in service.world.instances()]
    return by_zone(service, request, "compute#instanceAggregatedList", "instances", found)


def delete(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The end of a VM."""
    return _change(service, request, where, "delete", ("RUNNING", "TERMINATED"), _delete)


def stop(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """Off, the disk stays. One that is off already stays so."""
    return _change(service, request, where, "stop", ("RUNNING", "TERMINATED"), _stop)


def start(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """On again. One that is on already stays so."""
    return _change(service, request, where, "start", ("RUNNING", "TERMINATED"), _start)


def simulate_maintenance(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """What maintenance of its host does: a spot VM is preempted, another one with a GPU stops and starts again."""
    return _change(service, request, where, "simulateMaintenanceEvent", ("RUNNING",), _maintain)


def serial_port(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """What the VM printed."""
    vm = service.instance(where)
    if request.query.get("port", "1") != "1":
        raise bad_value("port", request.query["port"], "Only port 1 is used.")
    text = service.machines.console(vm.name)
    begin = int(request.query.get("start", 0))
    end = min(len(text), begin + CONSOLE_BYTES)
    kind = "compute#serialPortOutput"
    return {"kind": kind, "contents": text[begin:end], "start": str(begin), "next": str(end)}


def by_zone(
    service: Service, request: Request, kind: str, of: str, found: list[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """An aggregated list: every zone is named, also those that have nothing, and those that do not answer."""
    silent = [zone for zone in catalog.all_zones() if service.faults.is_unreachable(zone)]
    if silent and request.query.get("returnPartialSuccess", "true") != "true":  # the Python client cannot say it
        raise Refusal(503, "backendError", f"Zones did not answer: {', '.join(silent)}.")
    kept = [item for item in found if item[0] not in silent]
    everything = page(request, kind, [item for _, item in kept])
    shown = {id(item) for item in everything.pop("items", [])}
    scopes: dict[str, dict[str, Any]] = {}
    for zone in catalog.all_zones():
        here = [item for its_zone, item in kept if its_zone == zone and id(item) in shown]
        scopes[f"zones/{zone}"] = {of: here} if here else {"warning": _warning(zone, silent=zone in silent)}
    unreachable = {"unreachables": [f"zones/{zone}" for zone in silent]} if silent else {}
    return everything | {"items": scopes} | unreachable


def _warning(zone: str, *, silent: bool) -> dict[str, Any]:
    message = f"The zone {zone} did not answer." if silent else "There are no results for scope"
    return {
        "code": "UNREACHABLE" if silent else "NO_RESULTS_ON_PAGE",
        "message": f"{message} 'zones/{zone}' on this page." if not silent else message,
        "data": [{"key": "scope", "value": f"zones/{zone}"}],
    }


Act = Callable[[Service, Instance, Operation], None]


def _change(
    service: Service, request: Request, where: Route, kind: str, allowed: tuple[str, ...], act: Act
) -> dict[str, Any]:
    """Begins an operation on a VM, unless this request was heard before."""
    with service.world.lock:
        operation = _before(service, request, where, kind)
        if operation is None:
            vm = service.instance(where)
            if vm.status not in allowed:
                raise not_ready(where.path)
            operation = service.world.begin(vm, kind, request.account, request.query.get("requestId", ""))
            act(service, vm, operation)
    return operation_json(operation, service.urls(request))


def _before(service: Service, request: Request, where: Route, kind: str) -> Operation | None:
    return service.world.asked_before(where.zone, kind, request.query.get("requestId", ""))


def _delete(service: Service, vm: Instance, operation: Operation) -> None:
    service.life.stop(vm, operation, delete=True)


def _stop(service: Service, vm: Instance, operation: Operation) -> None:
    if vm.status == "TERMINATED":
        service.world.finish(operation)
    else:
        service.life.stop(vm, operation, delete=False)


def _start(service: Service, vm: Instance, operation: Operation) -> None:
    if vm.status == "RUNNING":
        service.world.finish(operation)
    else:
        service.life.start(vm, operation)


def _maintain(service: Service, vm: Instance, operation: Operation) -> None:
    service.world.finish(operation)
    if vm.spot:
        service.life.preempt(vm)
    elif vm.scheduling["onHostMaintenance"] == "TERMINATE":
        service.life.host_error(vm, "compute.instances.terminateOnHostMaintenance")
