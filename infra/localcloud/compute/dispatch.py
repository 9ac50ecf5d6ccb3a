"""From a request to its answer: who asks, what for, which trouble strikes; and every one of them is counted."""

import threading
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from infra.localcloud.callers import LAPTOP, Callers
from infra.localcloud.compute import advice_api, catalog_api, control, disks_api, instances_api, laptop, operations_api
from infra.localcloud.compute.errors import forbidden
from infra.localcloud.compute.routes import Route, route
from infra.localcloud.compute.service import Service
from infra.localcloud.errors import ANONYMOUS, Refusal, invalid_credentials
from infra.localcloud.messages import ConnectionCut, Request, Response, json_response, refused

Handler = Callable[[Service, Request, Route], dict[str, Any]]
HANDLERS: dict[str, Handler] = {
    "project_get": catalog_api.project,
    "zones_list": catalog_api.zones,
    "zone_get": catalog_api.zone,
    "regions_list": catalog_api.regions,
    "region_get": catalog_api.region,
    "advice_capacity": advice_api.capacity,
    "machine_types_list": catalog_api.machine_types,
    "machine_types_aggregated": catalog_api.machine_types_everywhere,
    "machine_type_get": catalog_api.machine_type,
    "accelerator_types_list": catalog_api.accelerator_types,
    "accelerator_types_aggregated": catalog_api.accelerator_types_everywhere,
    "accelerator_type_get": catalog_api.accelerator_type,
    "image_from_family": catalog_api.image_from_family,
    "image_get": catalog_api.image,
    "image_family_view": catalog_api.image_family_view,
    "disks_list": disks_api.disks,
    "disks_aggregated": disks_api.disks_everywhere,
    "disk_get": disks_api.disk,
    "disk_delete": disks_api.delete,
    "aggregated_list": instances_api.aggregated,
    "list": instances_api.listing,
    "insert": instances_api.insert,
    "get": instances_api.get,
    "delete": instances_api.delete,
    "stop": instances_api.stop,
    "start": instances_api.start,
    "simulate_maintenance": instances_api.simulate_maintenance,
    "serial_port": instances_api.serial_port,
    "operations_aggregated": operations_api.aggregated,
    "operations_list": operations_api.listing,
    "operation_get": operations_api.get,
    "operation_wait": operations_api.wait,
}
OF_ANY_PROJECT = ("image_from_family", "image_get", "image_family_view")


class Dispatch:
    """Answers requests, from several threads at once."""

    def __init__(
        self, service: Service, callers: Callers, laptop_token: str, shutdown: Callable[[], None] = lambda: None
    ) -> None:
        self.service = service
        self._callers = callers
        self._laptop_token = laptop_token
        self._shutdown = shutdown
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()

    def asked(self) -> dict[str, int]:
        """How often each operation of the API was asked for."""
        with self._lock:
            return dict(self._asked)

    def stop(self) -> None:
        """Ends all waiting."""
        self.service.faults.stop()
        self.service.world.close()

    def answer(self, request: Request) -> Response:
        """The answer. Raises ConnectionCut where there is none."""
        try:
            response = self._answer(request)
        except Refusal as error:
            response = refused(error)
        except (ConnectionCut, ConnectionError):
            raise
        except Exception as error:
            traceback.print_exc()
            words = f"{request.method} {request.path} met a bug in this server: {error!r}"
            response = refused(Refusal(501, "bug", words))
        request.body.drain()
        return response

    def _answer(self, request: Request) -> Response:
        if request.path.startswith(control.PATH):
            self._refuse_vms(request, "No VM makes trouble.")
            return control.control(self.service, request, self.asked(), self._shutdown)
        if laptop.is_metadata(request):
            self._refuse_vms(request, "This is the laptop's metadata server.")
            return laptop.answer(request, self.service.project, self._laptop_token)
        where = route(request.method, request.path)
        with self._lock:
            self._asked["unknown" if where is None else where.call] += 1
        if where is None:
            raise Refusal(501, "notImplemented", f"{request.method} {request.path} is not answered by this server.")
        request.account = self._account(request)
        self._refuse_unless_allowed(request.account, where)
        lost = self.service.faults.strike(where.call, where.zone, where.name)
        found = HANDLERS[where.call](self.service, request, where)
        if lost:
            request.body.drain()
            raise ConnectionCut
        return json_response(found)

    def _account(self, request: Request) -> str:
        account = self._callers.account(request)
        if account is None:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            account = self.service.machines.token_account(token)
        if account is None:
            raise invalid_credentials()
        return LAPTOP if account == ANONYMOUS else account

    def _refuse_unless_allowed(self, account: str, where: Route) -> None:
        mine = where.project == self.service.project or where.call in OF_ANY_PROJECT
        path = where.path if where.name else f"projects/{where.project}"
        if not mine:
            raise forbidden(account, where.permission, path)
        self.service.rights.require(account, [where.permission], path, where.name)

    def _refuse_vms(self, request: Request, words: str) -> None:
        if self._callers.vm(request) is not None:
            raise Refusal(403, "forbidden", words)
