"""The attempt's folder for temporary files, locked while it lives: what a dead one left is known by that."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from job.errors import NeedsPerson

PREFIX = "baton-attempt-"
MARK = ".baton-scratch"
"""A file in every such folder and in no other: nothing without it is ever deleted. Its lock: the attempt lives."""


class Scratch:
    """A fresh folder under TMPDIR. The kernel unlocks it when this process and its children are gone, however."""

    def __init__(self) -> None:
        try:
            _sweep(Path(tempfile.gettempdir()))
            made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))  # a name that no sweep looks at
            self._fd = os.open(made / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.path = made.rename(made.with_name(made.name.removeprefix(".")))
        except OSError as error:
            raise NeedsPerson(
                f"no temporary folder can be made: {error.strerror or error}.",
                fix="Free some space there, or name another folder in TMPDIR.",
            ) from None

    def remove(self) -> None:
        """Deletes the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


def _sweep(folder: Path) -> None:
    """Deletes the folders of this user's attempts that are dead: those whose mark can be locked."""
    for mark in folder.glob(f"{PREFIX}*/{MARK}"):
        try:
            if mark.lstat().st_uid != os.getuid() or mark.parent.is_symlink():
                continue
            fd = os.open(mark, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
