"""The real Python client sends objects in each of its ways, and reads back what it sent."""

import io
import random
from pathlib import Path

import httpx
import pytest
from google.api_core.exceptions import BadRequest, NotFound, PreconditionFailed
from google.cloud.storage import Bucket, Client, transfer_manager

from infra.localcloud.storage import StorageServer

MIB = 1024 * 1024


def some_bytes(size_bytes: int) -> bytes:
    """Always the same, unlike their neighbours."""
    return random.Random(size_bytes).randbytes(size_bytes)


@pytest.mark.parametrize("size_bytes", [0, 1, 3, 100_000, 262_144, 262_145, 5 * MIB])
def test_an_object_in_one_request_is_read_back(bucket: Bucket, size_bytes: int) -> None:
    data = some_bytes(size_bytes)
    bucket.blob("a/b").upload_from_string(data)
    assert bucket.blob("a/b").download_as_bytes() == data


@pytest.mark.parametrize("size_bytes", [0, 1, 262_144, MIB, MIB + 1, 3 * MIB - 1])
def test_an_object_in_chunks_is_read_back(bucket: Bucket, server: StorageServer, size_bytes: int) -> None:
    data = some_bytes(size_bytes)
    blob = bucket.blob("chunks", chunk_size=MIB // 2)
    blob.upload_from_file(io.BytesIO(data))
    assert bucket.blob("chunks").download_as_bytes() == data
    assert blob.size == size_bytes
    totals = server.accounting.totals()
    assert totals["operations"]["resumable_start"] == 1
    assert totals["classes"]["A"] == 1  # however many chunks there were


def test_a_stream_of_unknown_length_is_read_back(bucket: Bucket) -> None:
    data = some_bytes(2 * MIB + 17)
    with bucket.blob("stream").open("wb", chunk_size=MIB) as stream:
        for at in range(0, len(data), 100_000):
            stream.write(data[at : at + 100_000])
    assert bucket.blob("stream").download_as_bytes() == data


@pytest.mark.parametrize("checksum", ["crc32c", "md5", None])
@pytest.mark.parametrize("chunk_size", [None, MIB])
def test_every_checksum_of_the_client_fits(bucket: Bucket, checksum: str | None, chunk_size: int | None) -> None:
    data = some_bytes(9 * MIB)
    blob = bucket.blob("sums", chunk_size=chunk_size)
    blob.upload_from_file(io.BytesIO(data), checksum=checksum)
    assert bucket.blob("sums").download_as_bytes(checksum=checksum) == data


def test_wrong_sums_are_refused_and_nothing_is_stored(bucket: Bucket) -> None:
    blob = bucket.blob("wrong")
    blob.crc32c = "AAAAAA=="
    with pytest.raises(BadRequest, match="doesn't match calculated CRC32C"):
        blob.upload_from_string(b"something", checksum=None)
    blob = bucket.blob("wrong")
    blob.md5_hash = "1B2M2Y8AsgTpgAmY7PhCfg=="
    with pytest.raises(BadRequest, match="doesn't match calculated MD5"):
        blob.upload_from_string(b"something", checksum=None)
    assert not bucket.blob("wrong").exists()


def test_an_object_in_parts_is_read_back(bucket: Bucket, server: StorageServer, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(some_bytes(17 * MIB + 5))
    blob = bucket.blob("parts")
    transfer_manager.upload_chunks_concurrently(
        str(source), blob, chunk_size=5 * MIB, worker_type=transfer_manager.THREAD, max_workers=4
    )
    transfer_manager.download_chunks_concurrently(
        blob, str(target), chunk_size=5 * MIB, worker_type=transfer_manager.THREAD, max_workers=4
    )
    assert target.read_bytes() == source.read_bytes()
    assert bucket.blob("parts").download_as_bytes() == source.read_bytes()  # the whole sum is right, too
    assert server.accounting.totals()["operations"]["parts_put"] == 4


def test_many_files_go_both_ways(client: Client, bucket: Bucket, tmp_path: Path) -> None:
    names = [f"file{number}" for number in range(12)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(some_bytes(number * 1000))
    results = transfer_manager.upload_many_from_filenames(
        bucket, names, source_directory=str(tmp_path), blob_name_prefix="p/", worker_type=transfer_manager.THREAD
    )
    assert results == [None] * 12
    again = transfer_manager.upload_many_from_filenames(
        bucket,
        names,
        source_directory=str(tmp_path),
        blob_name_prefix="p/",
        skip_if_exists=True,
        raise_exception=False,
        worker_type=transfer_manager.THREAD,
    )
    assert [type(result) for result in again] == [PreconditionFailed] * 12
    down = tmp_path / "down"
    transfer_manager.download_many_to_path(
        bucket, names, destination_directory=str(down), blob_name_prefix="p/", worker_type=transfer_manager.THREAD
    )
    assert [(down / name).read_bytes() for name in names] == [(tmp_path / name).read_bytes() for name in names]


def test_a_multipart_body_as_gcloud_writes_it(bucket: Bucket, server: StorageServer) -> None:
    first = b'--==m==\nContent-Type: application/json\n\n{"name": "name"}\n'
    body = first + b"--==m==\nContent-Type: text/x\n\nda\r\nta\n--==m==--\n"
    headers = {"Content-Type": "multipart/related; boundary='==m=='"}
    url = f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=multipart"
    assert httpx.post(url, content=body, headers=headers).status_code == 200
    blob = bucket.get_blob("name")
    assert (blob.download_as_bytes(), blob.content_type) == (b"da\r\nta", "text/x")
    for broken in (body[:-8], body.replace(b"{", b""), b"", b"--==m==\n"):
        answer = httpx.post(url, content=broken, headers=headers)
        assert answer.status_code == 400
    assert httpx.post(url, content=body, headers={"Content-Type": "multipart/related"}).status_code == 400
    assert len(list(bucket.list_blobs())) == 1


def test_a_bucket_that_is_not_there_answers_404(client: Client) -> None:
    missing = client.bucket("no-such-bucket")
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        missing.blob("a").upload_from_string(b"")
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        missing.blob("a", chunk_size=MIB).upload_from_file(io.BytesIO(b"x" * MIB))
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        list(missing.list_blobs())
    with pytest.raises(NotFound):
        missing.blob("a").download_as_bytes()
