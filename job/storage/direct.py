"""Writes a file: a large one past the page cache, whose upkeep costs the trainer beside it more than the disk does."""

import errno
import fcntl
import mmap
import os

from job.storage import Data
from job.storage.chunks import chunks, crc32c

BLOCK_BYTES = 1 << 20
"""What is handed to the disk at once; a multiple of what any file system wants for O_DIRECT (open(2))."""


def write_file(fd: int, data: Data) -> int:
    """Writes `data` to the new file; returns the checksum. Each chunk is summed and copied while in the CPU's cache."""
    crc, filled = 0, 0
    block = memoryview(mmap.mmap(-1, BLOCK_BYTES))  # aligned; given back when the last view of it is gone
    for chunk in chunks(data):
        crc = crc32c(chunk, crc)
        while chunk:
            piece, chunk = chunk[: BLOCK_BYTES - filled], chunk[BLOCK_BYTES - filled :]
            block[filled : filled + len(piece)] = piece
            filled += len(piece)
            if filled == BLOCK_BYTES:
                _use_cache(fd, False)
                _write_all(fd, block)
                filled = 0
    _use_cache(fd, True)  # what is left is no whole block
    _write_all(fd, block[:filled])
    return crc


def _use_cache(fd: int, wanted: bool) -> None:
    """Whether writes go by the page cache, which a file system that cannot do without it (some of FUSE) uses anyway."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    asked = flags & ~os.O_DIRECT if wanted else flags | os.O_DIRECT
    if asked == flags:
        return
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, asked)
    except OSError as error:
        if wanted or error.errno != errno.EINVAL:
            raise


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
        if view:  # a disk that is nearly full took a part: the rest is no longer aligned
            _use_cache(fd, True)
