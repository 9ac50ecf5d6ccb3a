"""The JSON API's objects: read, listed, changed, joined, copied. One function per operation."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from infra.localcloud.storage import conditions as conditions_of
from infra.localcloud.storage.errors import ApiError, bad_request
from infra.localcloud.storage.glob import glob_pattern
from infra.localcloud.storage.messages import Media, Request, Response, requested_range
from infra.localcloud.storage.resources import media_headers, object_resource, only, writable
from infra.localcloud.storage.routes import Route
from infra.localcloud.storage.service import Service
from infra.localcloud.storage.stored import StoredObject

MAX_RESULTS = 1000
MAX_COMPOSED = 32


def get(service: Service, request: Request, route: Route) -> Response:
    """An object's resource."""
    service.may_read(request, "get", route.bucket, route.name)
    return shown(request, service.store.get(route.bucket, route.name, *_which(request)))


def download(service: Service, request: Request, route: Route) -> Response:
    """An object's bytes, or a range of them."""
    service.may_read(request, "get", route.bucket, route.name)
    conditions = conditions_of.from_headers(request.headers) if route.xml else conditions_of.from_query(request.query)
    stored, opened = service.store.open(route.bucket, route.name, generation(request), conditions)
    try:
        if not opened.kept:
            raise ApiError(410, "gone", "This server counts bytes and keeps none (--discard).")
        found = requested_range(request.headers, stored.size_bytes)
    except ApiError:
        opened.close()
        raise
    headers = media_headers(stored)
    if found is None:
        return Response(200, headers, Media(opened, 0, stored.size_bytes))
    start, length = found
    headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{stored.size_bytes}"
    return Response(206, headers, Media(opened, start, length))


def listing(service: Service, request: Request, route: Route) -> Response:
    """A page of a bucket's objects and of the prefixes that a delimiter makes."""
    service.gate.require(request.account, "list", route.bucket, request.query.get("prefix", ""))
    most = int(request.query.get("maxResults", MAX_RESULTS))
    if most < 1:
        raise bad_request("maxResults must be positive.")
    start = request.query.get("startOffset", "")
    if token := request.query.get("pageToken", ""):
        start = max(start, _name_in(token))
    items: list[Any] = []
    prefixes: list[str] = []
    answer: dict[str, Any] = {"kind": "storage#objects"}
    for prefix, stored in entries(service, route.bucket, request, start):
        if len(items) + len(prefixes) == min(most, MAX_RESULTS):
            answer["nextPageToken"] = base64.urlsafe_b64encode((prefix or stored.name).encode()).decode()
            break
        if prefix:
            prefixes.append(prefix)
        else:
            items.append(object_resource(stored, request.base_url))
    if items:
        answer["items"] = items
    if prefixes:
        answer["prefixes"] = prefixes
    return document(request, answer)


def entries(service: Service, bucket: str, request: Request, start: str) -> Iterator[tuple[str, StoredObject]]:
    """(prefix or "", object) in order from `start` on; of the objects under a prefix only the first is given."""
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    end = query.get("endOffset", "")
    pattern = glob_pattern(query["matchGlob"]) if "matchGlob" in query else None
    trailing = query.get("includeTrailingDelimiter", "").lower() == "true"  # the Python client writes True
    last = ""
    if query.get("softDeleted", "").lower() == "true":
        return
    for name in service.store.names(bucket, prefix, start):
        if end and name >= end:
            return
        if pattern is not None and not pattern.fullmatch(name):
            continue
        stored = service.store.peek(bucket, name)
        if stored is None:
            continue
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            under = name[: cut + len(delimiter)]
            if under != last:
                last = under
                yield under, stored
            if not (trailing and name == under):
                continue
        yield "", stored


def patch(service: Service, request: Request, route: Route) -> Response:
    """Changes what of an object's resource the client may set; PUT sets all of it."""
    service.may_read(request, "update", route.bucket, route.name)
    changes: dict[str, Any] = writable(document_in(request))
    old = service.store.get(route.bucket, route.name, generation(request))
    if route.operation == "update":
        changes = dict.fromkeys(old.fields) | changes
    elif isinstance(changes.get("metadata"), dict):
        merged = dict(old.fields.get("metadata") or {}) | changes["metadata"]
        changes["metadata"] = {key: value for key, value in merged.items() if value is not None}
    conditions = conditions_of.from_query(request.query)
    stored = service.store.update(route.bucket, route.name, old.generation, changes, conditions)
    return shown(request, stored, changed=True)


