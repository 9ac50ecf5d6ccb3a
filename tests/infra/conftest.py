"""What the tests of commands share: a Cloud Storage on loopback as gs://, a cloud in memory, a run of VMs in it."""

from collections.abc import Iterator

import pytest
from fake_cloud import FakeCloud

import infra.cloud.access
from infra.localcloud.storage.process import BUCKET, StorageProcess, serve
from job.storage import Bucket, open_bucket


@pytest.fixture(scope="session")
def storage() -> Iterator[StorageProcess]:
    with serve() as server:
        yield server


@pytest.fixture
def run_bucket(storage: StorageProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty run of this test's own in gs://."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    storage.clear()
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:80]
    return open_bucket(f"gs://{BUCKET}/{name}/runs/mine")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    """The cloud that every command asks."""
    fake = FakeCloud()
    monkeypatch.setattr(infra.cloud.access, "open_cloud", lambda project: fake)
    return fake
