"""Managed folders over the JSON API: they are there, and carry a policy. What is allowed here, the server's own policy
file says; infra/setup/grants.py sees to it that both say the same."""

from typing import Any

from infra.localcloud.storage.bucket_api import policy_document
from infra.localcloud.storage.errors import ApiError
from infra.localcloud.storage.json_api import document, document_in
from infra.localcloud.storage.messages import Request, Response
from infra.localcloud.storage.routes import Route
from infra.localcloud.storage.service import Service

FIELD = "managed_folders"
Folders = dict[str, list[dict[str, Any]]]
"""Bindings, by the folder's name."""


def listing(service: Service, request: Request, route: Route) -> Response:
    """All of a bucket, below a prefix."""
    service.gate.require(request.account, "buckets.get", route.bucket, "")
    names = [name for name in sorted(_folders(service, route)) if name.startswith(request.query.get("prefix", ""))]
    items = [_resource(route.bucket, name) for name in names]
    return document(request, {"kind": "storage#managedFolders"} | ({"items": items} if items else {}))


def create(service: Service, request: Request, route: Route) -> Response:
    """A new one."""
    service.gate.require(request.account, "buckets.update", route.bucket, "")
    name, folders = _slashed(str(document_in(request).get("name", ""))), _folders(service, route)
    if name in folders:
        raise ApiError(409, "conflict", f"The managed folder {name} is there already.")
    _keep(service, route, {**folders, name: []})
    return document(request, _resource(route.bucket, name))


def get(service: Service, request: Request, route: Route) -> Response:
    """One of them."""
    service.gate.require(request.account, "buckets.get", route.bucket, "")
    _bindings(service, route)
    return document(request, _resource(route.bucket, _slashed(route.name)))


def delete(service: Service, request: Request, route: Route) -> Response:
    """Takes it away; objects with its prefix stay."""
    service.gate.require(request.account, "buckets.update", route.bucket, "")
    _bindings(service, route)
    left = {name: bindings for name, bindings in _folders(service, route).items() if name != _slashed(route.name)}
    _keep(service, route, left)
    return Response(204)


def get_policy(service: Service, request: Request, route: Route) -> Response:
    """Its policy, as it was last set."""
    service.gate.require(request.account, "buckets.getIamPolicy", route.bucket, "")
    return document(request, policy_document(_path(route), _bindings(service, route), 1))


def set_policy(service: Service, request: Request, route: Route) -> Response:
    """Keeps a policy with it."""
    service.gate.require(request.account, "buckets.setIamPolicy", route.bucket, "")
    _bindings(service, route)
    bindings = document_in(request).get("bindings", [])
    _keep(service, route, {**_folders(service, route), _slashed(route.name): bindings})
    return document(request, policy_document(_path(route), bindings, 1))


def _folders(service: Service, route: Route) -> Folders:
    found: Folders = service.store.bucket(route.bucket).get(FIELD, {})
    return found


def _bindings(service: Service, route: Route) -> list[dict[str, Any]]:
    folders, name = _folders(service, route), _slashed(route.name)
    if name not in folders:
        raise ApiError(404, "notFound", f"The managed folder {name} was not found.")
    return folders[name]


def _keep(service: Service, route: Route, folders: Folders) -> None:
    service.store.update_bucket(route.bucket, {FIELD: folders})


def _resource(bucket: str, name: str) -> dict[str, Any]:
    return {"kind": "storage#managedFolder", "id": f"{bucket}/{name}", "bucket": bucket, "name": name}


def _path(route: Route) -> str:
    return f"projects/_/buckets/{route.bucket}/managedFolders/{_slashed(route.name)}"


def _slashed(name: str) -> str:
    return f"{name.rstrip('/')}/"
