"""Connections to Cloud Storage: where it is, who asks, and answers that are streamed.

google-cloud-storage gets the same credentials and, by requests, the same proxies and certificates. What carries an
object's bytes goes past requests, which takes half a millisecond of the processor for each.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import google.auth
import requests
import urllib3
from google.auth.compute_engine import Credentials as MachineCredentials
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession, Request

from job.errors import UsageError

SERVICE = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
CONNECTIONS = 32
"""That are kept for the next request."""
Body = bytes | Iterable[bytes | memoryview]
"""Gone through again when the service wants another token."""


class Session:
    """Connections for one bucket, made as they are needed. Safe to use from several threads."""

    def __init__(self, address: str, *, emulator: bool, stall_s: float) -> None:
        self.credentials = find_credentials(emulator=emulator)
        email = getattr(self.credentials, "service_account_email", "")
        self.account = f" ({email})" if email and email != "default" else ""
        """For the words of an error."""
        self.requests = AuthorizedSession(self.credentials)
        # Tries are counted in one place, which is not this one.
        adapter = requests.adapters.HTTPAdapter(max_retries=0, pool_maxsize=CONNECTIONS)
        self.requests.mount("https://", adapter)
        self.requests.mount("http://", adapter)
        self.requests.trust_env = not emulator  # a proxy is not the way to one's own machine
        self._address = address
        self._timeout = urllib3.Timeout(connect=stall_s, read=stall_s)  # while sending, and while receiving
        self._authorize = partial(Request(), timeout=stall_s)
        found = self.requests.merge_environment_settings(address, {}, True, None, None)
        self._pool = adapter.get_connection_with_tls_context(
            requests.Request("GET", address).prepare(), found["verify"], found["proxies"], found["cert"]
        )

    @contextlib.contextmanager
    def answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body | None = None
    ) -> Iterator[Any]:
        """The answer to one request, whatever its status; its body is read by the caller."""
        answer = self._send(method, path, query, headers, body)
        if answer.status == 401:  # the token has expired on the way
            answer.close()
            self.credentials.refresh(self._authorize)
            answer = self._send(method, path, query, headers, body)
        try:
            yield answer
        finally:
            answer.close()  # one that was read to its end has given its connection back before

    def _send(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body | None
    ) -> Any:
        signed = dict(headers)
        self.credentials.before_request(self._authorize, method, self._address + path, signed)
        return self._pool.urlopen(
            method,
            f"{urlsplit(self._address).path}{path}?{urlencode(query)}",
            body=body,
            headers=signed,
            timeout=self._timeout,
            retries=False,
            redirect=False,
            preload_content=False,
            assert_same_host=False,
        )


def endpoint(emulator_host: str) -> tuple[str, bool]:
    """(where the service is, whether it is an emulator), by the value of STORAGE_EMULATOR_HOST; pure."""
    if not emulator_host:
        return SERVICE, False
    address = emulator_host if "://" in emulator_host else f"http://{emulator_host}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"STORAGE_EMULATOR_HOST={emulator_host!r} is not an address.",
            fix="Set it to something like http://127.0.0.1:9023, or unset it to use Cloud Storage.",
        )
    return address.rstrip("/"), True


def find_credentials(*, emulator: bool) -> Any:
    """Whose rights are used. Raises DefaultCredentialsError.

    For an emulator only those that the environment names: a person's own login is not shown to whatever listens there.
    """
    if emulator and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        if os.environ.get("GCE_METADATA_HOST"):
            return MachineCredentials(scopes=[SCOPE])
        return AnonymousCredentials()
    return google.auth.default(scopes=[SCOPE])[0]
