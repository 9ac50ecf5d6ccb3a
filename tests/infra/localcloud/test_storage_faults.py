"""Each fault on demand: what the real client makes of it, and that it strikes where, when and as often as it was asked.

The client is the real one with its own retries, sped up: the waits between them are a matter of its, not of ours.
"""

import contextlib
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import requests
from google.api_core.exceptions import Forbidden, PreconditionFailed, ServiceUnavailable, TooManyRequests, Unauthorized
from google.api_core.retry import Retry
from google.auth.credentials import Credentials
from google.cloud.storage import Blob, Bucket
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from storage_client import client_of

from infra.localcloud.storage import StorageServer, start

MIB = 1024 * 1024
DATA = bytes(range(256)) * (8 * 1024)  # 2 MiB
FAST: Retry = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05).with_timeout(20)


@pytest.fixture
def blob(bucket: Bucket) -> Blob:
    """One that is there."""
    made = bucket.blob("runs/a/name")
    made.upload_from_string(DATA)
    return made


def struck(server: StorageServer) -> list[tuple[str, str]]:
    """(operation, fault) of each request that a fault struck."""
    return [(entry["operation"], entry["fault"]) for entry in server.accounting.last() if entry["fault"]]


@pytest.mark.parametrize("kind", ["408", "429", "500", "502", "503", "504"])
def test_a_failure_that_passes_is_retried_by_the_client(blob: Blob, server: StorageServer, kind: str) -> None:
    server.faults.arm(kind, verb="download", count=2)
    assert blob.download_as_bytes(retry=FAST) == DATA
    assert struck(server) == [("download", kind)] * 2
    assert server.faults.armed() == []


@pytest.mark.parametrize(("kind", "error"), [("429", TooManyRequests), ("503", ServiceUnavailable), ("403", Forbidden)])
def test_a_failure_changes_nothing(bucket: Bucket, server: StorageServer, kind: str, error: type[Exception]) -> None:
    server.faults.arm(kind, object="new", count=3)
    with pytest.raises(error):
        bucket.blob("new").upload_from_string(b"1", retry=None)
    with pytest.raises(error):
        bucket.blob("new").upload_from_file(io.BytesIO(b"1"), retry=None)
    with pytest.raises(error):
        bucket.blob("new").reload(retry=None)
    assert not bucket.blob("new").exists()


class Refreshing(Credentials):
    """Credentials that can always have another token."""

    def refresh(self, request: object) -> None:
        self.token = f"{self.token or ''}+"


def test_a_token_that_is_refused_is_refreshed_by_the_client(server: StorageServer, blob: Blob) -> None:
    client = client_of(server, Refreshing())
    server.faults.arm("401", verb="download")
    assert client.bucket("bucket").blob(blob.name).download_as_bytes() == DATA
    assert client._credentials.token == "++"
    server.faults.arm("401", verb="download", count=None)
    with pytest.raises(Unauthorized, match="Invalid Credentials"):
        client.bucket("bucket").blob(blob.name).download_as_bytes()


