"""Objects as the real Python client sees them: generations and preconditions on every verb, lists, copies, errors."""

import io
import json
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx
import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound, NotModified, PreconditionFailed
from google.cloud.exceptions import RequestRangeNotSatisfiable
from google.cloud.storage import Blob, Bucket, Client

from infra.localcloud.storage import StorageServer


def test_every_write_has_a_generation_greater_than_all_before(bucket: Bucket) -> None:
    generations = []
    for number in range(20):
        blob = bucket.blob(f"name{number % 2}")
        blob.upload_from_string(b"")
        generations.append(blob.generation)
    assert generations == sorted(set(generations))
    bucket.blob("name0").delete()
    blob = bucket.blob("name0")
    blob.upload_from_string(b"")
    assert blob.generation > generations[-1]


def write(blob: Blob, **conditions: int) -> None:
    blob.upload_from_string(b"new", **conditions)


def write_in_chunks(blob: Blob, **conditions: int) -> None:
    blob.chunk_size = 256 * 1024
    blob.upload_from_file(io.BytesIO(b"new"), **conditions)


def delete(blob: Blob, **conditions: int) -> None:
    blob.delete(**conditions)


def patch(blob: Blob, **conditions: int) -> None:
    blob.metadata = {"key": "value"}
    blob.patch(**conditions)


def compose(blob: Blob, **conditions: int) -> None:
    blob.compose([blob.bucket.blob("other")], **conditions)


def rewrite(blob: Blob, **conditions: int) -> None:
    blob.rewrite(blob.bucket.blob("other"), **conditions)


def download(blob: Blob, **conditions: int) -> None:
    blob.download_as_bytes(**conditions)


def look(blob: Blob, **conditions: int) -> None:
    blob.reload(**conditions)


CHANGES = [write, write_in_chunks, delete, patch, compose, rewrite]
READS = [download, look]


@pytest.mark.parametrize("verb", CHANGES + READS)
def test_a_condition_on_the_generation_holds_for_every_verb(bucket: Bucket, verb: Callable[..., None]) -> None:
    bucket.blob("other").upload_from_string(b"other")
    blob = bucket.blob("name")
    blob.upload_from_string(b"old")
    generation = blob.generation
    for wrong in (0, generation - 1, generation + 1):
        with pytest.raises(PreconditionFailed, match="At least one of the pre-conditions you specified did not hold"):
            verb(bucket.blob("name"), if_generation_match=wrong)
    assert bucket.get_blob("name").generation == generation
    assert bucket.blob("name").download_as_bytes() == b"old"
    verb(bucket.blob("name"), if_generation_match=generation)


@pytest.mark.parametrize("verb", [verb for verb in CHANGES + READS if verb is not compose])
def test_a_condition_on_the_metageneration_holds_for_every_verb(bucket: Bucket, verb: Callable[..., None]) -> None:
    bucket.blob("other").upload_from_string(b"other")
    bucket.blob("name").upload_from_string(b"old")
    with pytest.raises(PreconditionFailed):
        verb(bucket.blob("name"), if_metageneration_match=2)
    verb(bucket.blob("name"), if_metageneration_match=1)


@pytest.mark.parametrize("verb", [write, write_in_chunks, delete, patch, rewrite])
def test_a_change_unless_the_generation_is_the_one_known(bucket: Bucket, verb: Callable[..., None]) -> None:
    bucket.blob("other").upload_from_string(b"other")
    blob = bucket.blob("name")
    blob.upload_from_string(b"old")
    with pytest.raises(NotModified):
        verb(bucket.blob("name"), if_generation_not_match=blob.generation)
    assert bucket.get_blob("name").generation == blob.generation
    verb(bucket.blob("name"), if_generation_not_match=blob.generation + 1)


@pytest.mark.parametrize("verb", [write, write_in_chunks, rewrite])
def test_changing_only_what_is_there(bucket: Bucket, verb: Callable[..., None]) -> None:
    bucket.blob("other").upload_from_string(b"other")
    for value in (0, 5):
        with pytest.raises(NotModified):
            verb(bucket.blob("name"), if_generation_not_match=value)
    assert not bucket.blob("name").exists()
    bucket.blob("name").upload_from_string(b"")
    verb(bucket.blob("name"), if_generation_not_match=0)


@pytest.mark.parametrize("verb", [patch, delete])
def test_a_change_unless_the_metageneration_is_the_one_known(bucket: Bucket, verb: Callable[..., None]) -> None:
    bucket.blob("name").upload_from_string(b"old")
    with pytest.raises(NotModified):
        verb(bucket.blob("name"), if_metageneration_not_match=1)
    verb(bucket.blob("name"), if_metageneration_not_match=2)


