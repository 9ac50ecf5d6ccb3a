"""The XML API: objects by path, and uploads in parts."""

from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from infra.localcloud.storage import conditions as conditions_of
from infra.localcloud.storage.checksums import encode
from infra.localcloud.storage.data import Piece, total
from infra.localcloud.storage.errors import ApiError, bad_request
from infra.localcloud.storage.json_api import MAX_RESULTS, entries
from infra.localcloud.storage.messages import Request, Response
from infra.localcloud.storage.resources import etag, media_headers, timestamp
from infra.localcloud.storage.routes import Route
from infra.localcloud.storage.service import Service, announced_hashes
from infra.localcloud.storage.uploads import Upload

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"  # the one that the real service answers with
SMALLEST_PART_BYTES = 5 * 1024 * 1024
MOST_PARTS = 10_000
HEADER_FIELDS = {
    "content-type": "contentType",
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}


def head(service: Service, request: Request, route: Route) -> Response:
    """An object's headers."""
    service.may_read(request, "get", route.bucket, route.name)
    stored = service.store.get(route.bucket, route.name, None, conditions_of.from_headers(request.headers))
    return Response(200, media_headers(stored) | {"Content-Length": str(stored.size_bytes)})


def put(service: Service, request: Request, route: Route) -> Response:
    """An object in one request."""
    service.store.bucket(route.bucket)
    service.may_write(request.account, route.bucket, route.name)
    if "x-goog-copy-source" in request.headers:
        raise ApiError(501, "notImplemented", "This server copies by the JSON API only.")
    piece = service.store.data.store(request.data())
    stored = service.put(
        request.account,
        route.bucket,
        route.name,
        piece,
        hashes=announced_hashes(request),
        fields=_fields(request),
        conditions=conditions_of.from_headers(request.headers),
    )
    headers = media_headers(stored)
    kept = {name: headers[name] for name in ("ETag", "X-Goog-Generation", "X-Goog-Metageneration", "X-Goog-Hash")}
    return Response(200, kept, changed=True)


def listing(service: Service, request: Request, route: Route) -> Response:
    """A page of a bucket's objects; both forms, that with a marker and that with a continuation token."""
    service.gate.require(request.account, "list", route.bucket, request.query.get("prefix", ""))
    second = request.query.get("list-type") == "2"
    most = min(MAX_RESULTS, int(request.query.get("max-keys", MAX_RESULTS)))
    start = request.query.get("continuation-token" if second else "marker", "")
    root = Element("ListBucketResult", xmlns="http://doc.s3.amazonaws.com/2006-03-01")
    SubElement(root, "Name").text = route.bucket
    SubElement(root, "Prefix").text = request.query.get("prefix", "")
    last = ""
    shown = 0
    for prefix, stored in entries(service, route.bucket, request, start):
        name = prefix or stored.name
        if not second and name == start:
            continue  # a marker is the last name of the page before
        if shown == most:
            SubElement(root, "NextContinuationToken" if second else "NextMarker").text = name if second else last
            break
        shown += 1
        last = name
        if prefix:
            SubElement(SubElement(root, "CommonPrefixes"), "Prefix").text = prefix
            continue
        contents = SubElement(root, "Contents")
        _fill(
            contents,
            Key=name,
            Generation=stored.generation,
            MetaGeneration=stored.metageneration,
            LastModified=timestamp(stored.updated_s),
            ETag=f'"{etag(stored)}"',
            Size=stored.size_bytes,
        )
    SubElement(root, "IsTruncated").text = (
        "true" if root.find("NextContinuationToken") is not None or root.find("NextMarker") is not None else "false"
    )
    return _document(root)


def head_bucket(service: Service, request: Request, route: Route) -> Response:
    """That there is such a bucket."""
    service.gate.require(request.account, "buckets.get", route.bucket, "")
    service.store.bucket(route.bucket)
    return Response(200)


def create_bucket(service: Service, request: Request, route: Route) -> Response:
    """A new bucket, where its document or the default says."""
    service.gate.require(request.account, "buckets.create", route.bucket, "")
    data = request.body.everything()
    location = _xml(data).findtext("{*}LocationConstraint") if data else None
    service.store.create_bucket(route.bucket, {"location": location} if location else {})
    return Response(200)


def start(service: Service, request: Request, route: Route) -> Response:
    """A new upload in parts."""
    service.store.bucket(route.bucket)
    service.may_write(request.account, route.bucket, route.name)
    upload = service.uploads.begin(
        route.bucket,
        route.name,
        _fields(request),
        conditions_of.NONE,  # the real service takes none here
        hashes={},
        account=request.account,
        in_parts=True,
    )
    root = Element("InitiateMultipartUploadResult", xmlns=NAMESPACE)
    _fill(root, Bucket=route.bucket, Key=route.name, UploadId=upload.id)
    return _document(root)


def put_part(service: Service, request: Request, route: Route) -> Response:
    """One part."""
    upload = _upload(service, request, route)
    number = request.query.get("partNumber", "")
    if not number.isdecimal() or not 1 <= int(number) <= MOST_PARTS:
        raise bad_request("Part number must be an integer between 1 and 10000, inclusive.")
    piece = service.store.data.store(request.data())
    announced = announced_hashes(request)
    md5 = service.checked((piece,), (piece.size_bytes, piece.crc32c), announced)
    part = service.uploads.add_part(upload, int(number), piece)
    hashes = f"crc32c={encode(piece.crc32c)}" + (f",md5={md5}" if md5 else "")
    return Response(200, {"ETag": f'"{part.etag}"', "X-Goog-Hash": hashes})


