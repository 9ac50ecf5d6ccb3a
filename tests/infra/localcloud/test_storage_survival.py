"""What was answered for is there after a SIGKILL, what was not is there as a whole or not at all."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import google_crc32c
import httpx
import pytest
import requests
from google.cloud.storage import Bucket, transfer_manager
from storage_client import client_of

from infra.localcloud.folder import MARK
from infra.localcloud.storage import start
from job.errors import UsageError

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024


@contextmanager
def running(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(process, URL) of a server in a process of its own; killed at the end."""
    command = [sys.executable, "-m", "infra.localcloud.storage", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            yield process, url
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_objects_and_buckets_outlive_the_server(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with running("--root", root, "--bucket", "bucket") as (process, url):
        bucket = client_of(url).bucket("bucket")
        first = bucket.blob("a/b")
        first.metadata = {"key": "value"}
        first.upload_from_string(b"first", content_type="text/plain")
        bucket.blob("gone").upload_from_string(b"")
        bucket.blob("gone").delete()
        bucket.blob("joined").compose([first, first])
        client_of(url).create_bucket("emptied")
        client_of(url).bucket("emptied").delete()
        bucket.blob("a/b").upload_from_string(b"second")
        bucket.get_blob("a/b").patch()
        known = [(blob.name, blob.generation, blob.metageneration, blob.crc32c) for blob in bucket.list_blobs()]
        kill(process)
    for _ in range(2):  # what a restart has written is read back, too
        with running("--root", root) as (process, url):
            bucket = client_of(url).bucket("bucket")
            again = [(blob.name, blob.generation, blob.metageneration, blob.crc32c) for blob in bucket.list_blobs()]
            assert again == known
            assert bucket.blob("a/b").download_as_bytes() == b"second"
            assert bucket.blob("joined").download_as_bytes() == b"firstfirst"
            assert [found.name for found in client_of(url).list_buckets()] == ["bucket"]
            kill(process)
    with running("--root", root) as (_, url):
        fresh = client_of(url).bucket("bucket").blob("fresh")
        fresh.upload_from_string(b"")
        assert fresh.generation > max(generation for _, generation, _, _ in known)


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    root, data = tmp_path / "root", random.Random(0).randbytes(3 * MIB + 5)
    with running("--root", root, "--bucket", "bucket") as (process, url):
        begin = f"{url}/upload/storage/v1/b/bucket/o?uploadType=resumable&name=late"
        session = httpx.post(begin, headers={"X-Upload-Content-Type": "text/x-late"}).headers["location"]
        answer = httpx.put(session, content=data[:MIB], headers={"Content-Range": f"bytes 0-{MIB - 1}/*"})
        assert (answer.status_code, answer.headers["range"]) == (308, f"bytes=0-{MIB - 1}")
        kill(process)
    with running("--root", root) as (_, url):
        session = session.replace(session.partition("/upload")[0], url)
        asked = httpx.put(session, headers={"Content-Range": "bytes */*"})
        assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{MIB - 1}")
        last = {"Content-Range": f"bytes {MIB}-{len(data) - 1}/{len(data)}"}
        assert httpx.put(session, content=data[MIB:], headers=last).status_code == 200
        blob = client_of(url).bucket("bucket").get_blob("late")
        assert blob.download_as_bytes() == data
        assert blob.content_type == "text/x-late"


def test_an_upload_that_is_finished_stays_so_after_the_server_was_killed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with running("--root", root, "--bucket", "bucket") as (process, url):
        session = httpx.post(f"{url}/upload/storage/v1/b/bucket/o?uploadType=resumable&name=x").headers["location"]
        assert httpx.put(session, content=b"done").status_code == 200
        kill(process)
    with running("--root", root) as (_, url):
        session = session.replace(session.partition("/upload")[0], url)
        assert httpx.put(session, content=b"done, and then some").status_code == 404
        assert client_of(url).bucket("bucket").blob("x").download_as_bytes() == b"done"


def test_parts_of_an_upload_are_there_after_the_server_was_killed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with running("--root", root, "--bucket", "bucket") as (process, url):
        text = httpx.post(f"{url}/bucket/name?uploads").text
        id = text.partition("<UploadId>")[2].partition("</UploadId>")[0]
        etag = httpx.put(f"{url}/bucket/name?partNumber=1&uploadId={id}", content=b"part").headers["etag"]
        kill(process)
    with running("--root", root) as (_, url):
        document = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
        answer = httpx.post(f"{url}/bucket/name?uploadId={id}", content=f"{document}</CompleteMultipartUpload>")
        assert answer.status_code == 200
        assert client_of(url).bucket("bucket").blob("name").download_as_bytes() == b"part"


def writing(bucket: Bucket, names: list[str], acknowledged: dict[str, int], seed: int) -> None:
    """Overwrites and deletes for as long as the server answers; notes the newest generation that it answered with."""
    choices = random.Random(seed)
    with suppress(requests.RequestException):
        while True:
            name = choices.choice(names)
            data = choices.randbytes(choices.choice([10, 1000, 700_000]))
            blob = bucket.blob(name, chunk_size=choices.choice([None, MIB // 4]))
            blob.metadata = {"crc32c": str(google_crc32c.value(data))}
            blob.upload_from_string(data, retry=None)
            acknowledged[name] = blob.generation


@pytest.mark.parametrize("seed", range(3))
def test_killed_in_the_middle_of_many_writes_nothing_is_lost_or_torn(tmp_path: Path, seed: int) -> None:
    root, acknowledged = tmp_path / "root", dict[str, int]()
    names = [[f"writer{writer}/{number}" for number in range(4)] for writer in range(4)]
    with running("--root", root, "--bucket", "bucket") as (process, url):
        threads = [
            threading.Thread(target=writing, args=(client_of(url).bucket("bucket"), own, acknowledged, seed * 10 + at))
            for at, own in enumerate(names)
        ]
        for thread in threads:
            thread.start()
        enough = 40 + random.Random(seed).randrange(40)
        while httpx.get(f"{url}/_faults").json()["totals"]["operations"].get("insert", 0) < enough:
            time.sleep(0.001)
        kill(process)
        for thread in threads:
            thread.join()
    with running("--root", root) as (_, url):
        found = {blob.name: blob for blob in client_of(url).bucket("bucket").list_blobs()}
        assert acknowledged
        assert {name for name in acknowledged if found[name].generation < acknowledged[name]} == set()
        for blob in found.values():
            data = blob.download_as_bytes()  # and the client compares the sum
            assert str(google_crc32c.value(data)) == blob.metadata["crc32c"]
    data_files = {path.name for path in (root / "data").iterdir()}
    with start(root) as server:
        assert {path.name for path in (root / "data").iterdir()} <= data_files
        assert len(list((root / "data").iterdir())) == len(list(server.store.files()))


def test_a_torn_last_line_of_the_journal_is_left_out(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        server.make_bucket("bucket")
        client_of(server).bucket("bucket").blob("x").upload_from_string(b"1")
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"op":"delete","bucket":"bucket","na')
    with start(tmp_path) as server:
        assert client_of(server).bucket("bucket").blob("x").download_as_bytes() == b"1"
    for line in (tmp_path / "journal.jsonl").read_text().splitlines():
        json.loads(line)


def test_without_a_root_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with start() as server:
        server.make_bucket("bucket")
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    with pytest.raises(UsageError, match="files that are not this server's"), start(tmp_path):
        pass
    assert (tmp_path / "data" / "precious").read_text() == "mine"
    assert not (tmp_path / MARK).exists()


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    with start(tmp_path), pytest.raises(UsageError, match="Another server uses"), start(tmp_path):
        pass
    with start(tmp_path):
        pass


def test_discarding_counts_and_sums_what_it_does_not_keep(tmp_path: Path) -> None:
    root, file = tmp_path / "root", tmp_path / "file"
    data = random.Random(0).randbytes(12 * MIB)
    file.write_bytes(data)
    with running("--root", root, "--bucket", "bucket", "--discard") as (_, url):
        bucket = client_of(url).bucket("bucket")
        bucket.blob("large").upload_from_filename(file, checksum="crc32c")
        bucket.blob("chunks", chunk_size=MIB).upload_from_filename(file, checksum="crc32c")
        transfer_manager.upload_chunks_concurrently(
            str(file), bucket.blob("parts"), chunk_size=5 * MIB, worker_type=transfer_manager.THREAD
        )
        bucket.blob("head.json").upload_from_string(b"{}")
        assert bucket.blob("head.json").download_as_bytes() == b"{}"
        for name in ("large", "chunks", "parts"):
            blob = bucket.get_blob(name)
            assert (blob.size, blob.crc32c) == (len(data), bucket.get_blob("large").crc32c)
            with pytest.raises(Exception, match="410"):
                blob.download_as_bytes()
        assert sum(path.stat().st_size for path in (root / "data").iterdir()) < 1000
