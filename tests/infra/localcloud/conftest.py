"""Servers on loopback for every test, and the real clients of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from compute_world import PROJECT, Cloud, FakeMachines, HandClock
from google.cloud.storage import Bucket, Client
from storage_client import client_of

from infra.localcloud.compute import start as start_compute
from infra.localcloud.storage import StorageServer, start


@pytest.fixture
def server() -> Iterator[StorageServer]:
    with start() as running:
        running.make_bucket("bucket", "us-central1")
        yield running


@pytest.fixture
def client(server: StorageServer) -> Client:
    return client_of(server)


@pytest.fixture
def bucket(client: Client) -> Bucket:
    return client.bucket("bucket")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A Compute Engine whose machines are not there and whose time passes by hand."""
    machines, clock = FakeMachines(), HandClock()
    with start_compute(tmp_path / "compute", machines, project=PROJECT, laptop_token="laptop", timers=clock) as server:
        yield Cloud(server, machines, clock)
