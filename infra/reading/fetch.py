"""Brings a run's result to this machine: every file is checked against result/MANIFEST.json before it gets its name."""

import hashlib
import mmap
import os
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from job.checkpoint.manifest import ManifestFile, ResultManifest
from job.errors import NeedsPerson, UsageError
from job.run.head import Head, Status, read_head
from job.run.layout import RESULT, RESULT_MANIFEST
from job.run.records import transient_retry
from job.storage import Bucket, NotFound

BLOCK_BYTES = 1 << 20


def read_result(bucket: Bucket) -> ResultManifest:
    """What the result consists of. Raises UsageError before there is one, NeedsPerson when it is not head's."""
    head = read_head(bucket)
    if head is None or head.status is not Status.FINISHED:
        raise UsageError(
            f"the run {bucket.uri} is not finished{_so_far(head)}: it has no result yet.",
            fix=f"See how far it is: baton status {bucket.uri}",
        )
    found = ResultManifest.read(bucket, RESULT_MANIFEST)
    if found is None:
        raise NeedsPerson(
            f"{bucket.uri}/{RESULT_MANIFEST} is missing.",
            fix=f"See what else is: baton status {bucket.uri} --verify",
        )
    manifest = found[0]
    if head.checkpoint is None or manifest.checkpoint.folder != head.checkpoint.folder:
        raise NeedsPerson(
            f"{bucket.uri}/{RESULT} was not made from the checkpoint that the run ended with.",
            fix=f"See what is wrong: baton status {bucket.uri} --verify",
        )
    return manifest


def safe_names(manifest: ResultManifest) -> list[str]:
    """The files' names, none of which leads out of a folder; pure. A VM wrote them. Raises NeedsPerson."""
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not name or "\0" in name or "\\" in name or name.startswith("/") or name != "/".join(parts):
            raise NeedsPerson(
                f"{RESULT_MANIFEST} names {name!r}, which is no file's name.", fix="Somebody wrote there."
            )
        if any(part.startswith(".") for part in parts):
            raise NeedsPerson(f"{RESULT_MANIFEST} names {name!r}, a hidden file.", fix="Somebody wrote there.")
    return sorted(manifest.files)


def fetch_result(bucket: Bucket, manifest: ResultManifest, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Writes the result's files under `folder`; those that are right already stay. `say` is told of each.

    Raises NeedsPerson for a file that is missing or has other bytes; what was written before stays.
    """
    fetched = []
    for name in safe_names(manifest):
        wanted, target = manifest.files[name], folder / name
        is_there = target.is_file() and not target.is_symlink() and _sha256(target) == wanted.sha256
        if not is_there:
            transient_retry()(_download, bucket, f"{RESULT}/{name}", wanted, target)
        say(f"{name}: {'was here' if is_there else 'fetched'}, {wanted.size_bytes:,} bytes, verified")
        fetched.append(target)
    return fetched


def check_folder(folder: Path, manifest: ResultManifest) -> None:
    """Raises UsageError when the folder holds something else: nothing of it is to be mixed up or written over."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file.", fix="Name a folder.")
    known = {name.split("/")[0] for name in safe_names(manifest)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    linked = sorted(path.name for path in folder.rglob("*") if path.is_symlink() and path.is_dir())
    if linked:
        raise UsageError(f"{folder} holds a link to another folder ({linked[0]}).", fix="Name a folder without.")
    if others:
        raise UsageError(f"{folder} holds other things ({others[0]}).", fix="Name a folder that is empty or not there.")


def _download(bucket: Bucket, name: str, wanted: ManifestFile, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            _fill(bucket, name, wanted, file.fileno())
        if _sha256(temporary) != wanted.sha256:
            raise NeedsPerson(
                f"{bucket.uri}/{name} has other bytes than its MANIFEST says (sha256).",
                fix=f"See what else is wrong: baton status {bucket.uri} --verify",
            )
        temporary.rename(target)
    except OSError as error:
        raise NeedsPerson(
            f"{target} cannot be written: {error.strerror}.", fix="Free space, or name another."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _fill(bucket: Bucket, name: str, wanted: ManifestFile, fd: int) -> None:
    """Streams an object into an empty file of the size that it must have."""
    if wanted.size_bytes == 0:
        return
    os.posix_fallocate(fd, 0, wanted.size_bytes)  # a full disk is an error here, and SIGBUS once the file is mapped
    with mmap.mmap(fd, wanted.size_bytes) as mapped, memoryview(mapped) as view:
        try:
            bucket.read_into(name, view)
        except NotFound:
            raise NeedsPerson(f"{bucket.uri}/{name} is missing.", fix="baton status --verify names all.") from None
        except ValueError:
            raise NeedsPerson(f"{bucket.uri}/{name} has another size than its MANIFEST says.") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _so_far(head: Head | None) -> str:
    if head is None or head.checkpoint is None:
        return ""
    return f" ({head.status.value}, step {head.checkpoint.step})"
