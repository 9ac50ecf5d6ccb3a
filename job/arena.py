"""What trainer and agent share: slots of memory for whole snapshots, and a channel of small messages beside them.

A slot is a memfd: sparse, shared by inheritance, alive as long as one process holds it, not limited by /dev/shm.
The trainer fills it; the agent reads it, also after the trainer is dead. Needs no torch.
"""

import json
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ALIGNMENT_BYTES = 64
SAFETENSORS_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's names to those of the file format (safetensors 0.8.0, README "Format")."""

REFERENCE_PREFIX = "ref/"
"""Of the names of the reference model's tensors, where that model moves."""

_LENGTHS = struct.Struct("<IQ")


@dataclass(frozen=True)
class TensorSpec:
    """Where one tensor lies in a slot."""

    dtype: str
    """As safetensors writes it: F32, BF16, I64..."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the slot."""
    size_bytes: int


TensorIndex = Mapping[str, TensorSpec]


def index_to_json(index: TensorIndex) -> dict[str, list[Any]]:
    """The index as plain JSON, for a message."""
    return {name: [t.dtype, list(t.shape), t.offset, t.size_bytes] for name, t in index.items()}


def index_from_json(plain: Mapping[str, list[Any]]) -> dict[str, TensorSpec]:
    """The inverse of `index_to_json`."""
    return {name: TensorSpec(d, tuple(s), o, n) for name, (d, s, o, n) in plain.items()}


def safetensors_header(index: TensorIndex) -> bytes:
    """The header of a safetensors file whose data are the tensors of `index`, in its order, without gaps."""
    entries, at = {}, 0
    for name, t in index.items():
        entries[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + t.size_bytes]}
        at += t.size_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def parse_safetensors_header(file: bytes | memoryview) -> dict[str, TensorSpec]:
    """The index of a whole safetensors file in memory; offsets count from the start of the file.

    Raises ValueError when the bytes are no safetensors file.
    """
    if len(file) < 8:
        raise ValueError("shorter than a safetensors header")
    (length,) = struct.unpack("<Q", file[:8])
    if length > len(file) - 8:
        raise ValueError("the safetensors header is longer than the file")
    entries = json.loads(bytes(file[8 : 8 + length]))
    index = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(file) - 8 - length:
            raise ValueError(f"tensor {name} lies outside the file")
        index[name] = TensorSpec(entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
    return index


class Slot:
    """One shared-memory snapshot buffer. Each process maps it by itself; it grows on demand and never shrinks."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls, name: str) -> "Slot":
        """A new empty slot. Children that are forked afterwards inherit it; programs that these start do not.

        A program that a task has started may outlive the attempt: it would keep gigabytes of memory taken.
        """
        return cls(os.memfd_create(name, os.MFD_CLOEXEC))

    def view(self, size_bytes: int) -> memoryview:
        """The first `size_bytes` of the slot, writable. Grows the slot where it is smaller."""
        mapped_bytes = max(size_bytes, mmap.PAGESIZE)
        if os.fstat(self.fd).st_size < mapped_bytes:
            os.ftruncate(self.fd, mapped_bytes)
        if self._map is None or len(self._map) < mapped_bytes:
            # An older, smaller mapping stays valid for whoever still holds a view of it.
            self._map = mmap.mmap(self.fd, mapped_bytes)
        return memoryview(self._map)[:size_bytes]


def align(offset: int) -> int:
    """The first place for a tensor, or a file of them, from `offset` on."""
    return offset + -offset % ALIGNMENT_BYTES


def layout(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> tuple[dict[str, TensorSpec], int]:
    """Places tensors (dtype, shape, bytes) one after another, aligned. Returns the index and the bytes needed."""
    index, at = {}, 0
    for name, (dtype, shape, size_bytes) in tensors.items():
        at = align(at)
        index[name] = TensorSpec(dtype, shape, at, size_bytes)
        at += size_bytes
    return index, at


@dataclass
class Message:
    """One message: what it is about, its plain fields, and bytes that need no JSON."""

    op: str
    fields: dict[str, Any] = field(default_factory=dict)
    blob: bytes = b""


class ChannelClosed(Exception):
    """The other side is gone. A torn message is dropped with it."""


class Channel:
    """Length-prefixed messages over a socket. One thread sends, one receives."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Two connected ends."""
        one, other = socket.socketpair()
        return cls(one), cls(other)

    def fileno(self) -> int:
        """For selectors."""
        return self.sock.fileno()

    def close(self) -> None:
        """Closes this end; the other side reads ChannelClosed."""
        self.sock.close()

    def send(self, op: str, blob: bytes = b"", /, **fields: Any) -> None:
        """Sends one message. Raises ChannelClosed when nobody listens any more."""
        text = json.dumps({"op": op, **fields}).encode()
        try:
            self.sock.sendall(_LENGTHS.pack(len(text), len(blob)) + text + blob)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> Message:
        """The next message, waiting for it. Raises ChannelClosed at the end."""
        while (message := self._take()) is None:
            self._fill()
        return message

    def receive_at_once(self) -> Message | None:
        """The next message, None when none is complete by now. Raises ChannelClosed at the end."""
        while (message := self._take()) is None:
            try:
                self._fill(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
        return message

    def receive_ready(self) -> Iterator[Message]:
        """After the socket became readable: the messages that are complete by now. Raises ChannelClosed at the end."""
        self._fill()
        while (message := self._take()) is not None:
            yield message

    def _fill(self, flags: int = 0) -> None:
        try:
            data = self.sock.recv(1 << 20, flags)
        except ConnectionResetError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        self._buffer += data

    def _take(self) -> Message | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        text_bytes, blob_bytes = _LENGTHS.unpack_from(self._buffer)
        end = _LENGTHS.size + text_bytes + blob_bytes
        if len(self._buffer) < end:
            return None
        fields = json.loads(bytes(self._buffer[_LENGTHS.size : _LENGTHS.size + text_bytes]))
        blob = bytes(self._buffer[_LENGTHS.size + text_bytes : end])
        del self._buffer[:end]
        return Message(fields.pop("op"), fields, blob)