def test_a_client_that_may_not_repeat_a_write_does_not(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("503", verb="upload", count=None)
    with pytest.raises(ServiceUnavailable):
        bucket.blob("x").upload_from_string(b"", retry=None)
    assert struck(server) == [("insert", "503")]


def test_a_download_that_breaks_off_is_resumed_where_it_broke_off(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("cut", verb="download", after_bytes=MIB + 17)
    server.accounting.reset()
    assert blob.download_as_bytes(retry=FAST) == DATA
    assert [entry["status"] for entry in server.accounting.last()] == [200, 206]
    assert len(DATA) <= server.accounting.totals()["sent_bytes"] < len(DATA) + MIB


def test_a_download_that_breaks_off_is_an_error_without_retries(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("cut", verb="download", after_bytes=MIB)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        blob.download_as_bytes(retry=None)


def test_an_upload_that_breaks_off_leaves_nothing(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("cut", verb="upload", after_bytes=MIB)
    with pytest.raises(requests.exceptions.ConnectionError):
        bucket.blob("new").upload_from_string(DATA, retry=None)
    assert not bucket.blob("new").exists()
    assert struck(server) == [("insert", "cut")]


def test_an_upload_in_chunks_that_breaks_off_goes_on(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("cut", verb="resumable_put", after_bytes=300_000, count=2)
    blob = bucket.blob("new", chunk_size=MIB)
    blob.upload_from_file(io.BytesIO(DATA), retry=FAST)
    assert bucket.blob("new").download_as_bytes() == DATA
    assert struck(server) == [("resumable_put", "cut")] * 2


def test_a_cut_without_bytes_closes_the_connection_before_anything_is_done(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("cut", verb="delete")
    with pytest.raises(requests.exceptions.ConnectionError):
        blob.delete(retry=None)
    assert blob.exists()


def overwrite(blob: Blob) -> None:
    blob.upload_from_string(b"new", if_generation_match=blob.generation, retry=None)


def overwrite_in_chunks(blob: Blob) -> None:
    blob.upload_from_file(io.BytesIO(b"new"), if_generation_match=blob.generation, retry=None)


def compose(blob: Blob) -> None:
    blob.compose([blob, blob], if_generation_match=blob.generation, retry=None)


def delete(blob: Blob) -> None:
    blob.delete(if_generation_match=blob.generation, retry=None)


@pytest.mark.parametrize("change", [overwrite, overwrite_in_chunks, compose, delete])
def test_a_lost_reply_is_a_change_that_was_made(
    blob: Blob, bucket: Bucket, server: StorageServer, change: Callable[[Blob], None]
) -> None:
    generation = blob.generation
    server.faults.arm("lost_reply", object="runs/*")
    with pytest.raises(requests.exceptions.ConnectionError):
        change(blob)
    now = bucket.get_blob(blob.name)
    assert now is None if change is delete else now.generation > generation
    assert len(struck(server)) == 1


def test_a_client_that_repeats_after_a_lost_reply_meets_its_own_change(
    blob: Blob, bucket: Bucket, server: StorageServer
) -> None:
    server.faults.arm("lost_reply", verb="upload")
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string(b"new", if_generation_match=blob.generation, retry=FAST)
    assert bucket.blob(blob.name).download_as_bytes() == b"new"


def test_the_lost_reply_to_a_chunk_is_made_up_for(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("lost_reply", verb="resumable_put", count=2)
    bucket.blob("new", chunk_size=MIB).upload_from_file(io.BytesIO(DATA + b"tail"), retry=FAST)
    assert bucket.blob("new").download_as_bytes() == DATA + b"tail"
    assert struck(server) == [("resumable_put", "lost_reply")] * 2


def test_reads_do_not_use_up_a_lost_reply(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("lost_reply")
    blob.reload()
    blob.download_as_bytes()
    assert struck(server) == []
    with pytest.raises(requests.exceptions.ConnectionError):
        blob.delete(retry=None)


def test_wrong_bytes_in_a_download_are_seen_by_the_client(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("corrupt", verb="download", after_bytes=MIB)
    with pytest.raises(DataCorruption, match="Checksum mismatch"):
        blob.download_as_bytes()
    assert blob.download_as_bytes() == DATA  # what is stored is whole
    server.faults.arm("corrupt", verb="download", after_bytes=MIB)
    damaged = blob.download_as_bytes(checksum=None)
    assert [at for at in range(len(DATA)) if damaged[at] != DATA[at]] == [MIB]


@pytest.mark.parametrize("chunk_size", [None, MIB])
def test_wrong_bytes_in_an_upload_are_refused_by_the_server(
    bucket: Bucket, server: StorageServer, chunk_size: int | None
) -> None:
    server.faults.arm("corrupt", verb="upload", after_bytes=100)
    with pytest.raises(Exception, match="doesn't match calculated CRC32C"):
        bucket.blob("new", chunk_size=chunk_size).upload_from_file(
            io.BytesIO(DATA), size=None if chunk_size else len(DATA), checksum="crc32c", retry=None
        )
    assert not bucket.blob("new").exists()


def test_slow_waits_before_it_answers(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("slow", verb="get", delay_s=0.3)
    began = time.monotonic()
    blob.reload()
    assert time.monotonic() - began >= 0.3
    server.faults.arm("slow", verb="get", delay_s=600.0)
    with pytest.raises(requests.exceptions.ReadTimeout):
        blob.reload(timeout=0.2, retry=None)


def test_a_cap_on_bandwidth_holds_in_both_directions(blob: Blob, bucket: Bucket, server: StorageServer) -> None:
    rate = 8 * MIB
    server.faults.arm("slow", bandwidth_bytes_per_s=rate, count=None)
    for transfer in (blob.download_as_bytes, lambda: bucket.blob("up").upload_from_string(DATA)):
        began = time.monotonic()
        transfer()
        assert time.monotonic() - began >= len(DATA) / rate


def test_a_stall_sends_some_bytes_and_then_nothing(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("stall", verb="download", after_bytes=MIB, delay_s=None)
    assert blob.download_as_bytes(timeout=0.3, retry=FAST) == DATA  # the client gives up waiting and resumes
    assert [entry["status"] for entry in server.accounting.last()[-2:]] == [200, 206]


def test_an_upload_that_stalls_is_taken_over_by_the_next_request(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("stall", verb="resumable_put", after_bytes=300_000, delay_s=None)
    bucket.blob("new", chunk_size=MIB).upload_from_file(io.BytesIO(DATA), timeout=0.3, retry=FAST)
    assert bucket.blob("new").download_as_bytes() == DATA


def test_a_stall_that_ends_goes_on(blob: Blob, server: StorageServer) -> None:
    server.faults.arm("stall", verb="download", after_bytes=MIB, delay_s=0.2)
    began = time.monotonic()
    assert blob.download_as_bytes(retry=None) == DATA
    assert time.monotonic() - began >= 0.2


def test_a_rule_strikes_the_objects_and_verbs_that_it_names(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("503", object="*/head.json", verb="upload", skip=1)
    server.faults.arm("403", object="other", verb="list")
    bucket.blob("a/other").upload_from_string(b"", retry=None)
    bucket.blob("a/head.json").upload_from_string(b"", retry=None)
    with pytest.raises(ServiceUnavailable):
        bucket.blob("a/head.json").upload_from_string(b"", retry=None)
    bucket.blob("a/head.json").upload_from_string(b"", retry=None)
    assert len(list(bucket.list_blobs())) == 2
    assert [rule["kind"] for rule in server.faults.armed()] == ["403"]


def test_a_rule_about_bytes_waits_for_a_request_that_has_so_many(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("cut", verb="upload", after_bytes=MIB)
    bucket.blob("small").upload_from_string(b"x" * 1000)
    assert len(server.faults.armed()) == 1
    with pytest.raises(requests.exceptions.ConnectionError):
        bucket.blob("large").upload_from_string(DATA, retry=None)
    assert server.faults.armed() == []


def test_the_limit_of_changes_per_name(bucket: Bucket, server: StorageServer) -> None:
    server.faults.arm("429", verb="upload", within_s=600.0, count=None)
    bucket.blob("head.json").upload_from_string(b"1", retry=None)
    bucket.blob("other.json").upload_from_string(b"1", retry=None)
    with pytest.raises(TooManyRequests, match="exceeded the rate limit for object mutation operations"):
        bucket.blob("head.json").upload_from_string(b"2", retry=None)
    server.faults.clear()
    server.faults.arm("429", verb="upload", within_s=0.05, count=None)
    patient = FAST.with_delay(initial=0.06, maximum=0.06)
    for number in range(3):
        bucket.blob("head.json").upload_from_string(str(number), retry=patient)
    assert bucket.blob("head.json").download_as_bytes() == b"2"


def test_faults_and_counts_over_the_wire(blob: Blob, server: StorageServer) -> None:
    control = f"{server.url}/_faults"
    assert httpx.delete(control).status_code == 200
    armed = httpx.post(control, json={"kind": "503", "verb": "download", "count": 2}).json()["armed"]
    assert [(rule["kind"], rule["verb"], rule["count"], rule["object"]) for rule in armed] == [
        ("503", "download", 2, "*")
    ]
    assert blob.download_as_bytes(retry=FAST) == DATA
    seen = httpx.get(control).json()
    assert seen["armed"] == []
    assert (
        seen["totals"]
        == {
            "operations": {"download": 3},
            "classes": {"A": 0, "B": 1, "free": 0},  # what the service failed to do is not charged
            "received_bytes": 0,
            "sent_bytes": len(DATA) + sum(entry["sent_bytes"] for entry in seen["requests"][:2]),
        }
    )
    assert [(entry["status"], entry["fault"]) for entry in seen["requests"]] == [(503, "503"), (503, "503"), (200, "")]
    httpx.post(control, json=[{"kind": "cut"}, {"kind": "slow", "delay_s": 1}])
    assert [rule["kind"] for rule in httpx.get(control).json()["armed"]] == ["cut", "slow"]
    assert httpx.delete(control).json()["armed"] == []


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "what"},
        {"kind": "503", "verb": "uplaod"},
        {"kind": "503", "objekt": "x"},
        {"kind": "503", "count": 0},
        {"kind": "cut", "after_bytes": -1},
        {"kind": "slow"},
        {},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(server: StorageServer, rule: dict[str, Any]) -> None:
    answer = httpx.post(f"{server.url}/_faults", json=rule)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert server.faults.armed() == []


def test_a_server_that_stops_ends_what_stalls() -> None:
    threads = threading.active_count()
    with start() as server:
        server.make_bucket("bucket")
        server.faults.arm("stall", verb="list", delay_s=None)
        asking = threading.Thread(target=_ask, args=(f"{server.url}/storage/v1/b/bucket/o",))
        asking.start()
        while server.faults.armed():
            time.sleep(0.01)
    asking.join(20)
    assert not asking.is_alive()
    assert threading.active_count() == threads


def _ask(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(url, timeout=60)
