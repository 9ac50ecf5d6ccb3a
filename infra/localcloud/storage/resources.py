"""Buckets and objects as the JSON API shows them. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from infra.localcloud.storage.checksums import encode
from infra.localcloud.storage.stored import StoredObject

WRITABLE = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "eventBasedHold",
    "metadata",
    "storageClass",
    "temporaryHold",
)
OWN_BUCKET_FIELDS = ("created_s", "updated_s", "metageneration", "iam_bindings", "managed_folders")


def writable(resource: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resource the client may set."""
    return {key: resource[key] for key in WRITABLE if key in resource}


def object_resource(stored: StoredObject, base_url: str) -> dict[str, Any]:
    """storage#object."""
    path = f"b/{stored.bucket}/o/{quote(stored.name, safe='')}"
    resource: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": f"{base_url}/storage/v1/{path}",
        "mediaLink": f"{base_url}/download/storage/v1/{path}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "storageClass": "STANDARD",
        "size": str(stored.size_bytes),
        "crc32c": encode(stored.crc32c),
        "etag": etag(stored),
        "timeCreated": timestamp(stored.created_s),
        "updated": timestamp(stored.updated_s),
        "timeStorageClassUpdated": timestamp(stored.created_s),
        "timeFinalized": timestamp(stored.created_s),
    }
    if stored.md5 is not None:
        resource["md5Hash"] = stored.md5
    if stored.components:
        resource["componentCount"] = stored.components
    return resource | dict(stored.fields)


def media_headers(stored: StoredObject) -> dict[str, str]:
    """What both APIs send with an object's bytes."""
    hashes = f"crc32c={encode(stored.crc32c)}" + (f",md5={stored.md5}" if stored.md5 else "")
    headers = {
        "Content-Type": str(stored.fields.get("contentType", "application/octet-stream")),
        "ETag": f'"{etag(stored)}"',
        "Last-Modified": datetime.fromtimestamp(stored.updated_s, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "X-Goog-Generation": str(stored.generation),
        "X-Goog-Metageneration": str(stored.metageneration),
        "X-Goog-Hash": hashes,
        "X-Goog-Storage-Class": str(stored.fields.get("storageClass", "STANDARD")),
        "X-Goog-Stored-Content-Encoding": str(stored.fields.get("contentEncoding", "identity")),
        "X-Goog-Stored-Content-Length": str(stored.size_bytes),
        "Accept-Ranges": "bytes",
    }
    for key, header in (
        ("contentEncoding", "Content-Encoding"),
        ("contentDisposition", "Content-Disposition"),
        ("contentLanguage", "Content-Language"),
        ("cacheControl", "Cache-Control"),
    ):
        if key in stored.fields:
            headers[header] = str(stored.fields[key])
    return headers


def etag(stored: StoredObject) -> str:
    """Another one whenever bytes or metadata change."""
    return f"{stored.generation:x}.{stored.metageneration}"


def bucket_resource(fields: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    """storage#bucket."""
    name = fields["name"]
    resource = {
        "kind": "storage#bucket",
        "id": name,
        "selfLink": f"{base_url}/storage/v1/b/{name}",
        "projectNumber": "1",
        "location": "US",
        "locationType": "multi-region" if fields.get("location", "US") in ("US", "EU", "ASIA") else "region",
        "storageClass": "STANDARD",
        "etag": f"b{fields['metageneration']}",
        "timeCreated": timestamp(fields["created_s"]),
        "updated": timestamp(fields["updated_s"]),
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "inherited"},
    }
    shown = {key: value for key, value in fields.items() if key not in OWN_BUCKET_FIELDS}
    if "location" in shown:
        shown["location"] = str(shown["location"]).upper()
    return resource | shown | {"metageneration": str(fields["metageneration"])}


def timestamp(seconds: float) -> str:
    """RFC 3339 with milliseconds, as the service writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def only(resource: Any, fields: str) -> Any:
    """What a `fields` parameter leaves: "items(name,size),nextPageToken" and the like."""
    return _pick(resource, _parse(fields)) if fields and fields != "*" else resource


def _parse(fields: str) -> dict[str, Any]:
    """A tree of names; `*` stands for all below a name."""
    tree: dict[str, Any] = {}
    depth, begun = 0, 0
    for at, letter in enumerate(f"{fields},"):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            name, inner = _split(fields[begun:at].strip())
            _graft(tree.setdefault(name, {}), _parse(inner) if inner else {"*": {}})
            begun = at + 1
    return tree


def _graft(tree: dict[str, Any], branch: dict[str, Any]) -> None:
    for name, below in branch.items():
        _graft(tree.setdefault(name, {}), below)


def _split(part: str) -> tuple[str, str]:
    for at, letter in enumerate(part):
        if letter == "/":
            return part[:at], part[at + 1 :]
        if letter == "(":
            return part[:at], part[at + 1 : -1]
    return part, ""


def _pick(resource: Any, tree: dict[str, Any]) -> Any:
    if isinstance(resource, list):
        return [_pick(item, tree) for item in resource]
    if not isinstance(resource, dict) or "*" in tree:
        return resource
    return {key: _pick(value, tree[key]) for key, value in resource.items() if key in tree}
