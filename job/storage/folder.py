"""The folder that a bucket lies in: its lock, its temporary files, and what the file system's errors mean to people.

The lock is flock on a hidden file. A temporary file is locked by its writer for as long as it is written: one that is
not locked was left by a writer that is dead, and is swept.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import tenacity

from job.errors import BatonError, NeedsPerson, Transient

LOCK = ".lock"
TEMPORARY = ".tmp"
LOCK_WAIT_S = 10.0
"""The lock is held for microseconds: longer than this somebody was stopped while holding it."""


class Folder:
    """A folder that several processes change at once. It is made when it is first locked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept = False
        self._mutex = threading.Lock()  # on NFS flock excludes processes only, not threads

    @contextlib.contextmanager
    def temporary(self) -> Iterator[tuple[Path, int]]:
        """A new hidden file, removed at the end unless it was renamed. Its writer holds a lock on it."""
        folder = self.root / TEMPORARY
        with self.locked():
            folder.mkdir(exist_ok=True)
            if not self._swept:
                self._swept = True
                _sweep(folder)
            path = folder / f"{_process()}-{secrets.token_hex(8)}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield path, fd
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The bucket's lock. Raises Transient when it is not to be had."""
        with explained(self.root):  # a folder that cannot be used is named itself, not the object in it
            try:
                fd = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                _make_root(self.root)
                fd = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with self._mutex:
                _flock(fd, self.root)
                try:
                    yield
                finally:
                    # Not left to close(): a process forked meanwhile holds the same open file.
                    fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system into ours; `path` is what they are about."""
    try:
        yield
    except OSError as error:
        raise _explanation(error, path) from error


def _explanation(error: OSError, path: Path) -> BatonError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return NeedsPerson(f"disk full: {path} cannot be written ({reason}).", fix="Free space there, start again.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return NeedsPerson(
                f"{path} may not be used: {reason}.",
                fix="Check the folder's owner and rights, or name another.",
            )
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ENAMETOOLONG:
            return NeedsPerson(f"{path} cannot be made: {reason}.", fix="Name another folder for the run.")
        case errno.ENOLCK | errno.EOPNOTSUPP:
            return NeedsPerson(
                f"{path}: the file system has no locks ({reason}).",
                fix="Name a folder of another file system.",
            )
    return Transient(f"{path}: {reason}.", fix="Check the disk, start again.")


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # where nobody can make a folder, such as /proc
        raise PermissionError(errno.EPERM, "no folder can be made there") from None


def _sweep(folder: Path) -> None:
    """Removes temporary files that nobody holds locked: their writer is dead. For whoever holds the lock."""
    for path in folder.iterdir():
        if path.name.startswith(f"{_process()}-"):  # on NFS a process does not see its own locks
            continue
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def _process() -> str:
    """This process: its pid, which is 1 in every container, and when it started (proc(5), field 22 of stat)."""
    stat = Path("/proc/self/stat").read_text()
    return f"{os.getpid()}.{stat.rpartition(')')[2].split()[19]}"


def _flock(fd: int, root: Path) -> None:
    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BlockingIOError),
            wait=tenacity.wait_random(0.0005, 0.01),
            stop=tenacity.stop_after_delay(LOCK_WAIT_S),
            reraise=True,
        )(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Transient(
            f"{root / LOCK} has been locked by another process for {LOCK_WAIT_S:.0f} s.",
            fix="A process that uses this folder is stopped (fuser on that file names it): end it.",
        ) from None
