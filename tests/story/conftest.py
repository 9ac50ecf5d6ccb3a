"""What the stories share: a model of 50k parameters, a recipe of 6 steps, and what an untouched run of it ends with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attempts import ForkServer, Run, logged, weights_sha256
from cloud_runs import VmCloud, VmRun, vm_cloud
from workplace import make_workplace

from infra.localcloud.storage.process import BUCKET, StorageProcess, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer.start(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: recipe, data and model."""
    folder = tmp_path_factory.mktemp("user")
    make_workplace(folder)
    return folder


@pytest.fixture(scope="session")
def untouched(server: ForkServer, workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that nobody touched; made on this machine, in this test run."""
    run = Run(server, workplace, tmp_path_factory.mktemp("reference"))
    attempt = run.start()
    assert attempt.wait() == 0, attempt.err
    changes = [row["grad_norm"] for row in logged(run) if "grad_norm" in row]
    assert len(changes) == 6
    assert all(change > 0 for change in changes), "every step must change the weights, or nothing is compared"
    return run


@pytest.fixture(scope="session")
def reference(untouched: Run) -> str:
    """sha256 of the adapter that the untouched run ends with."""
    return weights_sha256(untouched)


@pytest.fixture
def run(server: ForkServer, workplace: Path, tmp_path: Path) -> Run:
    return Run(server, workplace, tmp_path)


@pytest.fixture(scope="session")
def storage_server() -> Iterator[StorageProcess]:
    with serve() as server:
        yield server


@pytest.fixture
def storage(storage_server: StorageProcess, monkeypatch: pytest.MonkeyPatch) -> StorageProcess:
    """Cloud Storage on loopback, for this test's process and every attempt that it starts."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_server.url)
    storage_server.clear()
    return storage_server


@pytest.fixture
def cloud_run(server: ForkServer, workplace: Path, tmp_path: Path, storage: StorageProcess) -> Run:
    """A run in Cloud Storage, whose checkpoints need not keep under a share of a machine's price."""
    uri = f"gs://{BUCKET}/runs/{tmp_path.name}"
    return Run(server, workplace, tmp_path, ["attempt.machine_usd_per_hour=1000"], cloud_uri=uri)


@pytest.fixture(scope="module")
def vms(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmCloud]:
    """A local cloud for this module's stories, which every client of this process talks to."""
    with vm_cloud(tmp_path_factory.mktemp("cloud"), workplace) as cloud, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", cloud.running.storage_url)
        for name in ("GCE_METADATA_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):  # anonymous: the laptop's user
            patch.delenv(name, raising=False)
        yield cloud


@pytest.fixture
def vm_run(vms: VmCloud, request: pytest.FixtureRequest) -> Iterator[VmRun]:
    """A run that no other story has. What is armed in the cloud ends with it."""
    test = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.removeprefix("test_"))
    run = vms.run(test[-40:].strip("-"))
    yield run
    run.end()
    vms.order("clear")
