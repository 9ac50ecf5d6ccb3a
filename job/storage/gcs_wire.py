"""Single requests to Cloud Storage, counted, with deadlines, and with bodies that are never copied whole.

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
from urllib.parse import quote

import google_crc32c
from google.cloud import storage

from job.storage.chunks import CHUNK_BYTES, chunks
from job.storage.gcs_errors import Asked, Verb, explained, for_status
from job.storage.gcs_session import Session, endpoint
from job.storage.usage import Class, Meter

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
        self._session: Session | None = None
        self._endpoint, self._emulator = endpoint(os.environ.get("STORAGE_EMULATOR_HOST", ""))

    def uri(self, name: str) -> str:
        """An object's, for a person."""
        return f"gs://{self.bucket}/{name}"

    @contextlib.contextmanager
    def asking(self, verb: Verb, name: str) -> Iterator[Any]:
        """google-cloud-storage's bucket, for one request, which is counted; its failure becomes one of our errors."""
        self.meter.count(CLASSES[verb])
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

    def folders(self, prefix: str, token: str | None) -> tuple[list[str], str | None]:
        """The folders of one page below a prefix, sorted, and the token of the next page."""
        with self.asking("list", prefix):
            found = self._client.list_blobs(
                self.bucket,
                prefix=prefix,
                delimiter="/",
                page_token=token,
                fields="prefixes,nextPageToken",
                retry=None,
                timeout=self.timeout,
            )
            next(found.pages, None)
            return sorted(found.prefixes), found.next_page_token

    @contextlib.contextmanager
    def media(self, name: str, *, generation: int | None = None, first: int = 0, end: int = 0) -> Iterator[Any]:
        """The response that carries an object's bytes; of bytes `first` to `end` when `end` is given."""
        path = f"/download/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"
        parameters = {"alt": "media"} | ({} if generation is None else {"generation": str(generation)})
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={first}-{end - 1}"} if end else {})
        received_bytes = 0
        try:
            with (
                self._explained("read", name) as session,
                session.answer("GET", path, parameters, headers) as response,
            ):
                if response.status not in (200, 206):
                    raise for_status(response.status, response.data.decode(errors="replace"), self._asked("read", name))
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
        headers = {
            "Content-Type": f'multipart/related; boundary="{body.boundary}"',
            "Content-Length": str(len(body)),
        }
        path = f"/upload/storage/v1/b/{self.bucket}/o"
        sent = b"".join(body) if len(body) <= JOINED_BYTES else body
        self.meter.count(CLASSES["write"], sent_bytes=len(body))
        with (
            self._explained("write", name) as session,
            session.answer("POST", path, parameters, headers, sent) as response,
        ):
            if response.status != 200:
                raise for_status(response.status, response.data.decode(errors="replace"), self._asked("write", name))
            said: Mapping[str, Any] = json.loads(response.data)
            return said

    @contextlib.contextmanager
    def _explained(self, verb: Verb, name: str) -> Iterator[Session]:
        with explained(self._asked(verb, name)):
            yield self._connect()
            self._trusted = True

    def _asked(self, verb: Verb, name: str) -> Asked:
        account = "" if self._session is None else self._session.account
        return Asked(verb, self.bucket, name, account, self._trusted)

    def _connect(self) -> Session:
        with self._lock:
            if self._session is None:
                session = Session(self._endpoint, emulator=self._emulator, stall_s=self.timeout[0])
                # Else it asks for the bucket behind our back, to name it in traces: a right that a VM need not have.
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                # Credentials must be given: under STORAGE_EMULATOR_HOST the client would silently ask without any.
                self._client = storage.Client(
                    project=None,
                    credentials=session.credentials,
                    client_options={"api_endpoint": self._endpoint},
                    _http=session.requests,
                )
                self._session = session
            return self._session


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


def fill(response: Any, view: memoryview) -> int:
    """Streams a response's body into the whole of `view`; returns its checksum. Raises when it ends early."""
    crc = at = 0
    while at < len(view):
        data = response.read(min(CHUNK_BYTES, len(view) - at), decode_content=False)
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
