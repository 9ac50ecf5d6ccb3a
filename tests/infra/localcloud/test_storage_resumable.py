"""The protocol of resumable uploads, request by request: what clients in trouble rely on."""

import threading
from pathlib import Path

import google_crc32c
import httpx
import pytest
from google.cloud.storage import Bucket

from infra.localcloud.storage import StorageServer
from infra.localcloud.storage.checksums import encode

KIB = 1024
BLOCK = 256 * KIB
DATA = bytes(range(256)) * 4 * KIB  # 1 MiB


def begin(server: StorageServer, path: str = "/upload", **query: str) -> str:
    """The address of a new upload of `name`."""
    url = f"{server.url}{path}/storage/v1/b/bucket/o"
    answer = httpx.post(url, params={"uploadType": "resumable", "name": "name"} | query)
    assert answer.status_code == 200
    assert answer.content == b""
    return answer.headers["location"]


def send(session: str, first: int, data: bytes, total: int | str = "*", **headers: str) -> httpx.Response:
    """Sends the bytes that begin at `first`."""
    content_range = f"bytes {first}-{first + len(data) - 1}/{total}"
    return httpx.put(session, content=data, headers={"Content-Range": content_range} | headers)


def ask(session: str, total: int | str = "*") -> httpx.Response:
    """Asks how much has arrived."""
    return httpx.put(session, headers={"Content-Range": f"bytes */{total}"})


@pytest.mark.parametrize("path", ["/upload", "/resumable/upload"])
def test_chunk_by_chunk(server: StorageServer, bucket: Bucket, path: str) -> None:
    session = begin(server, path)
    assert ask(session).status_code == 308
    assert "range" not in ask(session).headers
    first = send(session, 0, DATA[:BLOCK])
    assert (first.status_code, first.reason_phrase) == (308, "Resume Incomplete")
    assert first.headers["range"] == f"bytes=0-{BLOCK - 1}"
    assert not bucket.blob("name").exists()
    second = send(session, BLOCK, DATA[BLOCK:], len(DATA))
    assert (second.status_code, second.json()["size"]) == (200, str(len(DATA)))
    assert bucket.blob("name").download_as_bytes() == DATA


def test_the_total_may_be_told_at_the_end(server: StorageServer, bucket: Bucket) -> None:
    session = begin(server)
    send(session, 0, DATA)
    assert ask(session).headers["range"] == f"bytes=0-{len(DATA) - 1}"
    assert ask(session, len(DATA)).status_code == 200
    assert bucket.blob("name").download_as_bytes() == DATA


def test_without_a_range_the_body_is_the_whole(server: StorageServer, bucket: Bucket) -> None:
    assert httpx.put(begin(server), content=DATA).status_code == 200
    assert bucket.blob("name").download_as_bytes() == DATA
    assert httpx.put(begin(server), content=b"").status_code == 200
    assert bucket.blob("name").download_as_bytes() == b""


def test_only_whole_blocks_are_kept_until_the_end(server: StorageServer, bucket: Bucket) -> None:
    session = begin(server)
    assert send(session, 0, DATA[: BLOCK + 1000]).headers["range"] == f"bytes=0-{BLOCK - 1}"
    assert "range" not in send(begin(server), 0, DATA[:1000]).headers
    assert send(session, BLOCK, DATA[BLOCK:], len(DATA)).status_code == 200
    assert bucket.blob("name").download_as_bytes() == DATA


