"""The HTTP server of the local cloud: one thread per connection, on loopback, answering only to its own name and user.

A browser on this machine is kept out by the checks of Host and Origin: a page that resolves its own name to 127.0.0.1
sends another Host, and every page sends its Origin with what may change something. Other users of this machine are kept
out by the kernel's word for whose the connection is.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from functools import cached_property
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from infra.localcloud.errors import other_user, stranger
from infra.localcloud.messages import Body, ConnectionCut, Request, Response, refused
from infra.localcloud.peers import peer_uid
from job.errors import UsageError

RESPONSES = responses | {308: "Resume Incomplete", 499: "Client Closed Request"}
Answer = Callable[[Any], Response]


class LoopbackServer(ThreadingHTTPServer):
    """Knows its connections, so that they end with it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self, address: tuple[str, int], answer: Answer, request_type: type[Request], now: Callable[[], float], name: str
    ) -> None:
        super().__init__(address, _Handler)
        self.users = {os.geteuid()}
        self.answer = answer
        self.request_type = request_type
        self.now = now
        self.name = name
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.server_address[:2]
        return str(host), int(port)

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


@contextmanager
def serving(
    answer: Answer,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    request_type: type[Request] = Request,
    now: Callable[[], float] = time.time,
    name: str = "ESF",
    stop: Callable[[], None] = lambda: None,
    also_user: int | None = None,
) -> Iterator[str]:
    """Serves until the end of the block, at the address that it yields. `answer` is called from several threads.

    `stop` is called first of all at the end: what makes an answer wait ends its waiting then. `name`: what the real
    server calls itself. `also_user` is answered like this process's own: a container's, which has one of its own.
    Raises UsageError for a port that is taken.
    """
    try:
        server = LoopbackServer((host, port), answer, request_type, now, name)
    except OSError as error:
        raise UsageError(f"{host}:{port}: {error.strerror}", fix="Name another port, or 0 for a free one.") from None
    if also_user is not None:
        server.users.add(also_user)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name=f"serve {port}", daemon=True)
    thread.start()
    try:
        yield f"http://{server.address[0]}:{server.address[1]}"
    finally:
        stop()
        server.shutdown()
        server.server_close()
        server.cut_all()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackServer

    def handle_any(self) -> None:
        """One request: read, answered, sent."""
        try:
            request = self._request()
            if not self._is_for_us(request):
                request.body.drain()
                self._send(refused(stranger()))
            elif not self._is_of_our_user:
                request.body.drain()
                self._send(refused(other_user()))
            else:
                self._send(self.server.answer(request))
        except ConnectionCut:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def log_message(self, *_: object) -> None:
        """Whoever wants to know what was asked counts it, in a form that can be asserted on."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The server's clock."""
        return formatdate(self.server.now() if timestamp is None else timestamp, usegmt=True)

    def _request(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise ConnectionCut
        parts = urlsplit(self.path)
        return self.server.request_type(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers=headers,
            body=Body(self.rfile, None if chunked else int(length)),
            base_url=f"http://{headers.get('host', '')}",
            raw_query=parts.query,
            port=self.client_address[1],
            connection=self._known,
        )

    def _is_for_us(self, request: Request) -> bool:
        host, port = self.server.address
        names = {f"{name}:{port}" for name in (host, "localhost")}
        if port == 80:
            names |= {host, "localhost"}
        origin = request.headers.get("origin")
        return request.headers.get("host") in names and (origin is None or urlsplit(origin).netloc in names)

    @cached_property
    def _known(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _is_of_our_user(self) -> bool:
        return peer_uid(self.client_address, self.server.address) in self.server.users

    def _send(self, response: Response) -> None:
        bare = self.command == "HEAD" or response.status in (204, 304)
        if isinstance(response.body, bytes):
            body = b"" if bare else response.body
            self.wfile.write(self._head(response, len(response.body)) + body)  # one packet, not two
            return
        with closing(response.body):
            self.wfile.write(self._head(response, response.body.length))
            if not bare:
                response.body.send(self.connection, self.wfile.write)

    def _head(self, response: Response, length: int) -> bytes:
        lines = [
            f"HTTP/1.1 {response.status} {RESPONSES.get(response.status, '')}",
            f"Server: {self.server.name}",
            f"Date: {self.date_time_string()}",
            *(f"{name}: {_one_line(value)}" for name, value in response.headers.items()),
        ]
        if response.status not in (204, 304) and "Content-Length" not in response.headers:
            lines.append(f"Content-Length: {length}")
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _one_line(value: str) -> str:
    """What a client stored as, say, a content type begins no header of its own."""
    return value.replace("\r", " ").replace("\n", " ")
