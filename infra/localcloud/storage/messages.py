"""Requests and responses that carry objects."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.localcloud import messages
from infra.localcloud.messages import Body, ConnectionCut
from infra.localcloud.storage.data import Opened
from infra.localcloud.storage.errors import bad_range, bad_request

__all__ = ["Body", "ConnectionCut", "Media", "Request", "Response", "Tamper", "requested_range"]

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


Tamper = Callable[[Iterator[bytes]], Iterator[bytes]]
"""What a fault does to an object's bytes on their way. The bytes pass in blocks."""


@dataclass
class Request(messages.Request):
    """One request, or one part of a batch. In its path an object's name may hold slashes, percent-encoded."""

    metadata: dict[str, Any] = field(default_factory=dict)
    """The object's resource as the client sent it with its bytes or before them."""
    end_mark: bytes = b""
    """What follows the object's bytes at the end of a multipart body, perhaps with a line ending."""
    tamper: Tamper = iter
    """What a fault does to the bytes of the object, in either direction."""

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

    def send(self, connection: socket.socket, write: Callable[[bytes], Any]) -> None:
        """Sends the range; untampered it goes from the page cache into the socket, without passing through here."""
        if self.tampered is not None:
            for block in self.tampered:
                write(block)
            return
        for file, offset, length in self.opened.spans(self.start, self.length):
            while length:
                sent = os.sendfile(connection.fileno(), file.fileno(), offset, length)
                offset, length = offset + sent, length - sent

    def close(self) -> None:
        """Lets go of the object's files."""
        self.opened.close()


@dataclass
class Response(messages.Response):
    """What is sent back."""

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
