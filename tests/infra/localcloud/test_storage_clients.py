"""The other clients that people point at a bucket, gcloud storage and gcsfs, work with the server as they are."""

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import gcsfs
import httpx
import pytest
from google.cloud.storage import Bucket

from infra.localcloud.storage import StorageServer

MIB = 1024 * 1024
Gcloud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gcloud(server: StorageServer, tmp_path: Path) -> Gcloud:
    """`gcloud storage ...`, sent to the server; it never asks, and is killed when it hangs."""
    environment = os.environ | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{server.url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_PROJECT": "test-project",
    }

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["timeout", "-k", "5", "120", "gcloud", "storage", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small file, and one that is larger than what goes in one request."""
    made = tmp_path / "folder"
    (made / "sub").mkdir(parents=True)
    (made / "small").write_bytes(b"abc")
    (made / "sub" / "large").write_bytes(random.Random(1).randbytes(9 * MIB + 1))
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.needs_system("gcloud")
def test_gcloud_copies_both_ways_and_lists(gcloud: Gcloud, folder: Path, tmp_path: Path, server: StorageServer) -> None:
    assert gcloud("buckets", "create", "gs://made-here", "--location=us-east1").returncode == 0
    up = gcloud("cp", "-r", folder, "gs://made-here/")
    assert up.returncode == 0, up.stderr
    (tmp_path / "down").mkdir()
    down = gcloud("cp", "-r", "gs://made-here/folder", tmp_path / "down")
    assert down.returncode == 0, down.stderr
    assert contents(tmp_path / "down" / "folder") == contents(folder)
    listed = gcloud("ls", "-l", "-r", "gs://made-here").stdout
    assert "         3  " in listed
    assert f"{9 * MIB + 1}" in listed
    assert "gs://made-here/folder/sub/large" in listed
    operations = server.accounting.totals()["operations"]
    assert (operations["insert"], operations["resumable_start"]) == (1, 1)


@pytest.mark.needs_system("gcloud")
def test_gcloud_keeps_to_a_condition(gcloud: Gcloud, folder: Path, bucket: Bucket) -> None:
    for file in ("small", "sub/large"):
        assert gcloud("cp", "--if-generation-match=0", folder / file, "gs://bucket/once").returncode == 0
        refused = gcloud("cp", "--if-generation-match=0", folder / file, "gs://bucket/once")
        assert refused.returncode != 0
        assert "412" in refused.stderr
        assert bucket.blob("once").download_as_bytes() == (folder / file).read_bytes()
        bucket.blob("once").delete()


@pytest.mark.needs_system("gcloud")
def test_gcloud_rsync_copies_what_is_new_and_only_that(
    gcloud: Gcloud, folder: Path, tmp_path: Path, bucket: Bucket, server: StorageServer
) -> None:
    assert gcloud("rsync", "-r", folder, "gs://bucket/x").returncode == 0
    assert {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs()} == {
        f"x/{name}": data for name, data in contents(folder).items()
    }
    server.accounting.reset()
    (folder / "sub" / "new").write_bytes(b"new")
    assert gcloud("rsync", "-r", folder, "gs://bucket/x").returncode == 0
    assert [entry["object"] for entry in server.accounting.last() if entry["operation"] == "insert"] == ["x/sub/new"]
    assert "resumable_start" not in server.accounting.totals()["operations"]
    (tmp_path / "back").mkdir()
    assert gcloud("rsync", "-r", "gs://bucket/x", tmp_path / "back").returncode == 0
    assert contents(tmp_path / "back") == contents(folder)
    removed = gcloud("rm", "-r", "gs://bucket")
    assert removed.returncode == 0, removed.stderr
    assert httpx.get(f"{server.url}/storage/v1/b/bucket").status_code == 404


@pytest.fixture
def files(server: StorageServer) -> gcsfs.GCSFileSystem:
    return gcsfs.GCSFileSystem(
        project="test-project",
        token="anon",
        endpoint_url=server.url,
        skip_instance_cache=True,
        use_listings_cache=False,
    )


def test_gcsfs_reads_what_it_wrote(files: gcsfs.GCSFileSystem, bucket: Bucket) -> None:
    data = random.Random(2).randbytes(12 * MIB + 5)
    with files.open("bucket/a/large", "wb", block_size=5 * MIB) as stream:
        stream.write(data)
    with files.open("bucket/a/small", "wb") as stream:
        stream.write(b"small")
    assert bucket.blob("a/large").download_as_bytes() == data
    assert files.cat("bucket/a/small") == b"small"
    with files.open("bucket/a/large", "rb") as stream:
        stream.seek(7_000_000)
        assert stream.read(1000) == data[7_000_000:7_001_000]


def test_gcsfs_lists_copies_and_removes(files: gcsfs.GCSFileSystem, folder: Path, tmp_path: Path) -> None:
    files.put(f"{folder}/", "bucket/x/", recursive=True)
    assert files.find("bucket") == ["bucket/x/small", "bucket/x/sub/large"]
    assert files.ls("bucket/x", detail=False) == ["bucket/x/small", "bucket/x/sub"]
    assert files.info("bucket/x/small")["size"] == 3
    files.get("bucket/x/", f"{tmp_path}/back/", recursive=True)
    assert contents(tmp_path / "back") == contents(folder)
    files.cp("bucket/x/small", "bucket/y/copy")
    files.mv("bucket/y/copy", "bucket/z")
    assert files.find("bucket", prefix="z") == ["bucket/z"]
    files.rm("bucket/x", recursive=True)
    assert files.find("bucket") == ["bucket/z"]
    assert not files.exists("bucket/x")
    with pytest.raises(FileNotFoundError):
        files.cat("bucket/x/small")