def delete(service: Service, request: Request, route: Route) -> Response:
    """Deletes an object."""
    service.may_read(request, "delete", route.bucket, route.name)
    conditions = conditions_of.from_headers(request.headers) if route.xml else conditions_of.from_query(request.query)
    service.store.delete(route.bucket, route.name, generation(request), conditions)
    return Response(204, changed=True)


def compose(service: Service, request: Request, route: Route) -> Response:
    """Joins up to 32 objects into one."""
    asked = document_in(request)
    sources = asked.get("sourceObjects") or []
    if not 1 <= len(sources) <= MAX_COMPOSED:
        raise bad_request(f"The number of source components provided ({len(sources)}) exceeds the maximum (32)")
    with service.store.lock:
        service.may_write(request.account, route.bucket, route.name)
        found = []
        for source in sources:
            service.may_read(request, "get", route.bucket, source["name"])
            conditions = conditions_of.Conditions(
                _integer((source.get("objectPreconditions") or {}), "ifGenerationMatch")
            )
            which = _integer(source, "generation")
            found.append(service.store.get(route.bucket, source["name"], which, conditions))
        pieces = service.store.data.share(piece for stored in found for piece in stored.pieces)
        stored = service.store.put(
            route.bucket,
            route.name,
            pieces,
            md5=None,
            fields=writable(asked.get("destination") or {}),
            conditions=conditions_of.from_query(request.query),
            components=sum(max(1, source.components) for source in found),
        )
    return shown(request, stored, changed=True)


def rewrite(service: Service, request: Request, route: Route) -> Response:
    """Copies an object, in one call whatever its size; a move also deletes the source."""
    of_source = conditions_of.from_query(request.query, of="Source")
    fields = writable(document_in(request))
    with service.store.lock:
        service.may_read(request, "get", route.bucket, route.name)
        service.may_write(request.account, route.to_bucket, route.to_name)
        if route.operation == "move":
            service.gate.require(request.account, "delete", route.bucket, route.name)
        source = service.store.get(
            route.bucket, route.name, _integer(dict(request.query), "sourceGeneration"), of_source
        )
        conditions = conditions_of.from_query(request.query)
        stored = service.store.copy(source, route.to_bucket, route.to_name, fields, conditions)
        if route.operation == "move":
            service.store.delete(route.bucket, route.name, source.generation, conditions_of.NONE)
    if route.operation != "rewrite":
        return shown(request, stored, changed=True)
    size = str(stored.size_bytes)
    answer = {
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": size,
        "objectSize": size,
        "done": True,
        "resource": object_resource(stored, request.base_url),
    }
    return document(request, answer, changed=True)


def shown(request: Request, stored: StoredObject, *, changed: bool = False) -> Response:
    """An object's resource as the answer."""
    return document(request, object_resource(stored, request.base_url), changed=changed)


def document(request: Request, answer: Any, *, changed: bool = False) -> Response:
    """JSON, less what `fields` leaves out."""
    body = json.dumps(only(answer, request.query.get("fields", ""))).encode()
    return Response(200, {"Content-Type": "application/json; charset=UTF-8"}, body, changed=changed)


def document_in(request: Request) -> dict[str, Any]:
    """The JSON object that the client sent; an empty body is an empty one."""
    try:
        data = json.loads(request.body.everything() or b"{}")
    except ValueError:
        raise ApiError(400, "parseError", "Parse Error") from None
    if not isinstance(data, dict):
        raise ApiError(400, "parseError", "Parse Error")
    return data


def generation(request: Request) -> int | None:
    """The generation that is asked for."""
    return _integer(dict(request.query), "generation")


def _integer(resource: dict[str, Any], name: str) -> int | None:
    value = resource.get(name)
    if value is not None and not str(value).isdecimal():
        raise bad_request(f"Invalid value for {name}: {value}")
    return None if value is None else int(value)


def _which(request: Request) -> tuple[int | None, conditions_of.Conditions]:
    return generation(request), conditions_of.from_query(request.query)


def _name_in(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError:
        raise bad_request("Invalid page token.") from None
