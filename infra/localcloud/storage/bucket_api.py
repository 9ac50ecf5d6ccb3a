"""Buckets over the JSON API, as far as clients ask before they read and write objects."""

from base64 import b64encode
from typing import Any

from infra.localcloud.storage import conditions as conditions_of
from infra.localcloud.storage.errors import bad_request
from infra.localcloud.storage.json_api import document, document_in
from infra.localcloud.storage.messages import Request, Response
from infra.localcloud.storage.resources import bucket_resource
from infra.localcloud.storage.routes import Route
from infra.localcloud.storage.service import Service

SERVERS_OWN = ("kind", "id", "selfLink", "projectNumber", "etag", "timeCreated", "updated", "metageneration", "name")


def listing(service: Service, request: Request, route: Route) -> Response:
    """All buckets; nothing here belongs to one project more than to another."""
    prefix = request.query.get("prefix", "")
    items = [
        bucket_resource(fields, request.base_url)
        for fields in service.store.buckets()
        if fields["name"].startswith(prefix)
    ]
    return document(request, {"kind": "storage#buckets"} | ({"items": items} if items else {}))


def create(service: Service, request: Request, route: Route) -> Response:
    """A new bucket."""
    asked = document_in(request)
    name = asked.get("name", "")
    service.gate.require(request.account, "buckets.create", name, "")
    if not 3 <= len(name) <= 222 or not all(letter.islower() or letter.isdigit() or letter in "-_." for letter in name):
        raise bad_request(f"Invalid bucket name: '{name}'")
    return _shown(request, service.store.create_bucket(name, _settable(asked)))


def get(service: Service, request: Request, route: Route) -> Response:
    """A bucket's resource."""
    service.gate.require(request.account, "buckets.get", route.bucket, "")
    return _shown(request, service.store.bucket(route.bucket))


def patch(service: Service, request: Request, route: Route) -> Response:
    """Changes a bucket's resource."""
    service.gate.require(request.account, "buckets.update", route.bucket, "")
    conditions = conditions_of.from_query(request.query)
    return _shown(request, service.store.update_bucket(route.bucket, _settable(document_in(request)), conditions))


def delete(service: Service, request: Request, route: Route) -> Response:
    """Deletes an empty bucket."""
    service.gate.require(request.account, "buckets.delete", route.bucket, "")
    service.store.delete_bucket(route.bucket, conditions_of.from_query(request.query))
    return Response(204)


def layout(service: Service, request: Request, route: Route) -> Response:
    """That it is a flat bucket, in one place."""
    resource = bucket_resource(service.store.bucket(route.bucket), request.base_url)
    return document(
        request,
        {
            "kind": "storage#storageLayout",
            "bucket": route.bucket,
            "location": resource["location"],
            "locationType": resource["locationType"],
            "hierarchicalNamespace": {"enabled": False},
        },
    )


def no_items(service: Service, request: Request, route: Route) -> Response:
    """An empty list."""
    service.store.bucket(route.bucket)
    return document(request, {})


def get_policy(service: Service, request: Request, route: Route) -> Response:
    """The bucket's IAM policy as it was last set. What is allowed here, the server's own policy file says."""
    return document(request, _iam(service, route.bucket))


def set_policy(service: Service, request: Request, route: Route) -> Response:
    """Keeps an IAM policy with the bucket."""
    service.gate.require(request.account, "buckets.setIamPolicy", route.bucket, "")
    bindings = document_in(request).get("bindings", [])
    service.store.update_bucket(route.bucket, {"iam_bindings": bindings})
    return document(request, _iam(service, route.bucket))


def test_permissions(service: Service, request: Request, route: Route) -> Response:
    """Which of the permissions the caller has on every object of the bucket."""
    service.store.bucket(route.bucket)
    held = []
    for permission in request.queries("permissions"):
        kind, _, verb = permission.removeprefix("storage.").partition(".")
        if service.gate.allows(request.account, verb if kind == "objects" else f"buckets.{verb}", route.bucket, ""):
            held.append(permission)
    return document(request, {"kind": "storage#testIamPermissionsResponse"} | ({"permissions": held} if held else {}))


def _iam(service: Service, bucket: str) -> dict[str, Any]:
    fields = service.store.bucket(bucket)
    return policy_document(f"projects/_/buckets/{bucket}", fields.get("iam_bindings", []), fields["metageneration"])


def policy_document(path: str, bindings: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """An IAM policy as Cloud Storage shows it."""
    version = 3 if any("condition" in binding for binding in bindings) else 1
    return {
        "kind": "storage#policy",
        "resourceId": path,
        "version": version,
        "etag": b64encode(str(number).encode()).decode(),
        "bindings": bindings,
    }


def _settable(asked: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key not in SERVERS_OWN}


def _shown(request: Request, fields: dict[str, Any]) -> Response:
    return document(request, bucket_resource(fields, request.base_url))
