"""The XML API, request by request: objects by path, uploads in parts, and its own way to say no."""

from xml.etree import ElementTree

import google_crc32c
import httpx
import pytest
from google.cloud.storage import Bucket

from infra.localcloud.storage import StorageServer
from infra.localcloud.storage.checksums import encode

MIB = 1024 * 1024
PART = b"0123456789abcdef" * (5 * MIB // 16)


def error_code(answer: httpx.Response) -> str | None:
    assert answer.headers["content-type"].startswith("application/xml")
    return ElementTree.fromstring(answer.content).findtext("Code")


def begin(server: StorageServer, name: str = "name", **headers: str) -> str:
    """The upload's address, with its id."""
    answer = httpx.post(f"{server.url}/bucket/{name}?uploads", headers=headers)
    assert answer.status_code == 200
    id = ElementTree.fromstring(answer.content).findtext("{http://s3.amazonaws.com/doc/2006-03-01/}UploadId")
    return f"{server.url}/bucket/{name}?uploadId={id}"


def put_part(upload: str, number: int, data: bytes, **headers: str) -> httpx.Response:
    return httpx.put(f"{upload}&partNumber={number}", content=data, headers=headers)


def complete(upload: str, *parts: tuple[int, str]) -> httpx.Response:
    inner = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in parts)
    return httpx.post(upload, content=f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>")


def test_an_object_by_its_path(server: StorageServer, bucket: Bucket) -> None:
    url = f"{server.url}/bucket/a/b%20c"
    headers = {"Content-Type": "text/plain", "x-goog-meta-key": "value"}
    made = httpx.put(url, content=b"hello", headers=headers)
    assert made.headers["x-goog-hash"].startswith("crc32c=mnG7TA==")
    answer = httpx.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"hello", "text/plain")
    assert answer.headers["x-goog-generation"] == made.headers["x-goog-generation"]
    assert bucket.get_blob("a/b c").metadata == {"key": "value"}
    assert httpx.get(url, headers={"Range": "bytes=1-2"}).content == b"el"
    assert httpx.head(url).headers["content-length"] == "5"
    assert httpx.delete(url).status_code == 204
    assert error_code(httpx.get(url)) == "NoSuchKey"
    assert error_code(httpx.get(f"{server.url}/no-such-bucket/x")) == "NoSuchBucket"


def test_conditions_come_in_headers(server: StorageServer) -> None:
    url = f"{server.url}/bucket/name"
    made = httpx.put(url, content=b"1", headers={"x-goog-if-generation-match": "0"})
    assert made.status_code == 200
    generation = made.headers["x-goog-generation"]
    for refused in (
        httpx.put(url, content=b"2", headers={"x-goog-if-generation-match": "0"}),
        httpx.delete(url, headers={"x-goog-if-generation-match": str(int(generation) + 1)}),
        httpx.get(url, headers={"x-goog-if-metageneration-match": "2"}),
    ):
        assert (refused.status_code, error_code(refused)) == (412, "PreconditionFailed")
    assert httpx.delete(url, headers={"x-goog-if-generation-match": generation}).status_code == 204


