"""Every kind of bucket keeps the protocol: whole objects, growing generations, preconditions that hold under a crowd.

`file://` on this machine and `gs://` on a Cloud Storage of our own; with BATON_TEST_BUCKET=gs://BUCKET/PREFIX also
there, for which credentials, or STORAGE_EMULATOR_HOST, are taken from the environment.
"""

import multiprocessing
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.localcloud.storage.process import BUCKET
from job.errors import UsageError
from job.storage import Bucket, NotFound, PreconditionFailed, open_bucket
from job.storage.chunks import CHUNK_BYTES, crc32c
from job.storage.gcs import GcsBucket

CRC32C_OF_123456789 = 0xE3069283  # the check value of CRC-32C (RFC 3720, B.4 uses the same polynomial)


OTHER = os.environ.get("BATON_TEST_BUCKET", "")
Opener = Callable[[], Bucket]

KINDS = ["file", "gs", *([pytest.param("other", marks=pytest.mark.network_allowed)] if OTHER else [])]


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same empty bucket each time, in any process."""
    if request.param == "file":
        yield lambda: open_bucket(f"file://{tmp_path}/a folder/run")
        return
    if request.param == "gs":
        request.getfixturevalue("cloud")
        uri = f"gs://{BUCKET}/runs/{secrets.token_hex(8)}"
        yield lambda: GcsBucket(uri, write_interval_s=0)  # the pace is the real service's
        return
    uri = f"{OTHER.rstrip('/')}/{secrets.token_hex(8)}"
    yield lambda: open_bucket(uri)
    bucket = open_bucket(uri)
    for info in bucket.list(""):
        bucket.delete(info.name)


@pytest.fixture
def bucket(opener: Opener) -> Bucket:
    return opener()


def names(bucket: Bucket, prefix: str = "") -> list[str]:
    return [info.name for info in bucket.list(prefix)]


def test_what_was_written_is_read_back_with_its_checksum(bucket: Bucket) -> None:
    written = bucket.write("a/b.json", b"123456789")
    data, info = bucket.read("a/b.json")
    assert data == b"123456789"
    assert replace(info, updated_s=written.updated_s) == written
    assert abs(info.updated_s - written.updated_s) <= 1  # HTTP tells times to the second
    assert (info.size_bytes, info.crc32c) == (9, CRC32C_OF_123456789)


def test_several_buffers_become_one_object(bucket: Bucket) -> None:
    big = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"tail"
    parts = [b"head", memoryview(big), bytearray(b""), memoryview(bytearray(b"end"))]
    info = bucket.write("x", iter(parts))
    assert bucket.read("x")[0] == b"head" + big + b"end"
    assert info.crc32c == crc32c(b"head" + big + b"end")
    assert info.size_bytes == len(big) + 7


def test_folders_are_told_without_what_is_in_them(bucket: Bucket) -> None:
    assert [*bucket.folders("")] == []
    for name in ("b/x/1", "b/x/2", "a b/y", "top", "b/file"):
        bucket.write(name, b"x")
    assert [*bucket.folders("")] == ["a b/", "b/"]
    assert [*bucket.folders("b/")] == ["b/x/"]
    assert [*bucket.folders("b/x/")] == [*bucket.folders("nowhere/")] == []
    bucket.delete("a b/y")
    assert [*bucket.folders("")] == ["b/"]


def test_an_empty_object_is_an_object(bucket: Bucket) -> None:
    assert bucket.write("empty", b"").size_bytes == 0
    assert bucket.read("empty")[0] == b""
    assert bucket.read_into("empty", memoryview(bytearray())).crc32c == 0


def test_read_into_fills_the_callers_buffer_and_refuses_another_size(bucket: Bucket) -> None:
    data = b"x" * (2 * CHUNK_BYTES + 5)
    bucket.write("x", data)
    buffer = bytearray(len(data))
    assert bucket.read_into("x", memoryview(buffer)).crc32c == crc32c(data)
    assert buffer == data
    with pytest.raises(ValueError, match="bytes, not 3"):
        bucket.read_into("x", memoryview(bytearray(3)))


def test_what_is_missing_is_said_to_be_missing(bucket: Bucket) -> None:
    assert bucket.stat("no/where") is None
    assert names(bucket) == []
    bucket.delete("no/where")
    bucket.delete("no/where", if_generation=5)
    with pytest.raises(NotFound):
        bucket.read("no/where")
    with pytest.raises(NotFound):
        bucket.read_into("no/where", memoryview(bytearray(1)))


def test_generations_grow_with_every_write_and_are_not_reused_after_a_delete(bucket: Bucket) -> None:
    seen = []
    for _ in range(5):
        seen.append(bucket.write("x", b"same").generation)
    bucket.delete("x")
    seen.append(bucket.write("x", b"same").generation)
    assert seen == sorted(set(seen))
    stat = bucket.stat("x")
    assert stat is not None
    assert stat.generation == seen[-1] > 0


def test_generation_zero_creates_and_never_overwrites(bucket: Bucket) -> None:
    bucket.write("x", b"first", if_generation=0)
    with pytest.raises(PreconditionFailed):
        bucket.write("x", b"second", if_generation=0)
    assert bucket.read("x")[0] == b"first"


def test_a_write_on_an_old_generation_changes_nothing(bucket: Bucket) -> None:
    old = bucket.write("x", b"1").generation
    new = bucket.write("x", b"2", if_generation=old).generation
    for stale in (old, new + 1):
        with pytest.raises(PreconditionFailed):
            bucket.write("x", b"3", if_generation=stale)
        with pytest.raises(PreconditionFailed):
            bucket.delete("x", if_generation=stale)
    with pytest.raises(PreconditionFailed):
        bucket.write("missing", b"3", if_generation=old)
    data, info = bucket.read("x")
    assert (data, info.generation) == (b"2", new)
    bucket.delete("x", if_generation=new)
    assert bucket.stat("x") is None


def test_a_listing_holds_what_starts_with_the_prefix_in_order(bucket: Bucket) -> None:
    for name in ("b/2", "a.b", "a/b", "a/c/d", "ab", "b/10"):
        bucket.write(name, b"12")
    assert names(bucket) == ["a.b", "a/b", "a/c/d", "ab", "b/10", "b/2"]
    assert names(bucket, "a/") == ["a/b", "a/c/d"]
    assert names(bucket, "b/1") == ["b/10"]
    assert names(bucket, "a") == ["a.b", "a/b", "a/c/d", "ab"]
    assert {info.size_bytes for info in bucket.list("")} == {2}


def test_a_failing_source_leaves_the_old_object(bucket: Bucket) -> None:
    def source() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    bucket.write("x", b"old")
    with pytest.raises(RuntimeError):
        bucket.write("x", source())
    assert bucket.read("x")[0] == b"old"
    assert names(bucket) == ["x"]


@pytest.mark.parametrize("name", ["", "/abs", "a//b", "../out", "a/../../out", ".hidden", "a/.b", "a/"])
def test_names_that_lead_elsewhere_are_refused(bucket: Bucket, name: str) -> None:
    with pytest.raises(ValueError, match="not an object name"):
        bucket.write(name, b"")


def _increment(opener: Opener, times: int) -> None:
    bucket = opener()
    for _ in range(times):
        while True:
            try:
                data, info = bucket.read("counter")
                bucket.write("counter", str(int(data) + 1).encode(), if_generation=info.generation)
            except PreconditionFailed:
                continue
            break


def test_no_increment_is_lost_between_processes(opener: Opener, bucket: Bucket) -> None:
    bucket.write("counter", b"0")
    fork = multiprocessing.get_context("fork")
    crowd = [fork.Process(target=_increment, args=(opener, 15)) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
        assert process.exitcode == 0
    assert bucket.read("counter")[0] == b"60"


def test_exactly_one_of_many_threads_creates_an_object(bucket: Bucket) -> None:
    barrier, won = threading.Barrier(8), []

    def create(number: int) -> None:
        barrier.wait(10)
        try:
            bucket.write("one", str(number).encode(), if_generation=0)
        except PreconditionFailed:
            return
        won.append(str(number).encode())

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [bucket.read("one")[0]] == won


def test_readers_see_the_old_object_or_the_new_one_and_nothing_between(bucket: Bucket) -> None:
    size_bytes = 3 * CHUNK_BYTES
    bucket.write("x", b"0" * size_bytes)
    done = threading.Event()

    def rewrite() -> None:
        for number in range(1, 10):
            bucket.write("x", str(number).encode() * size_bytes)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    generation = 0
    while not done.is_set():
        data, info = bucket.read("x")
        assert data == data[:1] * size_bytes
        assert info.generation >= generation
        generation = info.generation
    writer.join()


def test_a_large_object_comes_back_as_it_was(bucket: Bucket) -> None:
    """Larger than what Cloud Storage is sent in one request: in parts, which are gone afterwards."""
    piece = memoryview(os.urandom(1 << 20))
    written = bucket.write("checkpoints/x/state", [piece[n:] for n in range(40)], if_generation=0)
    expected = b"".join(piece[n:] for n in range(40))
    assert (written.size_bytes, written.crc32c) == (len(expected), crc32c(expected))
    assert names(bucket) == ["checkpoints/x/state"]
    buffer = bytearray(len(expected))
    read = bucket.read_into("checkpoints/x/state", memoryview(buffer))
    assert buffer == expected
    assert (read.generation, read.crc32c) == (written.generation, written.crc32c)
    with pytest.raises(PreconditionFailed):
        bucket.write("checkpoints/x/state", [piece] * 40, if_generation=0)
    assert names(bucket) == ["checkpoints/x/state"]


def test_an_unknown_kind_of_uri_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="is not the URI of a run") as caught:
        open_bucket("s3://bucket/run")
    assert "file:///" in caught.value.fix
