"""The JSON API's ways to send an object: media, multipart, resumable."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from infra.localcloud.storage import conditions as conditions_of
from infra.localcloud.storage.errors import ApiError, bad_request, condition_not_met
from infra.localcloud.storage.json_api import document_in, shown
from infra.localcloud.storage.messages import Body, Request, Response
from infra.localcloud.storage.resources import writable
from infra.localcloud.storage.routes import Route
from infra.localcloud.storage.service import Service, announced_hashes
from infra.localcloud.storage.uploads import Upload

CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
BOUNDARY = re.compile(r"""boundary=(["']?)([^"';]+)\1""")  # gcloud writes single quotes


def with_metadata(request: Request, route: Route) -> Route:
    """Reads the resource that comes before the bytes; the route then knows the name also where only it has it."""
    if route.operation == "resumable_start":
        request.metadata = document_in(request)
    elif route.operation == "insert" and request.query.get("uploadType") == "multipart":
        request.metadata = _read_first_part(request)
    return replace(route, name=route.name or str(request.metadata.get("name", "")))


def insert(service: Service, request: Request, route: Route) -> Response:
    """An object in one request: its bytes alone, or after its resource."""
    service.store.bucket(route.bucket)
    service.may_write(request.account, route.bucket, route.name)
    fields = writable(request.metadata)
    if request.query.get("uploadType") != "multipart" and "content-type" in request.headers:
        fields.setdefault("contentType", request.headers["content-type"])
    if "contentEncoding" in request.query:
        fields["contentEncoding"] = request.query["contentEncoding"]
    piece = service.store.data.store(request.data())
    request.body.drain()
    stored = service.put(
        request.account,
        route.bucket,
        route.name,
        piece,
        hashes=announced_hashes(request),
        fields=fields,
        conditions=conditions_of.from_query(request.query),
    )
    return shown(request, stored, changed=True)


def resumable_start(service: Service, request: Request, route: Route) -> Response:
    """A new upload; where its bytes go is in Location."""
    service.store.bucket(route.bucket)
    service.may_write(request.account, route.bucket, route.name)
    fields = writable(request.metadata)
    if "x-upload-content-type" in request.headers:
        fields.setdefault("contentType", request.headers["x-upload-content-type"])
    upload = service.uploads.begin(
        route.bucket,
        route.name,
        fields,
        conditions_of.from_query(request.query),
        hashes=announced_hashes(request),
        account=request.account,
        in_parts=False,
    )
    path = request.path.rstrip("/")
    query = f"uploadType=resumable&name={quote(route.name, safe='')}&upload_id={upload.id}"
    return Response(200, {"Location": f"{request.base_url}{path}?{query}", "X-GUploader-UploadID": upload.id})


def resumable_put(service: Service, request: Request, route: Route) -> Response:
    """A chunk of an upload, its last one, or the question how much has arrived."""
    upload = service.uploads.find(request.query["upload_id"], route.bucket)
    first, end, size_bytes = _content_range(request)
    turn = upload.take_turn()
    if upload.finished is not None:
        return shown(request, upload.finished)
    if first is None:
        if size_bytes != upload.kept_bytes:
            return _incomplete(upload)
    elif first > upload.kept_bytes:
        raise ApiError(
            503,
            "backendError",
            f"Invalid request.  According to the Content-Range header, the upload offset is {first} byte(s), which "
            f"exceeds already uploaded size of {upload.kept_bytes} byte(s).",
        )
    else:
        final = end is None or end == size_bytes
        upload.receive(request.data(), turn, skip=upload.kept_bytes - first, final=final)
        if not final:
            return _incomplete(upload)
        if size_bytes is not None and upload.kept_bytes != size_bytes:
            raise bad_request(f"The upload has {upload.kept_bytes} bytes, its Content-Range said {size_bytes}.")
    return _finish(service, request, upload)


def resumable_cancel(service: Service, request: Request, route: Route) -> Response:
    """Ends an upload; the service answers with a status of its own."""
    service.uploads.cancel(service.uploads.find(request.query["upload_id"], route.bucket))
    return Response(499)


def _finish(service: Service, request: Request, upload: Upload) -> Response:
    with upload.lock:
        if upload.finished is not None:
            return shown(request, upload.finished)
        if upload.incoming is None:
            raise condition_not_met()
        piece = upload.incoming.piece()
        announced = dict(upload.hashes) | announced_hashes(request)
        try:
            md5 = service.checked((piece,), (piece.size_bytes, piece.crc32c), announced)
            with service.store.lock:
                service.may_write(upload.account, upload.bucket, upload.name)  # it may be there only since it began
                stored = service.uploads.finish(upload, (piece,), md5)
        except ApiError:
            service.uploads.cancel(upload)
            raise
        return shown(request, stored, changed=True)


def _incomplete(upload: Upload) -> Response:
    headers = {"X-GUploader-UploadID": upload.id}
    if upload.kept_bytes:
        headers["Range"] = f"bytes=0-{upload.kept_bytes - 1}"
    return Response(308, headers)


def _content_range(request: Request) -> tuple[int | None, int | None, int | None]:
    """(first byte, end, size of the object): no first for a question, no size where it is not known yet."""
    text = request.headers.get("content-range")
    if text is None:
        return 0, None, None
    match = CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise bad_request(f"Failed to parse Content-Range header: {text}")
    size_bytes = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return None, None, size_bytes
    first, end = int(match[1]), int(match[2]) + 1
    if first >= end or (size_bytes is not None and end > size_bytes):
        raise bad_request(f"Failed to parse Content-Range header: {text}")
    if not request.body.chunked and request.body.left != end - first:
        raise bad_request(f"The body has {request.body.left} bytes, its Content-Range says {text}.")
    return first, end, size_bytes


def _read_first_part(request: Request) -> dict[str, Any]:
    """The resource in a multipart body, which is left at the first byte of the object.

    Some clients (gcloud, gcsfs) end lines with LF alone.
    """
    match = BOUNDARY.search(request.headers.get("content-type", ""))
    if match is None:
        raise bad_request("Invalid multipart request: no boundary.")
    mark = b"--" + match[2].encode()
    if request.body.chunked:
        data = request.body.everything()
        request.body = Body(BytesIO(data), len(data))
    lines: Iterator[bytes] = iter(request.body.line, b"")
    ending = next((line[len(mark) :] for line in lines if line.rstrip() == mark), b"")
    _headers_in(lines)
    resource = b"".join(_before(mark, lines))
    headers = _headers_in(lines)
    request.end_mark = ending + mark + b"--"
    try:
        metadata = json.loads(resource)
    except ValueError:
        raise ApiError(400, "parseError", "Parse Error") from None
    if "content-type" in headers:
        metadata.setdefault("contentType", headers["content-type"])
    return dict(metadata)


def _before(mark: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line.rstrip() == mark:
            return
        yield line


def _headers_in(lines: Iterator[bytes]) -> dict[str, str]:
    headers = {}
    for line in takewhile(lambda line: line.strip(), lines):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers
