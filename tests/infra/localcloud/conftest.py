"""A server on loopback for every test, and the real client of it."""

from collections.abc import Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Bucket, Client

from infra.localcloud.storage import StorageServer, start


def client_of(server: StorageServer) -> Client:
    """The real client, sent to the server."""
    return Client(
        project="test-project", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url}
    )


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
