"""What the tests of buckets share: one Cloud Storage on loopback for all of them."""

from collections.abc import Iterator

import pytest

from infra.localcloud.storage.process import StorageProcess, serve


@pytest.fixture(scope="session")
def server() -> Iterator[StorageProcess]:
    with serve() as cloud:
        yield cloud


@pytest.fixture
def cloud(server: StorageProcess, monkeypatch: pytest.MonkeyPatch) -> StorageProcess:
    """The server, with no faults armed, as the one that gs:// means."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    server.clear()
    return server
