"""Where the bytes are: pieces in files. What is composed or copied shares them through hard links.

Nothing here is synced: the bytes survive a SIGKILL of the server, not a power cut of the machine.
"""

import hashlib
import os
import secrets
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import google_crc32c

from infra.localcloud.storage.checksums import combine

BLOCK_BYTES = 256 * 1024
"""What is read, summed and written at a time; also the unit in which a resumable upload keeps bytes."""
KEPT_ANYWAY_BYTES = 64 * 1024
"""Where bytes are only counted, objects up to this size are kept: heads and manifests have to be read back."""


@dataclass(frozen=True)
class Piece:
    """Bytes in one file; or, with no file, bytes that were only counted."""

    file: str
    size_bytes: int
    crc32c: int


def total(pieces: Iterable[Piece]) -> tuple[int, int]:
    """(size, CRC-32C) of the pieces one after another."""
    size_bytes, crc = 0, 0
    for piece in pieces:
        crc = combine(crc, piece.crc32c, piece.size_bytes) if size_bytes else piece.crc32c
        size_bytes += piece.size_bytes
    return size_bytes, crc


class Incoming:
    """Bytes on their way into a new file."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.size_bytes = 0
        self.crc32c = 0
        self._keep = keep
        self._file: FileIO | None = FileIO(path, "ab")
        if size_bytes := os.fstat(self._file.fileno()).st_size:  # an upload that the server's last life began
            self._file.truncate(size_bytes - size_bytes % BLOCK_BYTES)
            for block in _blocks_of(path):
                self._count(block)

    def append(self, block: bytes) -> None:
        """Adds a block. The caller gives BLOCK_BYTES at a time, less only at the end."""
        self._count(block)
        if self._file is None:
            return
        if self._file.closed:
            self._file = FileIO(self.path, "ab")
        if not self._keep and self.size_bytes > KEPT_ANYWAY_BYTES:
            self._forget()
            return
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]

    def piece(self) -> Piece:
        """Closes the file: what came in is this."""
        file = "" if self._file is None else self.path.name
        self.close()
        return Piece(file, self.size_bytes, self.crc32c)

    def close(self) -> None:
        """Lets go of the file and leaves it where it is; more may come."""
        if self._file is not None:
            self._file.close()

    def drop(self) -> None:
        """Forgets what came in."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _count(self, block: bytes) -> None:
        self.crc32c = google_crc32c.extend(self.crc32c, block)
        self.size_bytes += len(block)

    def _forget(self) -> None:
        self.drop()
        self._file = None


class DataFolder:
    """The folder with all pieces; with keep_bytes=False large ones are only counted."""

    def __init__(self, folder: Path, *, keep_bytes: bool) -> None:
        self.folder = folder
        self._keep = keep_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def incoming(self, file: str = "") -> Incoming:
        """A new file, or `file` again, with what it holds."""
        return Incoming(self.folder / (file or secrets.token_hex(12)), keep=self._keep)

    def store(self, blocks: Iterable[bytes]) -> Piece:
        """One new piece of all blocks; nothing is left of it when they end with an exception."""
        incoming = self.incoming()
        try:
            for block in blocks:
                incoming.append(block)
        except BaseException:
            incoming.drop()
            raise
        return incoming.piece()

    def share(self, pieces: Iterable[Piece]) -> tuple[Piece, ...]:
        """The same bytes under names of their own, so that either owner may drop them."""
        return tuple(self._link(piece) for piece in pieces)

    def drop(self, pieces: Iterable[Piece]) -> None:
        """Forgets the pieces; whoever has them open still reads them."""
        for piece in pieces:
            if piece.file:
                (self.folder / piece.file).unlink(missing_ok=True)

    def drop_all_but(self, files: set[str]) -> None:
        """What a killed server left behind."""
        for path in self.folder.iterdir():
            if path.name not in files:
                path.unlink()

    def open(self, pieces: tuple[Piece, ...]) -> "Opened":
        """The pieces' files, to be closed by the caller."""
        return Opened(pieces, [FileIO(self.folder / piece.file) for piece in pieces if piece.file])

    def md5(self, pieces: tuple[Piece, ...]) -> str | None:
        """The MD5 as Cloud Storage writes it; None where the bytes were only counted."""
        if any(piece.size_bytes and not piece.file for piece in pieces):
            return None
        digest = hashlib.md5(usedforsecurity=False)
        for piece in pieces:
            for block in _blocks_of(self.folder / piece.file):
                digest.update(block)
        return b64encode(digest.digest()).decode()

    def _link(self, piece: Piece) -> Piece:
        if not piece.file:
            return piece
        name = secrets.token_hex(12)
        os.link(self.folder / piece.file, self.folder / name)
        return Piece(name, piece.size_bytes, piece.crc32c)


class Opened:
    """An object's open files: its bytes stay readable while it is overwritten or deleted."""

    def __init__(self, pieces: tuple[Piece, ...], files: list[FileIO]) -> None:
        self._parts = list(zip((piece.size_bytes for piece in pieces), files, strict=False))
        self._files = files
        self.kept = len(files) == len(pieces)
        """False where the bytes were only counted."""

    def close(self) -> None:
        """Lets go of the files."""
        for file in self._files:
            file.close()

    def spans(self, start: int, length: int) -> Iterator[tuple[FileIO, int, int]]:
        """(file, offset, length) of each part of the range."""
        for size_bytes, file in self._parts:
            if start < size_bytes and length:
                here = min(size_bytes - start, length)
                yield file, start, here
                start, length = 0, length - here
            else:
                start -= min(start, size_bytes)

    def blocks(self, start: int, length: int) -> Iterator[bytes]:
        """The bytes of the range."""
        for file, offset, here in self.spans(start, length):
            for at in range(offset, offset + here, BLOCK_BYTES):
                yield os.pread(file.fileno(), min(BLOCK_BYTES, offset + here - at), at)


def _blocks_of(path: Path) -> Iterator[bytes]:
    with FileIO(path) as file:
        while block := file.read(BLOCK_BYTES):
            yield block