@pytest.mark.parametrize("again_from", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_bytes_that_are_there_already_are_not_taken_twice(
    server: StorageServer, bucket: Bucket, again_from: int
) -> None:
    session = begin(server)
    send(session, 0, DATA[: 2 * BLOCK])
    assert send(session, again_from, DATA[again_from:], len(DATA)).status_code == 200
    assert bucket.blob("name").download_as_bytes() == DATA


def test_a_gap_is_refused(server: StorageServer) -> None:
    session = begin(server)
    send(session, 0, DATA[:BLOCK])
    answer = send(session, 2 * BLOCK, DATA[2 * BLOCK :], len(DATA))
    assert answer.status_code == 503
    assert "which exceeds already uploaded size of 262144 byte(s)" in answer.json()["error"]["message"]
    assert ask(session).headers["range"] == f"bytes=0-{BLOCK - 1}"


def test_the_last_request_may_be_repeated(server: StorageServer) -> None:
    session = begin(server)
    first = send(session, 0, DATA, len(DATA))
    again = send(session, 0, DATA, len(DATA))
    assert (again.status_code, again.json()) == (200, first.json())
    assert (ask(session).status_code, ask(session).json()) == (200, first.json())
    assert server.accounting.totals()["classes"]["A"] == 1


def test_a_cancelled_upload_is_gone(server: StorageServer, bucket: Bucket) -> None:
    session = begin(server)
    send(session, 0, DATA[:BLOCK])
    cancelled = httpx.delete(session)
    assert (cancelled.status_code, cancelled.reason_phrase) == (499, "Client Closed Request")
    assert ask(session).status_code == 404
    assert send(session, BLOCK, DATA[BLOCK:], len(DATA)).status_code == 404
    assert not bucket.blob("name").exists()
    assert list(server.store.data.folder.iterdir()) == []


def test_the_condition_is_checked_when_the_object_would_change(server: StorageServer, bucket: Bucket) -> None:
    session = begin(server, ifGenerationMatch="0")
    send(session, 0, DATA[:BLOCK])
    bucket.blob("name").upload_from_string(b"came in between")
    assert send(session, BLOCK, DATA[BLOCK:], len(DATA)).status_code == 412
    assert bucket.blob("name").download_as_bytes() == b"came in between"
    assert ask(session).status_code == 404


def test_a_wrong_sum_at_the_end_is_refused(server: StorageServer, bucket: Bucket) -> None:
    wrong, right = encode(1), encode(google_crc32c.value(DATA))
    assert send(begin(server), 0, DATA, len(DATA), **{"x-goog-hash": f"crc32c={wrong}"}).status_code == 400
    assert not bucket.blob("name").exists()
    assert send(begin(server), 0, DATA, len(DATA), **{"x-goog-hash": f"crc32c={right}"}).status_code == 200


def test_a_request_that_hangs_adds_nothing_once_a_newer_one_has_come(server: StorageServer, bucket: Bucket) -> None:
    session = begin(server)
    server.faults.arm("stall", verb="resumable_put", after_bytes=BLOCK, delay_s=None)
    ended: list[object] = []
    hanging = threading.Thread(target=_send_and_tell, args=(session, DATA, ended))
    hanging.start()
    while server.faults.armed():
        threading.Event().wait(0.01)
    other = bytes(reversed(DATA))
    kept = int(ask(session).headers.get("range", "bytes=0--1").rpartition("-")[2]) + 1
    assert kept in (0, BLOCK)
    assert send(session, 0, other[: 2 * BLOCK]).status_code == 308
    server.faults.stop()  # now the older one goes on
    hanging.join(20)
    assert ended == [httpx.RemoteProtocolError]
    assert send(session, 2 * BLOCK, other[2 * BLOCK :], len(other)).status_code == 200
    assert bucket.blob("name").download_as_bytes() == DATA[:kept] + other[kept:]


def _send_and_tell(session: str, data: bytes, ended: list[object]) -> None:
    try:
        ended.append(send(session, 0, data, len(data)).status_code)
    except httpx.HTTPError as error:
        ended.append(type(error))


@pytest.mark.parametrize("content_range", ["bytes 0-10", "bytes x-y/z", "0-1048575/1048576", "bytes 5-2/10"])
def test_a_range_that_makes_no_sense_is_refused(server: StorageServer, content_range: str) -> None:
    session = begin(server)
    assert httpx.put(session, content=DATA, headers={"Content-Range": content_range}).status_code == 400
    assert ask(session).status_code == 308


def test_fewer_bytes_than_the_range_says_are_refused(server: StorageServer, bucket: Bucket) -> None:
    answer = httpx.put(begin(server), content=b"123", headers={"Content-Range": "bytes 0-9/10"})
    assert answer.status_code == 400
    assert not bucket.blob("name").exists()
    session = begin(server)
    answer = httpx.put(session, content=DATA, headers={"Content-Range": f"bytes 0-{BLOCK - 1}/*"})
    assert answer.status_code == 400
    assert "range" not in ask(session).headers


def test_an_upload_belongs_to_its_bucket(server: StorageServer) -> None:
    server.make_bucket("other")
    session = begin(server)
    assert httpx.put(session.replace("/b/bucket/", "/b/other/"), content=DATA).status_code == 404
    assert httpx.put(session, content=DATA).status_code == 200


def test_finished_uploads_are_remembered_for_a_while_and_not_for_ever(
    server: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.localcloud.storage.uploads.FINISHED_KNOWN", 2)
    sessions = [begin(server) for _ in range(3)]
    for session in sessions:
        assert httpx.put(session, content=b"x").status_code == 200
    assert [ask(session).status_code for session in sessions] == [404, 200, 200]


def test_uploads_that_nobody_goes_on_with_hold_no_file_open(server: StorageServer) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        send(begin(server), 0, DATA[:BLOCK])
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 20


def test_an_unknown_upload_is_404(server: StorageServer) -> None:
    url = f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=resumable&name=name&upload_id=none"
    assert httpx.put(url, content=DATA).status_code == 404
    assert httpx.delete(url).status_code == 404