@pytest.mark.parametrize("verb", READS)
def test_a_read_of_what_the_caller_has_already_is_304(bucket: Bucket, verb: Callable[..., None]) -> None:
    blob = bucket.blob("name")
    blob.upload_from_string(b"old")
    with pytest.raises(NotModified):
        verb(bucket.blob("name"), if_generation_not_match=blob.generation)


@pytest.mark.parametrize("verb", [write, write_in_chunks, compose, rewrite])
def test_creating_only_what_is_not_there(bucket: Bucket, verb: Callable[..., None]) -> None:
    bucket.blob("other").upload_from_string(b"other")
    verb(bucket.blob("name"), if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        verb(bucket.blob("name"), if_generation_match=0)
    bucket.blob("name").delete()
    verb(bucket.blob("name"), if_generation_match=0)


@pytest.mark.parametrize("verb", [delete, patch, *READS])
def test_what_is_not_there_is_404_also_with_a_condition(bucket: Bucket, verb: Callable[..., None]) -> None:
    with pytest.raises(NotFound, match="No such object: bucket/name"):
        verb(bucket.blob("name"))
    with pytest.raises(NotFound):
        verb(bucket.blob("name"), if_generation_match=7)


def test_a_generation_that_was_overwritten_is_gone(bucket: Bucket) -> None:
    blob = bucket.blob("name")
    blob.upload_from_string(b"old")
    old = blob.generation
    bucket.blob("name").upload_from_string(b"new")
    with pytest.raises(NotFound):
        bucket.blob("name", generation=old).download_as_bytes()
    with pytest.raises(NotFound):
        bucket.delete_blob("name", generation=old)
    assert bucket.blob("name").download_as_bytes() == b"new"


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1000])
def test_a_list_in_pages_is_the_whole_list(bucket: Bucket, server: StorageServer, page_size: int) -> None:
    names = ["a", "a/b", "a/b/c", "a0", "b/1", "b/2", "ä", "z z?&#%+/=", "\U0001f600"]
    for name in names:
        bucket.blob(name).upload_from_string(name)
    server.accounting.reset()
    assert [blob.name for blob in bucket.list_blobs(page_size=page_size)] == sorted(names, key=str.encode)
    assert server.accounting.totals()["operations"]["list"] == -(-len(names) // page_size)
    assert [blob.download_as_text() for blob in bucket.list_blobs()] == sorted(names, key=str.encode)


def test_a_list_by_prefix_delimiter_offsets_and_glob(bucket: Bucket) -> None:
    for name in ("runs/a/head.json", "runs/a/x/1", "runs/a/x/2", "runs/b/head.json", "runs.txt", "runs/"):
        bucket.blob(name).upload_from_string(b"")

    def names(**arguments: str | bool | int) -> list[str]:
        return [blob.name for blob in bucket.list_blobs(**arguments)]

    assert names(prefix="runs/a/") == ["runs/a/head.json", "runs/a/x/1", "runs/a/x/2"]
    assert names(prefix="runs/a/x/2") == ["runs/a/x/2"]
    assert names(prefix="nothing") == []
    assert names(start_offset="runs/a/x/2", end_offset="runs/b/") == ["runs/a/x/2"]
    assert names(match_glob="runs/*/head.json") == ["runs/a/head.json", "runs/b/head.json"]
    assert names(match_glob="**/[0-1]") == ["runs/a/x/1"]
    assert names(match_glob="runs/{a/x,b}/*") == ["runs/a/x/1", "runs/a/x/2", "runs/b/head.json"]
    for page_size in (1, 2, 1000):
        listing = bucket.list_blobs(prefix="runs/", delimiter="/", page_size=page_size)
        assert [blob.name for blob in listing] == ["runs/"]
        assert listing.prefixes == {"runs/a/", "runs/b/"}
        listing = bucket.list_blobs(delimiter="/", page_size=page_size)
        assert ([blob.name for blob in listing], listing.prefixes) == (["runs.txt"], {"runs/"})
    assert names(delimiter="/", include_trailing_delimiter=True) == ["runs.txt", "runs/"]


def test_fields_leaves_out_what_was_not_asked_for(bucket: Bucket, server: StorageServer) -> None:
    blob = bucket.blob("name")
    blob.metadata = {"a": "1", "b": "2"}
    blob.upload_from_string(b"12345")
    answer = httpx.get(
        f"{server.url}/storage/v1/b/bucket/o", params={"fields": "items(name,size),items/metadata/b,nextPageToken"}
    )
    assert answer.json() == {"items": [{"name": "name", "size": "5", "metadata": {"b": "2"}}]}


def test_ranges_are_those_bytes(bucket: Bucket, server: StorageServer) -> None:
    data = bytes(range(256)) * 4096
    bucket.blob("name").upload_from_string(data)
    blob = bucket.blob("name")
    assert blob.download_as_bytes(start=10, end=19) == data[10:20]
    assert blob.download_as_bytes(start=len(data) - 3) == data[-3:]
    assert blob.download_as_bytes(start=-5) == data[-5:]
    assert blob.download_as_bytes(start=0, end=10**12) == data
    with pytest.raises(RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=len(data))
    with blob.open("rb", chunk_size=300_000) as stream:
        stream.seek(500_000)
        assert stream.read(400_000) == data[500_000:900_000]
    url = f"{server.url}/storage/v1/b/bucket/o/name"
    answer = httpx.get(url, params={"alt": "media"}, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes 2-4/{len(data)}")
    assert answer.headers["x-goog-stored-content-length"] == str(len(data))
    answer = httpx.get(url, params={"alt": "media"}, headers={"Range": "bytes=0-1,3-4"})
    assert (answer.status_code, answer.content) == (200, data)  # several ranges at once are not served


def test_an_object_keeps_its_bytes_while_it_is_read_and_overwritten(bucket: Bucket, server: StorageServer) -> None:
    old = b"old" * 3_000_000
    bucket.blob("name").upload_from_string(old)
    with httpx.stream("GET", f"{server.url}/storage/v1/b/bucket/o/name?alt=media") as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        bucket.blob("name").upload_from_string(b"new")
        bucket.blob("name").delete()
        assert first + b"".join(pieces) == old


def test_composing_joins_bytes_and_sums(bucket: Bucket) -> None:
    parts = [bucket.blob(f"part{number}") for number in range(5)]
    for number, part in enumerate(parts):
        part.upload_from_string(bytes([number]) * (number * 100_001))
    joined = bucket.blob("joined")
    joined.content_type = "text/plain"
    joined.compose(parts)
    again = bucket.blob("again")
    again.compose([joined, parts[1]], if_source_generation_match=[joined.generation, None])
    for part in [*parts, joined]:
        part.delete()
    expected = b"".join(bytes([number]) * (number * 100_001) for number in range(5)) + bytes([1]) * 100_001
    assert bucket.blob("again").download_as_bytes() == expected  # and the client has compared the sum
    again.reload()
    assert (again.component_count, again.md5_hash) == (6, None)
    with pytest.raises(PreconditionFailed):
        bucket.blob("third").compose([again], if_source_generation_match=[1])
    with pytest.raises(NotFound):
        bucket.blob("third").compose([again, bucket.blob("missing")])
    with pytest.raises(BadRequest, match="exceeds the maximum"):
        bucket.blob("third").compose([again] * 33)
    assert not bucket.blob("third").exists()


def test_copies_have_the_bytes_and_fields_of_their_source(client: Client, bucket: Bucket) -> None:
    other = client.create_bucket("other-bucket")
    source = bucket.blob("source")
    source.metadata = {"key": "value"}
    source.upload_from_string(b"something", content_type="text/x-test")
    token, written, size = other.blob("copy").rewrite(source)
    assert (token, written, size) == (None, 9, 9)
    bucket.copy_blob(source, other, "copy2", if_source_generation_match=source.generation)
    with pytest.raises(PreconditionFailed):
        other.blob("copy3").rewrite(source, if_source_generation_match=source.generation + 1)
    bucket.move_blob(source, "moved")
    assert not source.exists()
    for blob in (other.get_blob("copy"), other.get_blob("copy2"), bucket.get_blob("moved")):
        assert blob.metadata == {"key": "value"}
        assert blob.content_type == "text/x-test"
        assert blob.download_as_bytes() == b"something"


def test_metadata_changes_only_the_metageneration(bucket: Bucket) -> None:
    blob = bucket.blob("name")
    blob.metadata = {"a": "1", "b": "2"}
    blob.upload_from_string(b"data", content_type="text/plain")
    generation = blob.generation
    blob.metadata = {"a": None, "c": "3"}
    blob.cache_control = "no-store"
    blob.patch()
    again = bucket.get_blob("name")
    assert again.metadata == {"b": "2", "c": "3"}
    assert (again.generation, again.metageneration) == (generation, 2)
    assert again.cache_control == "no-store"
    again.metadata = {"d": "4"}
    again.update()
    assert bucket.get_blob("name").metadata == {"d": "4"}


def test_a_batch_is_many_requests_in_one(client: Client, bucket: Bucket, server: StorageServer) -> None:
    blobs = [bucket.blob(f"name{number}") for number in range(10)]
    for blob in blobs:
        blob.upload_from_string(b"")
    server.accounting.reset()
    with client.batch():
        for blob in blobs[:5]:
            blob.delete()
        blobs[5].metadata = {"key": "value"}
        blobs[5].patch()
    totals = server.accounting.totals()
    assert (totals["operations"]["batch"], totals["operations"]["delete"]) == (1, 5)
    assert [blob.name for blob in bucket.list_blobs()] == [f"name{number}" for number in range(5, 10)]
    assert bucket.get_blob("name5").metadata == {"key": "value"}
    batch = client.batch(raise_exception=False)
    with batch:
        blobs[0].delete()  # is gone already
        blobs[6].delete()
    assert [answer.status_code for answer in batch._responses] == [404, 204]
    assert not blobs[6].exists()


def test_buckets_are_made_found_and_deleted(client: Client) -> None:
    made = client.create_bucket("made-here", location="europe-west4")
    assert made.location == "EUROPE-WEST4"
    with pytest.raises(Conflict):
        client.create_bucket("made-here")
    assert [bucket.name for bucket in client.list_buckets()] == ["bucket", "made-here"]
    made.labels = {"run": "a"}
    made.patch()
    assert client.get_bucket("made-here").labels == {"run": "a"}
    made.blob("x").upload_from_string(b"")
    with pytest.raises(Conflict, match="not empty"):
        made.delete()
    made.blob("x").delete()
    made.delete()
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        client.get_bucket("made-here")
    with pytest.raises(BadRequest, match="Invalid bucket name"):
        client.create_bucket("no such name")


def test_errors_are_worded_as_the_service_words_them(server: StorageServer) -> None:
    objects = f"{server.url}/storage/v1/b/bucket/o"
    missing = httpx.get(f"{objects}/name")
    assert missing.status_code == 404
    assert missing.json() == {
        "error": {
            "code": 404,
            "message": "No such object: bucket/name",
            "errors": [{"message": "No such object: bucket/name", "domain": "global", "reason": "notFound"}],
        }
    }
    media = httpx.get(f"{objects}/name?alt=media")
    assert (media.status_code, media.text) == (404, "No such object: bucket/name")
    upload = f"{server.url}/upload/storage/v1/b/bucket/o"
    httpx.post(upload, params={"uploadType": "media", "name": "name"}, content=b"1")
    query = {"uploadType": "media", "name": "name", "ifGenerationMatch": "0"}
    refused = httpx.post(upload, params=query, content=b"2")
    error = refused.json()["error"]
    assert (refused.status_code, error["errors"][0]["reason"]) == (412, "conditionNotMet")
    assert error["errors"][0]["location"] == "If-Match"
    assert httpx.get(f"{objects}?maxResults=0").status_code == 400
    assert httpx.get(f"{objects}/name?ifGenerationMatch=x").status_code == 400
    assert httpx.get(f"{objects}/name?generation=-1").status_code == 400
    assert httpx.get(f"{objects}?pageToken=%ff").status_code == 400
    assert httpx.patch(f"{objects}/name", content=b"[").json()["error"]["errors"][0]["reason"] == "parseError"
    assert httpx.post(upload, params={"uploadType": "media"}, content=b"1").status_code == 400
    assert httpx.post(upload, params={"uploadType": "media", "name": "x" * 1025}, content=b"").status_code == 400
    assert httpx.delete(f"{server.url}/storage/v1/b").status_code == 501


def test_headers_tell_generation_sums_and_the_servers_time(bucket: Bucket, server: StorageServer) -> None:
    blob = bucket.blob("name")
    blob.upload_from_string(b"hello", content_type="text/plain")
    before = time.time()
    answer = httpx.get(f"{server.url}/storage/v1/b/bucket/o/name?alt=media")
    assert answer.headers["x-goog-generation"] == str(blob.generation)
    assert answer.headers["x-goog-metageneration"] == "1"
    assert answer.headers["x-goog-hash"] == "crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg=="
    assert answer.headers["etag"].strip('"') == blob.etag
    assert answer.headers["content-type"] == "text/plain"
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - before) < 60
    assert abs(blob.updated.timestamp() - before) < 60
    assert httpx.get(blob.media_link).content == b"hello"
    assert httpx.get(blob.self_link).json()["name"] == "name"


def test_what_a_client_stores_begins_no_header_of_its_own(server: StorageServer) -> None:
    boundary = "mark"
    resource = json.dumps({"name": "name", "contentType": "text/plain\r\nX-Evil: 1"})
    body = f"--{boundary}\r\n\r\n{resource}\r\n--{boundary}\r\n\r\ndata\r\n--{boundary}--"
    headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
    url = f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=multipart"
    assert httpx.post(url, content=body.encode(), headers=headers).status_code == 200
    answer = httpx.get(f"{server.url}/storage/v1/b/bucket/o/name?alt=media")
    assert answer.content == b"data"
    assert "x-evil" not in answer.headers
