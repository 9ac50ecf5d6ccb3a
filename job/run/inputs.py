"""The user's files that a run is made of: pinned by their bytes, for an attempt and for whoever launches one."""

import errno
import hashlib
from dataclasses import dataclass
from pathlib import Path

from job.errors import NeedsPerson, UsageError
from job.run.blobs import fetch_blob
from job.run.spec import Input
from job.settings import Settings
from job.storage import Bucket
from job.tasks import task_file

INPUT_KEYS = ("data.train", "data.eval", "task")
"""Settings that name a file of the user's: pinned by hash in the spec."""


@dataclass(frozen=True)
class PinnedInput:
    """A file of the user's as this attempt uses it: its own copy, and the hash that the spec names."""

    key: str
    name: str
    sha256: str
    size_bytes: int
    path: Path


def pin_input(
    bucket: Bucket, key: str, given: Path, recorded: Input | None, scratch: Path, *, may_differ: bool = False
) -> PinnedInput:
    """A copy of an input in `scratch`, so that no later change of the file reaches the run.

    A new run (`recorded` None) takes the user's file; an existing one takes its own from the bucket, verified, and
    refuses a local file with other bytes, unless it `may_differ`. Raises UsageError (missing file, other bytes).
    """
    target = scratch / key / given.name  # a folder of its own: errors of a task's code name its file
    target.parent.mkdir(exist_ok=True)
    if recorded is None:
        return _copy(key, given, target)
    if given.is_file() and (local := _copy(key, given, target)).sha256 != recorded.sha256:
        if may_differ:
            return local
        raise UsageError(
            f"{key}: {given} is not the file that the run was started with "
            f"(sha256 {local.sha256[:12]}, the run has {recorded.sha256[:12]}).",
            fix=f"Restore the file, use another --run, or accept the difference: --allow-changed {key}",
        )
    fetch_blob(bucket, recorded.sha256, target)
    return PinnedInput(key, recorded.name, recorded.sha256, recorded.bytes, target)


def input_path(settings: Settings, key: str) -> Path | None:
    """The user's file that a setting names, None when it names none."""
    if key == "task":
        return task_file(settings.task)
    value = {"data.train": settings.data.train, "data.eval": settings.data.eval}[key]
    return None if value is None else Path(value)


def _copy(key: str, source: Path, target: Path) -> PinnedInput:
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with source.open("rb") as read, target.open("wb") as write:
            while block := read.read(1 << 20):
                digest.update(block)
                size_bytes += len(block)
                write.write(block)
    except FileNotFoundError:
        raise UsageError(f"{key}: {source} does not exist.", fix="Give the path of a file that does.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NeedsPerson(
                f"disk full: {source} cannot be copied to {target.parent}.",
                fix="Free space there, or set TMPDIR to a folder on another disk.",
            ) from None
        raise UsageError(
            f"{key}: {source} cannot be read: {error.strerror}.", fix="Check the path and its rights."
        ) from None
    return PinnedInput(key, source.name, digest.hexdigest(), size_bytes, target)
