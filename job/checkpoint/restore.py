"""Restores the newest good checkpoint that head lists; every checksum is checked before parsing."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import ValidationError

from job.checkpoint.manifest import Manifest, ManifestFile
from job.errors import NeedsPerson
from job.run.head import CheckpointRef, Head
from job.run.layout import MANIFEST
from job.run.records import transient_retry
from job.storage import Bucket, NotFound
from job.storage.chunks import crc32c

READERS = 4

Allocate = Callable[[str, int], memoryview]
"""Called with a file's name and size in bytes, before it is read; returns where its bytes shall go."""


@dataclass(frozen=True)
class Quarantined:
    """A checkpoint, or an addition to one, that turned out bad."""

    folder: str
    """Of the checkpoint; of the addition when only that is bad."""
    step: int
    reason: str


@dataclass(frozen=True)
class Restored:
    """A checkpoint whose bytes lie, verified, in the buffers that the caller allocated."""

    checkpoint: CheckpointRef
    """Without its addition when that one was bad."""
    kept: tuple[CheckpointRef, ...]
    """What head shall keep from now on: this one and those before it."""
    manifest: Manifest
    addition: Manifest | None
    quarantined: tuple[Quarantined, ...]
    """Newest first; each is worth an event."""


class Bad(Exception):
    """Why a checkpoint, or a file of it, cannot be used."""


def restore_newest(bucket: Bucket, head: Head, allocate: Allocate) -> Restored:
    """Brings back the newest good checkpoint of `head.kept`, which must not be empty, with its addition.

    Raises NeedsPerson when none is good: a run never starts again from step 0 by itself. Raises Transient
    when the bucket fails, which says nothing about a checkpoint. Buffers of a checkpoint that turned out bad
    are useless.
    """
    assert head.kept, "nothing to restore: a fresh start"
    quarantined: list[Quarantined] = []
    for position, ref in enumerate(head.kept):
        try:
            manifest = _bring(bucket, ref, ref.folder, ref.manifest_crc32c, allocate)
        except Bad as bad:
            quarantined.append(Quarantined(ref.folder, ref.step, str(bad)))
            continue
        addition = None
        if ref.addition is not None and ref.addition_crc32c is not None:
            folder = f"{ref.folder}/{ref.addition}"
            try:
                addition = _bring(bucket, ref, folder, ref.addition_crc32c, allocate)
            except Bad as bad:
                quarantined.append(Quarantined(folder, ref.step, str(bad)))
                ref = ref.model_copy(update={"addition": None, "addition_crc32c": None})
        return Restored(ref, (ref, *head.kept[position + 1 :]), manifest, addition, tuple(quarantined))
    raise NeedsPerson(_none_good(bucket.uri, quarantined), fix=_WAY_OUT)


_WAY_OUT = "Put the right bytes back (a copy of the bucket, its older object versions), or start another run."


def _none_good(uri: str, quarantined: Sequence[Quarantined]) -> str:
    listed = "; ".join(f"{bad.folder}: {bad.reason}" for bad in quarantined)
    return f"no checkpoint of {uri} is good: {listed}."


def _bring(bucket: Bucket, ref: CheckpointRef, folder: str, manifest_crc32c: int, allocate: Allocate) -> Manifest:
    """Reads a MANIFEST and its files, largest first, several at once. Raises Bad."""
    manifest = read_manifest(bucket, folder, manifest_crc32c)
    if (manifest.step, manifest.attempt) != (ref.step, ref.attempt):
        raise Bad(f"{MANIFEST} is of step {manifest.step} by attempt {manifest.attempt}")
    largest_first = sorted(manifest.files.items(), key=lambda item: -item[1].size_bytes)
    buffers = [allocate(name, file.size_bytes) for name, file in largest_first]
    with ThreadPoolExecutor(READERS, thread_name_prefix="restore") as pool:
        reads = [
            pool.submit(transient_retry(), read_file, bucket, file.path(folder, name), name, file, buffer)
            for (name, file), buffer in zip(largest_first, buffers, strict=True)
        ]
    for read in reads:
        read.result()
    return manifest


def read_manifest(bucket: Bucket, folder: str, wanted_crc32c: int) -> Manifest:
    """The MANIFEST in a folder. Raises Bad unless it is the one that head names."""
    try:
        data, _ = transient_retry()(bucket.read, f"{folder}/{MANIFEST}")
    except NotFound:
        raise Bad(f"{MANIFEST} is missing") from None
    if crc32c(data) != wanted_crc32c:
        raise Bad(f"{MANIFEST} is not the one that head names (crc32c)")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise Bad(f"{MANIFEST} cannot be understood: {error.errors()[0]['msg']}") from None


def read_file(bucket: Bucket, path: str, name: str, file: ManifestFile, buffer: memoryview) -> None:
    """Reads a file into a buffer of its size. Raises Bad unless its bytes are those that the MANIFEST names."""
    try:
        info = bucket.read_into(path, buffer)
    except NotFound:
        raise Bad(f"{name} is missing") from None
    except ValueError:
        raise Bad(f"{name} does not have {file.size_bytes} bytes") from None
    if info.crc32c != file.crc32c:
        raise Bad(f"{name} has other bytes (crc32c)")
    if file.sha256 is not None and hashlib.sha256(buffer).hexdigest() != file.sha256:
        raise Bad(f"{name} has other bytes (sha256)")
