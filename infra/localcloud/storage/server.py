"""The HTTP server: one thread per connection, on loopback, answering only to its own name.

A browser on this machine is kept out by the checks of Host and Origin: a page that resolves its own name to 127.0.0.1
sends another Host, and every page sends its Origin with what may change something.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from infra.localcloud.storage.accounting import Accounting
from infra.localcloud.storage.dispatch import Dispatch
from infra.localcloud.storage.errors import ApiError
from infra.localcloud.storage.faults import Faults
from infra.localcloud.storage.folder import own_folder
from infra.localcloud.storage.messages import Body, ConnectionCut, Media, Request, Response
from infra.localcloud.storage.objects import Store
from infra.localcloud.storage.policy import Gate
from infra.localcloud.storage.service import Service
from infra.localcloud.storage.uploads import Uploads
from job.errors import UsageError

RESPONSES = responses | {308: "Resume Incomplete", 499: "Client Closed Request"}


@dataclass(frozen=True)
class StorageServer:
    """A server that runs."""

    url: str
    faults: Faults
    accounting: Accounting
    store: Store

    def make_bucket(self, name: str, location: str = "US") -> None:
        """A bucket, unless it is there already."""
        if all(fields["name"] != name for fields in self.store.buckets()):
            self.store.create_bucket(name, {"location": location})


@contextmanager
def start(
    root: Path | None = None,
    *,
    port: int = 0,
    policy: Path | None = None,
    keep_bytes: bool = True,
    now: Callable[[], float] = time.time,
) -> Iterator[StorageServer]:
    """Serves until the end of the block. Without a root all is gone then; with one it is there at the next start.

    Raises UsageError for a root that is not this server's own, and for a port that is taken.
    """
    with own_folder(root) as folder:
        store = Store(folder, keep_bytes=keep_bytes, now=now)
        faults, accounting = Faults(), Accounting()
        dispatch = Dispatch(Service(store, Uploads(store), Gate(policy, now)), faults, accounting)
        try:
            server = _Server(port, dispatch)
        except OSError as error:
            raise UsageError(
                f"127.0.0.1:{port}: {error.strerror}", fix="Name another port, or 0 for a free one."
            ) from None
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="storage", daemon=True)
        thread.start()
        try:
            yield StorageServer(f"http://127.0.0.1:{server.server_address[1]}", faults, accounting, store)
        finally:
            faults.stop()
            server.shutdown()
            server.server_close()
            server.cut_all()
            thread.join()
            store.close()


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that they end with it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, dispatch: Dispatch) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.dispatch = dispatch
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, from its first request to its last."""
        with self._lock:
            self._connections[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._connections[request]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to report; anything else is a bug and is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def cut_all(self) -> None:
        """Ends every connection and waits for its thread."""
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by itself just now
        for thread in connections.values():
            thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "UploadServer"  # what the real one calls itself
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Server

    def handle_any(self) -> None:
        """One request: read, answered, sent."""
        dispatch = self.server.dispatch
        try:
            request = self._request()
            if self._is_for_us(request):
                self._send(dispatch.answer(request))
            else:
                request.body.drain()
                self._send(_stranger())
        except ConnectionCut:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def log_message(self, *_: object) -> None:
        """`/_faults` tells what was asked, in a form that can be asserted on."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The server's clock, which the local cloud may run faster than the machine's."""
        return formatdate(self.server.dispatch.service.store.now() if timestamp is None else timestamp, usegmt=True)

    def _request(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise ConnectionCut
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        base_url = f"http://{headers.get('host', '')}"
        body = Body(self.rfile, None if chunked else int(length))
        return Request(self.command, parts.path, query, headers, body, base_url, raw_query=parts.query)

    def _is_for_us(self, request: Request) -> bool:
        names = {f"{name}:{self.server.server_address[1]}" for name in ("127.0.0.1", "localhost")}
        origin = request.headers.get("origin")
        return request.headers.get("host") in names and (origin is None or urlsplit(origin).netloc in names)

    def _send(self, response: Response) -> None:
        bare = self.command == "HEAD" or response.status in (204, 304)
        if isinstance(response.body, bytes):
            body = b"" if bare else response.body
            self.wfile.write(self._head(response, len(response.body)) + body)  # one packet, not two
            return
        with closing(response.body.opened):
            self.wfile.write(self._head(response, response.body.length))
            if not bare:
                self._send_media(response.body)

    def _head(self, response: Response, length: int) -> bytes:
        lines = [
            f"HTTP/1.1 {response.status} {RESPONSES.get(response.status, '')}",
            f"Server: {self.server_version}",
            f"Date: {self.date_time_string()}",
            *(f"{name}: {_one_line(value)}" for name, value in response.headers.items()),
        ]
        if response.status not in (204, 304) and "Content-Length" not in response.headers:
            lines.append(f"Content-Length: {length}")
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _send_media(self, media: Media) -> None:
        if media.tampered is None:
            for file, offset, length in media.opened.spans(media.start, media.length):
                self._send_file(file.fileno(), offset, length)
            return
        for block in media.tampered:
            self.wfile.write(block)

    def _send_file(self, fd: int, offset: int, length: int) -> None:
        """From the page cache into the socket, without passing through here."""
        while length:
            sent = os.sendfile(self.connection.fileno(), fd, offset, length)
            offset, length = offset + sent, length - sent


def _one_line(value: str) -> str:
    """What a client stored as, say, a content type begins no header of its own."""
    return value.replace("\r", " ").replace("\n", " ")


def _stranger() -> Response:
    error = ApiError(403, "forbidden", "This server answers programs on this machine, not web pages.")
    return Response(error.status, {"Content-Type": "application/json; charset=UTF-8"}, error.as_json())
