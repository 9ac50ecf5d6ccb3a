"""A server on loopback for every test, and the real client of it."""

from collections.abc import Iterator

import pytest
from google.cloud.storage import Bucket, Client
from storage_client import client_of

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
