"""The real client, sent to a server on loopback."""

from collections.abc import Callable

from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud.storage import Client

from infra.localcloud.storage import StorageServer


def client_of(server: StorageServer | str, credentials: Credentials | None = None) -> Client:
    """The real client; without credentials unless some are given."""
    url = server if isinstance(server, str) else server.url
    return Client(
        project="test-project",
        credentials=credentials or AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )


def clock_at(seconds: float) -> Callable[[], float]:
    """A clock that stands still."""
    return lambda: seconds
