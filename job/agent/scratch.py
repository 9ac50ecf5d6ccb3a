"""The attempt's folder for temporary files, locked while it lives: what a dead one left is known by that."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from job.errors import NeedsPerson

PREFIX = "baton-"
UNLOCKED_PREFIX = ".baton-new-"  # on its way to being locked: nobody takes it for a leftover


class Scratch:
    """A fresh folder under TMPDIR. The kernel unlocks it when this process and its children are gone, however."""

    def __init__(self) -> None:
        try:
            _sweep(Path(tempfile.gettempdir()))
            made = Path(tempfile.mkdtemp(prefix=UNLOCKED_PREFIX))
            self._fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.path = made.rename(made.with_name(made.name.replace(UNLOCKED_PREFIX, PREFIX)))
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
    """Deletes the folders of this user's attempts that are dead: those that can be locked."""
    for path in folder.glob(f"{PREFIX}*"):
        try:
            if path.stat().st_uid != os.getuid():
                continue
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, or no folder
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
