"""A bucket in a folder: objects are plain files at their names, with generations and compare-and-swap.

An object's generation is its file's modification time in nanoseconds, set before the file gets its name, so
it cannot get out of step with the bytes in a crash, needs no second file, and a copy of the folder is a
bucket too. It counts in microseconds, because some file systems keep no finer times. Checksums are computed
from the bytes that are written or read; the manifests are what they are compared with.

A write goes to a hidden temporary file, is synced, and is renamed under the bucket's lock, after the
precondition was checked. The lock is held for that moment only, never while data are written.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from urllib.parse import quote, unquote

from job.errors import NeedsPerson, UsageError
from job.storage import Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.chunks import CHUNK_BYTES, crc32c
from job.storage.direct import write_file
from job.storage.folder import Folder, explained
from job.storage.usage import Usage

GENERATION_UNIT_NS = 1000


class FileBucket:
    """The bucket at a `file:///absolute/path` URI. The folder is made by the first write."""

    def __init__(self, uri: str) -> None:
        path = unquote(uri.removeprefix("file://"))
        if not uri.startswith("file://") or not path.startswith("/"):
            raise UsageError(f"{uri!r} is not the URI of a folder.", fix="Use file:///absolute/path.")
        self.root = Path(os.path.normpath(path))
        self.uri = "file://" + quote(str(self.root))
        self._folder = Folder(self.root)

    @property
    def usage(self) -> Usage:
        """Nothing: a folder bills nobody."""
        return Usage()

    def location(self) -> None:
        """A folder's traffic costs nothing."""

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        """The whole object. Raises NotFound."""
        with self._opened(name) as fd:
            size_bytes = os.fstat(fd).st_size
            data = bytearray(size_bytes)
            _fill(fd, memoryview(data))
            return bytes(data), _info(name, os.fstat(fd), crc32c(data))

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        """Streams the object into `buffer`, whose length must be the object's size.

        Raises NotFound, ValueError on another size.
        """
        with self._opened(name) as fd:
            status = os.fstat(fd)
            if status.st_size != len(buffer):
                raise ValueError(f"{name} has {status.st_size} bytes, not {len(buffer)}")
            return _info(name, status, _fill(fd, buffer))

    def stat(self, name: str) -> ObjectInfo | None:
        """The object's metadata, None when it does not exist."""
        path = self._path(name)
        with explained(path):
            status = _stat(path)
        return None if status is None else _info(name, status, None)

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        """Writes the object as a whole. Raises PreconditionFailed, and then nothing was changed."""
        path = self._path(name)
        with explained(path), self._folder.temporary() as (temporary, fd):
            # Checked again below; here it saves writing data that will be refused.
            _check(name, generation := _generation(path), if_generation)
            crc = write_file(fd, data)
            generation = _stamp(fd, path, generation)
            os.fsync(fd)
            with self._folder.locked():
                _check(name, current := _generation(path), if_generation)
                if current >= generation:  # another writer came in between
                    _stamp(fd, path, current)
                    os.fsync(fd)
                parents = self._make_parents(path)
                temporary.rename(path)
            for folder in parents:
                _sync_folder(folder)
            return _info(name, os.fstat(fd), crc)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with `prefix`, sorted by name; not temporary files and locks."""
        folder = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        with explained(folder):
            found = sorted(self._walk(folder, prefix), key=lambda info: info.name.encode())
        yield from found

    def folders(self, prefix: str) -> Iterator[str]:
        """The folders right below `prefix` that have objects, each ending in a slash, sorted."""
        folder = self._path(prefix.removesuffix("/")) if prefix else self.root
        with explained(folder):
            try:
                names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return
            found = [name for name in names if not name.startswith(".")]
            full = [name for name in found if any(self._walk(folder / name, f"{prefix}{name}/"))]
        yield from (f"{prefix}{name}/" for name in full)

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        """Deletes the object and the folders that it leaves empty. Raises PreconditionFailed.

        Not synced: an object that a power cut brings back is one that nobody refers to.
        """
        path = self._path(name)
        with explained(path):
            if _stat(path) is None:
                return
            with self._folder.locked():
                if (current := _generation(path)) == 0:
                    return
                _check(name, current, if_generation)
                path.unlink()
                for folder in path.parents:
                    if folder == self.root or any(folder.iterdir()):
                        break
                    folder.rmdir()

    def _path(self, name: str) -> Path:
        """Where an object lies. Hidden names are the bucket's own; `..` would lead out of it."""
        if not name or any(part.startswith(".") or not part for part in name.split("/")):
            raise ValueError(f"{name!r} is not an object name")
        return self.root / name

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        for parent, folders, files in os.walk(folder, onerror=_unless_gone):
            folders[:] = [f for f in folders if not f.startswith(".")]
            for file in files:
                path = Path(parent, file)
                name = path.relative_to(self.root).as_posix()
                if file.startswith(".") or not name.startswith(prefix):
                    continue
                if (status := _stat(path)) is not None:
                    yield _info(name, status, None)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        path = self._path(name)
        with explained(path):
            try:
                fd = os.open(path, os.O_RDONLY)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFound(name) from None
            try:
                if S_ISDIR(os.fstat(fd).st_mode):
                    raise NotFound(name)
                yield fd
            finally:
                os.close(fd)

    def _make_parents(self, path: Path) -> Sequence[Path]:
        """Makes the object's folder. Returns the folders whose entries have to be synced."""
        changed = [path.parent]
        while not changed[-1].is_dir():
            changed.append(changed[-1].parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        return changed


def _stat(path: Path) -> os.stat_result | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if S_ISDIR(status.st_mode) else status


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _generation(path: Path) -> int:
    """The generation of the object at `path`, 0 when there is none."""
    status = _stat(path)
    return 0 if status is None else status.st_mtime_ns


def _check(name: str, generation: int, wanted: int | None) -> None:
    if wanted is not None and wanted != generation:
        raise PreconditionFailed(f"{name} has generation {generation}, not {wanted}")


def _stamp(fd: int, path: Path, after: int) -> int:
    """Gives the open file the next generation greater than `after`."""
    generation = max(time.time_ns(), after + GENERATION_UNIT_NS) // GENERATION_UNIT_NS * GENERATION_UNIT_NS
    os.utime(fd, ns=(generation, generation))
    if os.fstat(fd).st_mtime_ns != generation:
        raise NeedsPerson(
            f"{path}: the file system does not keep file times to the microsecond.",
            fix="Keep the run in a folder of another file system (ext4, xfs, btrfs, APFS, tmpfs, NFS 4).",
        )
    return generation


def _info(name: str, status: os.stat_result, crc: int | None) -> ObjectInfo:
    return ObjectInfo(name, status.st_mtime_ns, status.st_size, crc, status.st_mtime_ns / 1e9)


def _fill(fd: int, buffer: memoryview) -> int:
    """Reads the file's bytes into the whole of `buffer`; returns their checksum."""
    view, crc, at = buffer.cast("B"), 0, 0
    while at < len(view):
        count = os.readv(fd, [view[at : at + CHUNK_BYTES]])
        if count == 0:
            raise OSError(errno.EIO, "the file ended before its size")
        crc = crc32c(view[at : at + count], crc)
        at += count
    return crc


def _sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # deleted meanwhile, with everything in it
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
