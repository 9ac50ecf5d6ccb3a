"""Requests and responses as the API's functions see them: no sockets, and no body as a whole in memory."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import Any
from urllib.parse import parse_qsl

from infra.localcloud.storage.data import BLOCK_BYTES, Opened
from infra.localcloud.storage.errors import bad_range, bad_request

RANGE = re.compile(r"bytes=(\d*)-(\d*)")
LINE_BYTES = 64 * 1024


class ConnectionCut(Exception):
    """The connection ends here, without an answer: the client went away, or a fault wants it."""


Tamper = Callable[[Iterator[bytes]], Iterator[bytes]]
"""What a fault does to an object's bytes on their way. The bytes pass in blocks."""


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
            raise bad_request("The request body is too large.")
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
    """One request, or one part of a batch."""

    method: str
    path: str
    """Still percent-encoded: an object's name may hold slashes."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Body
    base_url: str
    """The server's address as this client knows it."""
    account: str = "anonymous"
    metadata: dict[str, Any] = field(default_factory=dict)
    """The object's resource as the client sent it with its bytes or before them."""
    end_mark: bytes = b""
    """What follows the object's bytes at the end of a multipart body, perhaps with a line ending."""
    raw_query: str = ""
    tamper: Tamper = iter
    """What a fault does to the bytes of the object, in either direction."""

    def queries(self, name: str) -> list[str]:
        """All values of a parameter that may be given more than once."""
        return [value for key, value in parse_qsl(self.raw_query) if key == name]

    @property
    def data_bytes(self) -> int:
        """How many bytes of the object are still to come; 0 where that is not known."""
        return max(0, self.body.left - len(self.end_mark))

    def data(self) -> Iterator[bytes]:
        """The object's bytes in the body, as they arrive."""
        return self.tamper(self._data())

    def _data(self) -> Iterator[bytes]:
        if not self.end_mark:
            yield from self.body.blocks()
            return
        yield from self.body.blocks(leave=len(self.end_mark) + 4)
        tail = self.body.read(self.body.left)
        at = tail.rfind(self.end_mark)
        if at < 0:
            raise bad_request("Invalid multipart request: it does not end with its boundary.")
        yield tail[:at]


@dataclass
class Media:
    """A response's body that is a range of an object."""

    opened: Opened
    """Closed by whoever sends it, or does not."""
    start: int
    length: int
    tampered: Iterator[bytes] | None = None
    """What is sent instead, where a fault wants it."""


@dataclass
class Response:
    """What is sent back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Media = b""
    changed: bool = False
    """Whether an object is not what it was before."""


def requested_range(headers: Mapping[str, str], size_bytes: int) -> tuple[int, int] | None:
    """(start, length) of the range that is asked for, None for the whole object. Raises 416.

    More than one range, or one that is not understood, is answered with the whole, as RFC 9110 allows.
    """
    match = RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start = max(0, size_bytes - int(last))
        end = size_bytes
        if not int(last):
            raise bad_range()
    else:
        start = int(first)
        end = min(size_bytes, int(last) + 1) if last else size_bytes
        if last and int(last) < start:
            return None
    if start >= size_bytes:
        raise bad_range()
    return start, end - start
