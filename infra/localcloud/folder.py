"""The server's folder: its own and nobody else's, because what it does not know in there it deletes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from job.errors import UsageError

MARK = ".baton-storage"


@contextmanager
def own_folder(root: Path | None) -> Iterator[Path]:
    """The root, or one for this time only. Raises UsageError for one with other files, or with another server."""
    if root is None:
        with TemporaryDirectory(prefix="baton-storage-") as folder:
            yield Path(folder)
        return
    root.mkdir(parents=True, exist_ok=True)
    if not (root / MARK).exists() and any(root.iterdir()):
        raise UsageError(
            f"{root} holds files that are not this server's.",
            fix="Name an empty folder, or one that it has used before.",
        )
    with (root / MARK).open("w") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another server uses {root}.", fix="Stop it, or name another folder.") from None
        yield root
