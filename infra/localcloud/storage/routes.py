"""What a request asks for: an operation on a bucket or an object. Pure.

An operation's group is what faults name (`upload` is every way to send an object's bytes), its class is what it costs:
A and B as in Cloud Storage's price list, or free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

OPERATIONS = {
    "bucket_list": ("bucket", "A"),
    "bucket_create": ("bucket", "A"),
    "bucket_get": ("bucket", "B"),
    "bucket_patch": ("bucket", "A"),
    "bucket_delete": ("bucket", "free"),
    "bucket_layout": ("bucket", "B"),
    "nothing_list": ("bucket", "A"),  # what a plain bucket never has: folders, caches, notifications
    "folders_list": ("bucket", "A"),
    "folder_create": ("bucket", "A"),
    "folder_get": ("bucket", "B"),
    "folder_delete": ("bucket", "free"),
    "folder_iam_get": ("bucket", "B"),
    "folder_iam_set": ("bucket", "A"),
    "iam_get": ("bucket", "B"),
    "iam_set": ("bucket", "A"),
    "iam_test": ("bucket", "B"),
    "list": ("list", "A"),
    "get": ("get", "B"),
    "download": ("download", "B"),
    "insert": ("upload", "A"),
    "resumable_start": ("upload", "free"),  # the whole upload is one operation, counted when the object is there
    "resumable_put": ("upload", "A"),
    "resumable_query": ("query", "free"),
    "resumable_cancel": ("cancel", "free"),
    "compose": ("compose", "A"),
    "rewrite": ("rewrite", "A"),
    "copy": ("rewrite", "A"),
    "move": ("rewrite", "A"),
    "patch": ("patch", "A"),
    "update": ("patch", "A"),
    "delete": ("delete", "free"),
    "batch": ("batch", "free"),  # its parts are counted
    "xml_put": ("upload", "A"),
    "parts_start": ("upload", "A"),
    "parts_put": ("upload", "A"),
    "parts_complete": ("upload", "A"),
    "parts_cancel": ("cancel", "free"),
    "parts_list": ("list", "A"),
    "uploads_list": ("list", "A"),
    "unknown": ("unknown", "free"),
}
GROUPS = frozenset(group for group, _ in OPERATIONS.values())
CARRY_DATA = frozenset({"insert", "resumable_put", "xml_put", "parts_put", "download"})


@dataclass(frozen=True)
class Route:
    """One operation and what it is about."""

    operation: str
    bucket: str = ""
    name: str = ""
    """Of the object; of a listing the prefix."""
    to_bucket: str = ""
    to_name: str = ""
    xml: bool = False

    @property
    def group(self) -> str:
        """What faults may call it."""
        return OPERATIONS[self.operation][0]

    @property
    def price_class(self) -> str:
        """A, B or free."""
        return OPERATIONS[self.operation][1]


UNKNOWN = Route("unknown")
PREFIXES = {
    "/resumable/upload/storage/v1/b": "upload",
    "/upload/storage/v1/b": "upload",
    "/download/storage/v1/b": "json",
    "/storage/v1/b": "json",
}


def route(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Route:
    """What the request asks for; UNKNOWN where nothing here answers it."""
    if path == "/batch/storage/v1":
        return Route("batch") if method == "POST" else UNKNOWN
    for prefix, kind in PREFIXES.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            parts = [unquote(part) for part in path.removeprefix(prefix).split("/") if part]
            return _upload(method, parts, query, headers) if kind == "upload" else _json(method, parts, query)
    return _xml(method, unquote(path), query)


def _upload(method: str, parts: list[str], query: Mapping[str, str], headers: Mapping[str, str]) -> Route:
    if len(parts) != 2 or parts[1] != "o":
        return UNKNOWN
    bucket, name = parts[0], query.get("name", "")
    if "upload_id" in query:
        if method == "DELETE":
            return Route("resumable_cancel", bucket, name)
        asks = headers.get("content-range", "").startswith("bytes */") and headers.get("content-length", "0") == "0"
        return Route("resumable_query" if asks else "resumable_put", bucket, name)
    if method not in ("POST", "PUT"):
        return UNKNOWN
    return Route("resumable_start" if query.get("uploadType") == "resumable" else "insert", bucket, name)


def _json(method: str, parts: list[str], query: Mapping[str, str]) -> Route:
    match method, parts:
        case "GET", []:
            return Route("bucket_list")
        case "POST", []:
            return Route("bucket_create")
        case _, [bucket]:
            operation = {"GET": "bucket_get", "PATCH": "bucket_patch", "PUT": "bucket_patch", "DELETE": "bucket_delete"}
            return Route(operation.get(method, "unknown"), bucket)
        case "GET", [bucket, "storageLayout"]:
            return Route("bucket_layout", bucket)
        case _, [bucket, "managedFolders"]:
            return Route({"GET": "folders_list", "POST": "folder_create"}.get(method, "unknown"), bucket)
        case _, [bucket, "managedFolders", folder, "iam"]:
            return Route({"GET": "folder_iam_get", "PUT": "folder_iam_set"}.get(method, "unknown"), bucket, folder)
        case _, [bucket, "managedFolders", folder]:
            return Route({"GET": "folder_get", "DELETE": "folder_delete"}.get(method, "unknown"), bucket, folder)
        case "GET", [bucket, "folders" | "anywhereCaches" | "notificationConfigs"]:
            return Route("nothing_list", bucket)
        case _, [bucket, "iam"]:
            return Route({"GET": "iam_get", "PUT": "iam_set"}.get(method, "unknown"), bucket)
        case "GET", [bucket, "iam", "testPermissions"]:
            return Route("iam_test", bucket)
        case "GET", [bucket, "o"]:
            return Route("list", bucket, query.get("prefix", ""))
        case "POST", [bucket, "o", *name, "compose"] if name:
            return Route("compose", bucket, "/".join(name))
        case "POST", [bucket, "o", name, "rewriteTo" | "copyTo" as verb, "b", to_bucket, "o", to_name]:
            return Route("rewrite" if verb == "rewriteTo" else "copy", bucket, name, to_bucket, to_name)
        case "POST", [bucket, "o", name, "moveTo", "o", to_name]:
            return Route("move", bucket, name, bucket, to_name)
        case "GET" | "HEAD", [bucket, "o", *name] if name:
            return Route("download" if query.get("alt") == "media" else "get", bucket, "/".join(name))
        case _, [bucket, "o", *name] if name:
            operation = {"PATCH": "patch", "PUT": "update", "DELETE": "delete"}
            return Route(operation.get(method, "unknown"), bucket, "/".join(name))
    return UNKNOWN


def _xml(method: str, path: str, query: Mapping[str, str]) -> Route:
    bucket, _, name = path.removeprefix("/").partition("/")
    if not bucket:
        return UNKNOWN
    if not name:
        if method == "GET" and "uploads" in query:
            return Route("uploads_list", bucket, xml=True)
        operation = {"GET": "list", "HEAD": "bucket_get", "PUT": "bucket_create", "DELETE": "bucket_delete"}
        return Route(operation.get(method, "unknown"), bucket, query.get("prefix", ""), xml=True)
    match method:
        case "POST" if "uploads" in query:
            operation_name = "parts_start"
        case "POST" if "uploadId" in query:
            operation_name = "parts_complete"
        case "PUT":
            operation_name = "parts_put" if "uploadId" in query else "xml_put"
        case "DELETE":
            operation_name = "parts_cancel" if "uploadId" in query else "delete"
        case "GET" if "uploadId" in query:
            operation_name = "parts_list"
        case "GET":
            operation_name = "download"
        case "HEAD":
            operation_name = "get"
        case _:
            operation_name = "unknown"
    return Route(operation_name, bucket, name, xml=True)