def test_wrong_sums_are_refused(server: StorageServer) -> None:
    answer = httpx.put(f"{server.url}/bucket/name", content=b"x", headers={"x-goog-hash": f"crc32c={encode(1)}"})
    assert (answer.status_code, error_code(answer)) == (400, "BadDigest")
    answer = httpx.put(f"{server.url}/bucket/name", content=b"x", headers={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="})
    assert (answer.status_code, error_code(answer)) == (400, "BadDigest")
    assert put_part(begin(server), 1, b"x", **{"x-goog-hash": f"crc32c={encode(1)}"}).status_code == 400
    assert httpx.get(f"{server.url}/bucket/name").status_code == 404


def test_parts_in_any_order_make_the_object_in_theirs(server: StorageServer, bucket: Bucket) -> None:
    upload = begin(server, **{"Content-Type": "text/x-parts", "x-goog-meta-key": "value"})
    third = put_part(upload, 30, b"the end").headers["etag"]
    first = put_part(upload, 1, PART).headers["etag"]
    put_part(upload, 2, b"overwritten")
    second = put_part(upload, 2, PART[::-1]).headers["etag"]
    put_part(upload, 7, b"not named in the end")
    listed = ElementTree.fromstring(httpx.get(upload).content)
    assert [part.findtext("{*}PartNumber") for part in listed.iterfind("{*}Part")] == ["1", "2", "7", "30"]
    assert not bucket.blob("name").exists()
    done = complete(upload, (1, first), (2, second), (30, third))
    assert done.status_code == 200
    whole = PART + PART[::-1] + b"the end"
    blob = bucket.get_blob("name")
    assert blob.download_as_bytes() == whole
    assert (blob.crc32c, blob.md5_hash) == (encode(google_crc32c.value(whole)), None)
    assert (blob.content_type, blob.metadata) == ("text/x-parts", {"key": "value"})
    assert len(list(server.store.data.folder.iterdir())) == 3
    assert error_code(complete(upload, (1, first))) == "NoSuchUpload"


def test_an_upload_in_parts_is_visible_until_it_is_cancelled(server: StorageServer) -> None:
    upload = begin(server, "a/name")
    put_part(upload, 1, PART)
    listed = ElementTree.fromstring(httpx.get(f"{server.url}/bucket?uploads").content)
    assert [found.findtext("{*}Key") for found in listed.iterfind("{*}Upload")] == ["a/name"]
    assert httpx.delete(upload).status_code == 204
    assert error_code(put_part(upload, 2, b"x")) == "NoSuchUpload"
    listed = ElementTree.fromstring(httpx.get(f"{server.url}/bucket?uploads").content)
    assert listed.find("{*}Upload") is None
    assert list(server.store.data.folder.iterdir()) == []


def test_parts_that_do_not_make_an_object_are_refused(server: StorageServer, bucket: Bucket) -> None:
    upload = begin(server)
    small = put_part(upload, 1, b"small").headers["etag"]
    large = put_part(upload, 2, PART).headers["etag"]
    assert error_code(complete(upload, (1, small), (2, large))) == "EntityTooSmall"
    assert error_code(complete(upload, (2, "wrong"))) == "InvalidPart"
    assert error_code(complete(upload, (3, large))) == "InvalidPart"
    assert error_code(complete(upload, (2, large), (1, small))) == "InvalidPartOrder"
    assert error_code(complete(upload)) == "InvalidPartOrder"
    assert error_code(httpx.post(upload, content=b"<not")) == "MalformedXML"
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><CompleteMultipartUpload/>'
    assert error_code(httpx.post(upload, content=bomb)) == "MalformedXML"
    for number in ("0", "10001", "x"):
        assert httpx.put(f"{upload}&partNumber={number}", content=b"").status_code == 400
    assert not bucket.blob("name").exists()
    assert complete(upload, (2, large), (3, put_part(upload, 3, b"").headers["etag"])).status_code == 200


@pytest.mark.parametrize("version", ["1", "2"])
def test_lists_come_in_pages(server: StorageServer, bucket: Bucket, version: str) -> None:
    for name in ("a/1", "a/2", "b", "c", "d"):
        bucket.blob(name).upload_from_string(b"")
    query = {"max-keys": "2", "delimiter": "/"} | ({"list-type": "2"} if version == "2" else {})
    found = []
    for _ in range(10):
        page = ElementTree.fromstring(httpx.get(f"{server.url}/bucket", params=query).content)
        found += [item.findtext("{*}Prefix") for item in page.iterfind("{*}CommonPrefixes")]
        found += [item.findtext("{*}Key") for item in page.iterfind("{*}Contents")]
        if page.findtext("{*}IsTruncated") == "false":
            break
        if version == "2":
            query["continuation-token"] = page.findtext("{*}NextContinuationToken", "")
        else:
            query["marker"] = page.findtext("{*}NextMarker", "")
    assert found == ["a/", "b", "c", "d"]


def test_copying_is_refused_instead_of_making_an_empty_object(server: StorageServer) -> None:
    answer = httpx.put(f"{server.url}/bucket/copy", headers={"x-goog-copy-source": "/bucket/name"})
    assert (answer.status_code, error_code(answer)) == (501, "NotImplemented")
    assert httpx.get(f"{server.url}/bucket/copy").status_code == 404
