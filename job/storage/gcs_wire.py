"""Single requests to Cloud Storage: who asks, where the service is, deadlines, and bodies that are never copied whole.

Nothing is tried twice in here; `job.storage.gcs` decides that.
"""

import base64
import contextlib
import json
import mimetypes
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import google.auth
import google_crc32c
import requests
from google.auth.compute_engine import Credentials as MachineCredentials
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage

from job.errors import UsageError
from job.storage.chunks import CHUNK_BYTES, chunks
from job.storage.gcs_errors import Asked, Verb, explained, for_status
from job.storage.usage import Class, Meter

SERVICE = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
CONNECTIONS = 32
JOINED_BYTES = 64 * 1024
"""Bodies up to here are sent by one system call instead of three."""
FIELDS = "name,generation,size,crc32c,updated"
CLASSES: Mapping[Verb, Class] = {"read": "b", "write": "a", "list": "a", "delete": "free"}


class Wire:
    """The way to one bucket. The connection is made, and credentials are looked for, with the first request.

    `stall_s`: how long a connection may stand still, in either direction, before the request fails.
    """

    def __init__(self, bucket: str, *, stall_s: float) -> None:
        self.bucket = bucket
        self.meter = Meter()
        self.timeout = (stall_s, stall_s)  # while connecting and sending, and while receiving
        self._trusted = False
        self._lock = threading.Lock()
        self._client: Any = None
        self._session: Any = None
        self._account = ""
        self._endpoint, self._emulator = endpoint(os.environ.get("STORAGE_EMULATOR_HOST", ""))

    def uri(self, name: str) -> str:
        """An object's, for a person."""
        return f"gs://{self.bucket}/{name}"

    @contextlib.contextmanager
    def asking(self, verb: Verb, name: str, *, sent_bytes: int = 0) -> Iterator[Any]:
        """google-cloud-storage's bucket, for one request, which is counted; its failure becomes one of our errors."""
        self.meter.count(CLASSES[verb], sent_bytes=sent_bytes)
        with self._explained(verb, name):
            yield self._client.bucket(self.bucket)

    def pages(self, prefix: str, token: str | None) -> tuple[list[Any], str | None]:
        """One page of blobs, and the token of the next."""
        with self.asking("list", prefix):
            found = self._client.list_blobs(
                self.bucket,
                prefix=prefix,
                page_token=token,
                fields=f"items({FIELDS}),nextPageToken",
                retry=None,
                timeout=self.timeout,
            )
            return list(next(found.pages, ())), found.next_page_token

    @contextlib.contextmanager
    def media(self, name: str, *, generation: int | None = None, first: int = 0, end: int = 0) -> Iterator[Any]:
        """The response that carries an object's bytes; of bytes `first` to `end` when `end` is given."""
        url = f"{self._endpoint}/download/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"
        parameters = {"alt": "media"} | ({} if generation is None else {"generation": str(generation)})
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={first}-{end - 1}"} if end else {})
        received_bytes = 0
        try:
            with (
                self._explained("read", name),
                self._session.request(
                    "GET", url, params=parameters, headers=headers, stream=True, timeout=self.timeout
                ) as response,
            ):
                if response.status_code not in (200, 206):
                    raise for_status(response.status_code, response.text, self._asked("read", name))
                received_bytes = int(response.headers.get("content-length", 0))
                yield response
        finally:
            self.meter.count(CLASSES["read"], received_bytes=received_bytes)

    def upload(
        self,
        name: str,
        views: Sequence[memoryview],
        *,
        crc: int,
        if_generation: int | None,
        metadata: Mapping[str, str],
    ) -> Mapping[str, Any]:
        """Sends an object in one request that the service refuses when the bytes are not those of `crc`.

        Returns what the service says of the object.
        """
        resource = {
            "name": name,
            "crc32c": encoded(crc),
            "metadata": metadata,
            "contentType": content_type(name),
        }
        body = _Body(json.dumps(resource).encode(), views)
        parameters = {"uploadType": "multipart", "fields": FIELDS}
        if if_generation is not None:
            parameters["ifGenerationMatch"] = str(if_generation)
        with (
            self.asking("write", name, sent_bytes=len(body)),
            self._session.request(
                "POST",
                f"{self._endpoint}/upload/storage/v1/b/{self.bucket}/o",
                params=parameters,
                data=b"".join(body) if len(body) <= JOINED_BYTES else body,
                headers={"Content-Type": f'multipart/related; boundary="{body.boundary}"'},
                timeout=self.timeout,
            ) as response,
        ):
            if response.status_code != 200:
                raise for_status(response.status_code, response.text, self._asked("write", name))
            said: Mapping[str, Any] = response.json()
            return said

    @contextlib.contextmanager
    def _explained(self, verb: Verb, name: str) -> Iterator[None]:
        with explained(self._asked(verb, name)):
            self._connect()
            yield
            self._trusted = True

    def _asked(self, verb: Verb, name: str) -> Asked:
        return Asked(verb, self.bucket, name, self._account, self._trusted)

    def _connect(self) -> None:
        with self._lock:
            if self._client is not None:
                return
            credentials = find_credentials(emulator=self._emulator)
            session = AuthorizedSession(credentials)
            # Tries are counted in one place, which is not this one.
            adapter = requests.adapters.HTTPAdapter(max_retries=0, pool_maxsize=CONNECTIONS)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            session.trust_env = not self._emulator  # a proxy is not the way to one's own machine
            self._session = session
            email = getattr(credentials, "service_account_email", "")
            self._account = f" ({email})" if email and email != "default" else ""
            # Else it asks for the bucket behind our back, to name it in traces: a right that a VM need not have.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            # Credentials must be given: with STORAGE_EMULATOR_HOST set the client would silently ask without any.
            self._client = storage.Client(
                project=None,
                credentials=credentials,
                client_options={"api_endpoint": self._endpoint},
                _http=session,
            )


class _Body:
    """A multipart/related body: what the object is, then its bytes, in small views of the caller's memory."""

    def __init__(self, resource: bytes, views: Sequence[memoryview]) -> None:
        self.boundary = secrets.token_hex(16)
        line = f"--{self.boundary}".encode()
        self._head = (
            line + b"\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n" + resource + b"\r\n"
            b"" + line + b"\r\ncontent-type: application/octet-stream\r\n\r\n"
        )
        self._tail = b"\r\n" + line + b"--"
        self._views = views

    def __len__(self) -> int:
        return len(self._head) + sum(len(view) for view in self._views) + len(self._tail)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._head
        yield from chunks(self._views)
        yield self._tail


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


def fill(response: Any, view: memoryview) -> int:
    """Streams a response's body into the whole of `view`; returns its checksum. Raises when it ends early."""
    crc = at = 0
    while at < len(view):
        data = response.raw.read(min(CHUNK_BYTES, len(view) - at), decode_content=False)
        if not data:
            raise ConnectionError(f"the body ended after {at} of {len(view)} bytes")
        view[at : at + len(data)] = data
        crc = google_crc32c.extend(crc, data)
        at += len(data)
    return crc


def encoded(crc: int) -> str:
    """A CRC-32C as the service writes it: base64 of four bytes, the highest first."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def decoded(crc: str | None) -> int | None:
    """The CRC-32C in the service's words."""
    return None if crc is None else int.from_bytes(base64.b64decode(crc), "big")


def content_type(name: str) -> str:
    """What a browser shall take the object for: a report opens as a page."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
