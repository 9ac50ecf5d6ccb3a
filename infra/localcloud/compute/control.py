"""`/_control`: troubles on demand and what happened, as JSON, for `baton local`, tests and benchmarks.

GET  /_control                          what there is, what is armed, what was asked
GET  /_control/events?after=N&wait_s=S  what happened after event N; waits for it up to S seconds
POST /_control {"do": "preempt", "vm": "NAME", "notice_s": 0}, and so on: ACTIONS below say which there are
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from infra.localcloud.compute.records import Instance
from infra.localcloud.compute.service import Service
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request, Response, json_response

PATH = "/_control"
LONGEST_WAIT_S = 600.0
NOTICES_S = (0, 30, 120)
Action = Callable[[Service, dict[str, Any]], dict[str, Any]]


def control(service: Service, request: Request, asked: dict[str, int], shutdown: Callable[[], None]) -> Response:
    """The answer. Raises 400, 404."""
    if request.path == f"{PATH}/events":
        after, wait_s = int(request.query.get("after", 0)), float(request.query.get("wait_s", 0))
        events = service.world.events(after, min(wait_s, LONGEST_WAIT_S))
        return json_response({"events": [event.as_json() for event in events]})
    if request.path != PATH or request.method not in ("GET", "POST"):
        raise Refusal(404, "notFound", f"There is no {request.method} {request.path}.")
    if request.method == "GET":
        return json_response(_state(service, asked))
    order = request.json()
    what = order.pop("do", "")
    if what == "shutdown":
        shutdown()
        return json_response({})
    if what not in ACTIONS:
        raise Refusal(400, "invalid", f"do is one of {', '.join(sorted([*ACTIONS, 'shutdown']))}, not {what!r}.")
    try:
        return json_response(ACTIONS[what](service, order))
    except KeyError as error:
        raise Refusal(400, "invalid", f"{what} needs {error}.") from None
    except (TypeError, ValueError) as error:
        raise Refusal(400, "invalid", f"{what}: {error}") from None


def _state(service: Service, asked: dict[str, int]) -> dict[str, Any]:
    return {
        "project": service.project,
        "scale": service.life.timings.scale,
        "vms": [_summary(vm) for vm in service.world.instances()],
        "faults": service.faults.armed(),
        "asked": asked,
        "rights": service.rights.used(),
    }


def _summary(vm: Instance) -> dict[str, Any]:
    shown = ("id", "name", "zone", "machine_type", "status", "created_s", "started_s", "stopped_s")
    return {key: value for key, value in asdict(vm).items() if key in shown} | {"spot": vm.spot, "labels": vm.labels}


def _vm(service: Service, name: str, *statuses: str) -> Instance:
    for vm in service.world.instances():
        if vm.name == name:
            if statuses and vm.status not in statuses:
                raise Refusal(409, "resourceNotReady", f"{name} is {vm.status}, not {' or '.join(statuses)}.")
            return vm
    names = ", ".join(vm.name for vm in service.world.instances()) or "none"
    raise Refusal(404, "notFound", f"There is no VM {name}; there are: {names}.")


def _preempt(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    notice_s = order.get("notice_s")
    if notice_s is not None and notice_s not in NOTICES_S:
        raise ValueError(f"notice_s is one of {NOTICES_S}, not {notice_s}")
    with service.world.lock:
        vm = _vm(service, order["vm"], "PROVISIONING", "STAGING", "RUNNING")
        if not vm.spot:
            raise ValueError(f"{vm.name} is no spot VM: it is never preempted")
        if notice_s == 120 and not vm.notice_s:
            raise ValueError(f"{vm.name} was created without preemptionNoticeDuration: its notice is 30 s")
        service.life.preempt(vm, None if notice_s is None else float(notice_s))
    return {"vm": vm.name, "zone": vm.zone, "id": str(vm.id)}


def _host_error(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    with service.world.lock:
        vm = _vm(service, order["vm"], "RUNNING")
        service.life.host_error(vm)
    return {"vm": vm.name}


def _zombie(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    with service.world.lock:
        vm = _vm(service, order["vm"], "RUNNING")
        service.life.zombie(vm)
    return {"vm": vm.name}


def _partition(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    vm = _vm(service, order["vm"], "RUNNING")
    service.machines.partition(vm.name, cut=not order.get("over", False))
    return {"vm": vm.name}


def _sick_gpu(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    service.machines.sick_gpu(str(order["vm"]))
    return {"vm": order["vm"]}


def _out_of_memory(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    vm = _vm(service, order["vm"], "RUNNING")
    service.machines.out_of_memory(vm.name)
    return {"vm": vm.name}


def _stockout(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    service.faults.stockout(
        order["zone"], order.get("machine_type", "*"), order.get("for_s"), over=order.get("over", False)
    )
    return {}


def _quota(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    limit = None if order.get("over") else float(order.get("limit", 0))
    service.faults.quota(order["metric"], limit, order.get("region", "*"), order.get("where", "operation"))
    return {}


def _api_down(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    service.faults.down(float(order["seconds"]))
    return {}


def _unreachable(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    service.faults.unreachable(order["zone"], over=order.get("over", False))
    return {}


def _fault(service: Service, order: dict[str, Any]) -> dict[str, Any]:
    service.faults.arm(order)
    return {}


def _clear(service: Service, _: dict[str, Any]) -> dict[str, Any]:
    service.faults.clear()
    return {}


ACTIONS: dict[str, Action] = {
    "preempt": _preempt,
    "host-error": _host_error,
    "zombie": _zombie,
    "partition": _partition,
    "sick-gpu": _sick_gpu,
    "out-of-memory": _out_of_memory,
    "stockout": _stockout,
    "quota": _quota,
    "api-down": _api_down,
    "unreachable": _unreachable,
    "fault": _fault,
    "clear": _clear,
}
