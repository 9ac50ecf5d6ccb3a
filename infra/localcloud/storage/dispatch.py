"""From a request to its answer: who asks, what for, which fault strikes; and every one of them is counted."""

import json
import traceback
from collections.abc import Callable

from infra.localcloud.callers import Callers
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import JSON
from infra.localcloud.storage import bucket_api, folders_api, json_api, upload_api, xml_api
from infra.localcloud.storage.accounting import Accounting
from infra.localcloud.storage.batch import answer_batch
from infra.localcloud.storage.errors import ApiError, as_xml
from infra.localcloud.storage.exchange import Exchange
from infra.localcloud.storage.faults import Faults
from infra.localcloud.storage.messages import ConnectionCut, Request, Response
from infra.localcloud.storage.routes import UNKNOWN, Route, route
from infra.localcloud.storage.service import Service

CONTROL = "/_faults"
Handler = Callable[[Service, Request, Route], Response]
HANDLERS: dict[str, Handler] = {
    "bucket_list": bucket_api.listing,
    "bucket_create": bucket_api.create,
    "bucket_get": bucket_api.get,
    "bucket_patch": bucket_api.patch,
    "bucket_delete": bucket_api.delete,
    "bucket_layout": bucket_api.layout,
    "nothing_list": bucket_api.no_items,
    "folders_list": folders_api.listing,
    "folder_create": folders_api.create,
    "folder_get": folders_api.get,
    "folder_delete": folders_api.delete,
    "folder_iam_get": folders_api.get_policy,
    "folder_iam_set": folders_api.set_policy,
    "iam_get": bucket_api.get_policy,
    "iam_set": bucket_api.set_policy,
    "iam_test": bucket_api.test_permissions,
    "list": json_api.listing,
    "get": json_api.get,
    "download": json_api.download,
    "insert": upload_api.insert,
    "resumable_start": upload_api.resumable_start,
    "resumable_put": upload_api.resumable_put,
    "resumable_query": upload_api.resumable_put,
    "resumable_cancel": upload_api.resumable_cancel,
    "compose": json_api.compose,
    "rewrite": json_api.rewrite,
    "copy": json_api.rewrite,
    "move": json_api.rewrite,
    "patch": json_api.patch,
    "update": json_api.patch,
    "delete": json_api.delete,
}
XML_HANDLERS: dict[str, Handler] = {
    "bucket_get": xml_api.head_bucket,
    "bucket_create": xml_api.create_bucket,
    "bucket_delete": bucket_api.delete,
    "list": xml_api.listing,
    "get": xml_api.head,
    "download": json_api.download,
    "delete": json_api.delete,
    "xml_put": xml_api.put,
    "parts_start": xml_api.start,
    "parts_put": xml_api.put_part,
    "parts_complete": xml_api.complete,
    "parts_cancel": xml_api.cancel,
    "parts_list": xml_api.list_parts,
    "uploads_list": xml_api.list_uploads,
}


class Dispatch:
    """Answers requests, from several threads at once."""

    def __init__(
        self, service: Service, faults: Faults, accounting: Accounting, callers: Callers | None = None
    ) -> None:
        self.service = service
        self._callers = callers
        self._faults = faults
        self._accounting = accounting

    def answer(self, request: Request) -> Response:
        """The answer. Raises ConnectionCut where there is none; the request was counted either way."""
        if request.path == CONTROL:
            return self._control(request)
        exchange = Exchange(request, route(request.method, request.path, request.query, request.headers), self._faults)
        try:
            response = self._handle(exchange)
            request.body.drain()
        except ConnectionCut:
            self._accounting.add(exchange.entry(0, 0))
            raise
        except Refusal as error:
            request.body.drain()
            response = _refusal(exchange.route, error)
        self._accounting.add(exchange.entry(response.status, exchange.sent_bytes(response)))
        return response

    def _handle(self, exchange: Exchange) -> Response:
        request = exchange.request
        request.account = self._account(request)
        if exchange.route.operation == "batch":
            return answer_batch(self.answer, request)
        exchange.route = upload_api.with_metadata(request, exchange.route)
        exchange.strike_before()
        handler = (XML_HANDLERS if exchange.route.xml else HANDLERS).get(exchange.route.operation)
        if handler is None:
            raise ApiError(501, "notImplemented", f"{request.method} {request.path} is not answered by this server.")
        response = _called(handler, self.service, request, exchange.route)
        exchange.strike_after(response)
        return response

    def _account(self, request: Request) -> str:
        """Whose rights the request has. Raises 401; ConnectionCut for a VM without network."""
        if self._callers is not None and (account := self._callers.account(request)) is not None:
            return account
        return self.service.gate.account(request.headers.get("authorization"))

    def _control(self, request: Request) -> Response:
        """Faults over the wire: GET what is armed and what was asked so far, POST rules, DELETE all of that."""
        if self._callers is not None and self._callers.vm(request) is not None:
            return _refusal(UNKNOWN, ApiError(403, "forbidden", "No VM arms faults."))
        try:
            if request.method == "POST":
                rules = json.loads(request.body.everything())
                for rule in rules if isinstance(rules, list) else [rules]:
                    self._faults.arm_json(rule)
            elif request.method == "DELETE":
                self._faults.clear()
                self._accounting.reset()
        except ValueError as error:
            return _refusal(UNKNOWN, ApiError(400, "invalid", str(error)))
        request.body.drain()
        answer = {
            "armed": self._faults.armed(),
            "totals": self._accounting.totals(),
            "requests": self._accounting.last(),
            "rights": self.service.gate.used(),
        }
        return Response(200, {"Content-Type": JSON}, json.dumps(answer).encode())


def _called(handler: Handler, service: Service, request: Request, where: Route) -> Response:
    """What the handler answers. A bug in it is no reason to retry, as clients do after 500 and closed connections."""
    try:
        return handler(service, request, where)
    except (Refusal, ConnectionCut, ConnectionError):
        raise
    except Exception as error:
        traceback.print_exc()
        raise ApiError(501, "bug", f"{request.method} {request.path} met a bug in this server: {error!r}") from error


def _refusal(where: Route, error: Refusal) -> Response:
    if error.status == 304:
        return Response(304)
    if where.xml:
        kind = {"Content-Type": "application/xml; charset=UTF-8"}
        return Response(error.status, error.headers | kind, as_xml(error))
    if where.operation == "download":
        kind = {"Content-Type": "text/html; charset=UTF-8"}
        return Response(error.status, error.headers | kind, error.message.encode())
    return Response(error.status, error.headers | {"Content-Type": JSON}, error.as_json())