def complete(service: Service, request: Request, route: Route) -> Response:
    """The object, of the parts that the client names."""
    upload = _upload(service, request, route)
    named = list(_named_parts(request.body.everything()))
    pieces: list[Piece] = []
    for at, (number, tag) in enumerate(named):
        part = upload.parts.get(number)
        if part is None or part.etag != tag:
            raise bad_request("One or more of the specified parts could not be found.", xml_code="InvalidPart")
        if at + 1 < len(named) and part.piece.size_bytes < SMALLEST_PART_BYTES:
            message = "Your proposed upload is smaller than the minimum object size specified."
            raise bad_request(message, xml_code="EntityTooSmall")
        pieces.append(part.piece)
    if not pieces or [number for number, _ in named] != sorted({number for number, _ in named}):
        raise bad_request("The list of parts was not in ascending order.", xml_code="InvalidPartOrder")
    size_bytes, crc = total(pieces)
    announced = announced_hashes(request)
    if "crc32c" in announced:
        service.checked((), (size_bytes, crc), {"crc32c": announced["crc32c"]})
    with service.store.lock:
        service.may_write(request.account, route.bucket, route.name)
        stored = service.uploads.finish(upload, tuple(pieces), None)
    root = Element("CompleteMultipartUploadResult", xmlns=NAMESPACE)
    location = f"{request.base_url}{request.path}"
    _fill(root, Location=location, Bucket=route.bucket, Key=route.name, ETag=f'"{etag(stored)}"')
    headers = media_headers(stored)
    kept = {name: headers[name] for name in ("X-Goog-Generation", "X-Goog-Metageneration", "X-Goog-Hash")}
    response = _document(root)
    return Response(200, response.headers | kept, response.body, changed=True)


def cancel(service: Service, request: Request, route: Route) -> Response:
    """Forgets an upload and its parts."""
    service.uploads.cancel(_upload(service, request, route))
    return Response(204)


def list_parts(service: Service, request: Request, route: Route) -> Response:
    """The parts that have arrived."""
    upload = _upload(service, request, route)
    root = Element("ListPartsResult", xmlns=NAMESPACE)
    _fill(root, Bucket=route.bucket, Key=route.name, UploadId=upload.id)
    for number, part in sorted(upload.parts.items()):
        size_bytes, updated = part.piece.size_bytes, timestamp(part.updated_s)
        _fill(SubElement(root, "Part"), PartNumber=number, LastModified=updated, ETag=f'"{part.etag}"', Size=size_bytes)
    SubElement(root, "IsTruncated").text = "false"
    return _document(root)


def list_uploads(service: Service, request: Request, route: Route) -> Response:
    """The uploads in parts that nobody has completed or cancelled."""
    service.gate.require(request.account, "list", route.bucket, request.query.get("prefix", ""))
    service.store.bucket(route.bucket)
    root = Element("ListMultipartUploadsResult", xmlns=NAMESPACE)
    SubElement(root, "Bucket").text = route.bucket
    for upload in service.uploads.of(route.bucket):
        if upload.name.startswith(request.query.get("prefix", "")):
            element = SubElement(root, "Upload")
            _fill(element, Key=upload.name, UploadId=upload.id, Initiated=timestamp(upload.began_s))
    SubElement(root, "IsTruncated").text = "false"
    return _document(root)


def _upload(service: Service, request: Request, route: Route) -> Upload:
    upload = service.uploads.find(request.query["uploadId"], route.bucket)
    service.gate.require(request.account, "create", route.bucket, upload.name)
    if upload.incoming is not None or upload.name != route.name or upload.finished is not None:
        raise ApiError(404, "notFound", "The requested upload was not found.", xml_code="NoSuchUpload")
    return upload


def _named_parts(data: bytes) -> Iterable[tuple[int, str]]:
    for part in _xml(data).iterfind("{*}Part"):
        number, tag = part.findtext("{*}PartNumber", ""), part.findtext("{*}ETag", "")
        if not number.isdecimal():
            raise _malformed()
        yield int(number), tag.strip('"')


def _xml(data: bytes) -> Element:
    if b"<!DOCTYPE" in data:  # no document of this API has one, and entities can grow without bound
        raise _malformed()
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError:
        raise _malformed() from None


def _malformed() -> ApiError:
    message = "The XML you provided was not well-formed or did not validate against our published schema."
    return bad_request(message, xml_code="MalformedXML")


def _fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {
        field: request.headers[header] for header, field in HEADER_FIELDS.items() if header in request.headers
    }
    metadata = {
        name.removeprefix("x-goog-meta-"): value
        for name, value in request.headers.items()
        if name.startswith("x-goog-meta-")
    }
    return fields | ({"metadata": metadata} if metadata else {})


def _fill(element: Element, **texts: object) -> None:
    for name, text in texts.items():
        SubElement(element, name).text = str(text)


def _document(root: Element) -> Response:
    body = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return Response(200, {"Content-Type": "application/xml; charset=UTF-8"}, body)
