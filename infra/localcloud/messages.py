"""Requests and responses as an API's functions see them: no sockets, and no body as a whole in memory."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import Any, Protocol
from urllib.parse import parse_qsl

from infra.localcloud.errors import ANONYMOUS, Refusal

BLOCK_BYTES = 256 * 1024
"""What is read and written at a time."""
LINE_BYTES = 64 * 1024
JSON = "application/json; charset=UTF-8"


class ConnectionCut(Exception):
    """The connection ends here, without an answer: the client went away, or a fault wants it."""


class Body:
    """A request's body, read from the connection as it is needed."""

    def __init__(self, stream: BufferedIOBase, length: int | None) -> None:
        self._stream = stream
        self.chunked = length is None
        self._left = length or 0  # of the body, or of the chunk
        self._over = length == 0
        self.read_bytes = 0

    def blocks(self, leave: int = 0) -> Iterator[bytes]:
        """The rest, BLOCK_BYTES at a time, but for the last `leave` bytes. Raises ConnectionCut where it breaks off."""
        while wanted := BLOCK_BYTES if self.chunked else max(0, min(BLOCK_BYTES, self._left - leave)):
            if block := self.read(wanted):
                yield block
            if len(block) < wanted:
                return

    @property
    def left(self) -> int:
        """How many bytes are still to come; of a chunked body, of this chunk."""
        return self._left

    def read(self, wanted: int) -> bytes:
        """That many bytes; fewer only at the end of the body."""
        if not self.chunked:
            return self._read(min(wanted, self._left))
        parts = []
        while wanted and not self._over:
            if not self._left:
                self._left = self._chunk_size()
                self._over = not self._left
            parts.append(self._read(min(wanted, self._left)))
            wanted -= len(parts[-1])
            if not self._left:
                self._stream.readline(LINE_BYTES)  # the end of a chunk, or of the trailer
        return b"".join(parts)

    def line(self) -> bytes:
        """One line, with its end. Only for bodies whose length is known."""
        line = self._stream.readline(min(LINE_BYTES, self._left))
        self._took(len(line))
        return line

    def everything(self, limit_bytes: int = 16 * 1024 * 1024) -> bytes:
        """The whole body, for those that are documents. Raises 400 when it is longer than any document."""
        data = self.read(limit_bytes)
        if len(data) == limit_bytes:
            raise Refusal(400, "invalid", "The request body is too large.")
        return data

    def drain(self) -> None:
        """Reads on to the end: a client hears an answer only when it has sent all that it meant to."""
        for _ in self.blocks():
            pass

    def _read(self, wanted: int) -> bytes:
        data = self._stream.read(wanted)
        self._took(len(data))
        if len(data) < wanted:
            raise ConnectionCut
        return data

    def _took(self, size_bytes: int) -> None:
        self._left -= size_bytes
        self.read_bytes += size_bytes

    def _chunk_size(self) -> int:
        line = self._stream.readline(LINE_BYTES)
        try:
            return int(line.partition(b";")[0], 16)
        except ValueError:
            raise ConnectionCut from None


@dataclass
class Request:
    """One request."""

    method: str
    path: str
    """Still percent-encoded."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Body
    base_url: str
    """The server's address as this client knows it."""
    raw_query: str = ""
    port: int = 0
    """The client's end of the connection."""
    account: str = ANONYMOUS
    connection: dict[str, Any] = field(default_factory=dict)
    """What is known of the connection, from one of its requests to the next."""

    def queries(self, name: str) -> list[str]:
        """All values of a parameter that may be given more than once."""
        return [value for key, value in parse_qsl(self.raw_query) if key == name]

    def json(self) -> dict[str, Any]:
        """The body, which is a JSON object; nothing is an empty one. Raises 400."""
        try:
            data = json.loads(self.body.everything() or b"{}")
        except ValueError as error:
            raise Refusal(400, "parseError", f"Invalid JSON payload received. {error}") from None
        if not isinstance(data, dict):
            raise Refusal(400, "parseError", "Invalid JSON payload received. An object is expected.")
        return data


class Stream(Protocol):
    """A response's body that is not in memory."""

    length: int

    def send(self, connection: socket.socket, write: Callable[[bytes], Any]) -> None:
        """Sends all of it."""

    def close(self) -> None:
        """Lets go of it, whether it was sent or not."""


@dataclass
class Response:
    """What is sent back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Stream = b""


def json_response(data: Any, status: int = 200) -> Response:
    """A JSON document."""
    return Response(status, {"Content-Type": JSON}, json.dumps(data).encode())


def refused(error: Refusal) -> Response:
    """A refusal of a JSON API."""
    return Response(error.status, error.headers | {"Content-Type": JSON}, error.as_json())
