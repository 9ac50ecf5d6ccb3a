"""Files named by their sha256: the run's inputs, and whatever does not change between checkpoints."""

import hashlib
import mmap
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from job.errors import NeedsPerson, UsageError
from job.run.layout import blob_name
from job.run.records import transient_retry
from job.storage import Bucket, NotFound, ObjectInfo, PreconditionFailed

READ_BYTES = 1 << 20


def put_blob(bucket: Bucket, path: Path) -> str:
    """Stores a file; returns its sha256. One that is there already is left alone.

    Raises UsageError when the file cannot be read or changes meanwhile.
    """
    sha256 = _hash(path)
    transient_retry()(_upload, bucket, path, sha256)
    return sha256


def fetch_blob(bucket: Bucket, sha256: str, into: Path) -> None:
    """Brings a blob to the file `into`, verified before the file gets its name. One that is right already
    stays.

    Raises NeedsPerson when the blob is missing or its bytes are wrong.
    """
    if into.is_file() and _hash(into) == sha256:
        return
    transient_retry()(_download, bucket, sha256, into)


def _upload(bucket: Bucket, path: Path, sha256: str) -> None:
    if bucket.stat(blob_name(sha256)) is not None:
        return
    digest = hashlib.sha256()
    try:
        info = bucket.write(blob_name(sha256), read_hashed(path, digest), if_generation=0)
    except PreconditionFailed:  # the same bytes, from somebody else
        return
    if digest.hexdigest() != sha256:
        bucket.delete(blob_name(sha256), if_generation=info.generation)
        raise UsageError(f"{path} changed while it was read.", fix="Start again when nothing writes to it.")


def _download(bucket: Bucket, sha256: str, into: Path) -> None:
    name = blob_name(sha256)
    info = bucket.stat(name)
    if info is None:
        raise NeedsPerson(f"{bucket.uri}/{name} is missing.", fix="Put it back: it is a file that the run needs.")
    temporary = into.with_name(f".{into.name}.{secrets.token_hex(4)}")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            found = _fill(bucket, info, file.fileno())
        if found != sha256:
            raise NeedsPerson(
                f"{bucket.uri}/{name} is damaged: its sha256 is {found[:12]}….",
                fix="Put the right bytes back: it is a file that the run needs.",
            )
        temporary.rename(into)
    except OSError as error:
        raise NeedsPerson(
            f"{into} cannot be written: {error.strerror}.", fix="Free space there, start again."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _fill(bucket: Bucket, info: ObjectInfo, fd: int) -> str:
    """Streams a blob into an empty file; returns its sha256."""
    if info.size_bytes == 0:
        return hashlib.sha256().hexdigest()
    os.posix_fallocate(fd, 0, info.size_bytes)  # a full disk is an error here, and SIGBUS once the file is mapped
    with mmap.mmap(fd, info.size_bytes) as mapped, memoryview(mapped) as view:
        try:
            bucket.read_into(info.name, view)
        except NotFound:
            raise NeedsPerson(f"{bucket.uri}/{info.name} is missing.", fix="Put it back.") from None
        return hashlib.sha256(view).hexdigest()


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for _ in read_hashed(path, digest):
        pass
    return digest.hexdigest()


def read_hashed(path: Path, digest: "hashlib._Hash") -> Iterator[bytes]:
    """The file in pieces, each added to `digest` on its way. Raises UsageError."""
    try:
        with path.open("rb") as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
                yield piece
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", fix="Check the path and its rights.") from None
