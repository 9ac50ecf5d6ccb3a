"""Saves a checkpoint: files, then MANIFEST.json, each created once. Head makes it the newest."""

import hashlib
import mmap
import secrets
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from job.checkpoint.manifest import Manifest, ManifestFile, Parent
from job.errors import Transient
from job.run.head import CheckpointRef
from job.run.layout import MANIFEST, checkpoint_folder
from job.storage import Bucket, Buffer, Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.chunks import chunks, crc32c, size_bytes

NONCE_BYTES = 4


def save_checkpoint(
    bucket: Bucket,
    *,
    step: int,
    attempt: int,
    incarnation: int,
    fingerprint: str,
    files: Mapping[str, Buffer | Sequence[Buffer]],
    sha256: bool,
    parent: CheckpointRef | None = None,
    shared: Mapping[str, ManifestFile] = MappingProxyType({}),
) -> CheckpointRef:
    """Writes the files of a checkpoint and their MANIFEST; the reference is for `Owner.publish`. `shared` ones are
    files of it too that lie in blobs/ (`save_shared`).

    Killed anywhere before that, nothing has changed. Raises Transient: call it again, it takes another
    folder.
    """
    folder = checkpoint_folder(step, attempt, secrets.token_hex(NONCE_BYTES))
    manifest = Manifest(
        step=step,
        attempt=attempt,
        incarnation=incarnation,
        fingerprint=fingerprint,
        parent=None if parent is None else Parent(folder=parent.folder, manifest_sha256=parent.manifest_sha256),
        files={**_write_files(bucket, folder, files, sha256), **shared},
    )
    crc, sha = _write_manifest(bucket, folder, manifest)
    return CheckpointRef(
        folder=folder,
        step=step,
        attempt=attempt,
        manifest_crc32c=crc,
        manifest_sha256=sha,
        blobs=tuple(sorted(file.sha256 for file in shared.values() if file.sha256 is not None)),
    )


def save_shared(bucket: Bucket, data: Sequence[Buffer]) -> ManifestFile:
    """Writes a file that many checkpoints have to blobs/, unless it lies there whole. Raises Transient."""
    digest = hashlib.sha256()
    for chunk in chunks(data):
        digest.update(chunk)
    file = ManifestFile(size_bytes=size_bytes(data), crc32c=crc32c(data), sha256=digest.hexdigest(), blob=True)
    name = file.path("", "")
    there = bucket.stat(name)
    if there is not None and _is(bucket, there, file):
        return file
    try:  # over one that is damaged: its name says what its bytes have to be
        bucket.write(name, data, if_generation=0 if there is None else there.generation)
    except PreconditionFailed:
        raise Transient(f"{bucket.uri}/{name} was written by somebody else meanwhile.", fix="Try again.") from None
    return file


def _is(bucket: Bucket, there: ObjectInfo, file: ManifestFile) -> bool:
    """Whether an object has the file's bytes, by its checksum; a folder keeps none, so it is read."""
    if there.size_bytes != file.size_bytes:
        return False
    if there.crc32c is not None:
        return there.crc32c == file.crc32c
    with mmap.mmap(-1, max(1, file.size_bytes)) as memory, memoryview(memory)[: file.size_bytes] as view:
        try:
            return bucket.read_into(there.name, view).crc32c == file.crc32c
        except (NotFound, ValueError):
            return False


def save_addition(
    bucket: Bucket,
    ref: CheckpointRef,
    files: Mapping[str, Buffer | Sequence[Buffer]],
    *,
    sha256: bool,
    incarnation: int = 0,
) -> CheckpointRef:
    """Writes what was made after the checkpoint's step into a fresh folder inside its own.

    Returns the reference with this addition in place of an earlier one. Raises Transient as `save_checkpoint`
    does.
    """
    addition = f"scored-{secrets.token_hex(NONCE_BYTES)}"
    folder = f"{ref.folder}/{addition}"
    manifest = Manifest(
        step=ref.step,
        attempt=ref.attempt,
        incarnation=incarnation,
        fingerprint="",
        files=_write_files(bucket, folder, files, sha256),
    )
    crc, _ = _write_manifest(bucket, folder, manifest)
    return ref.model_copy(update={"addition": addition, "addition_crc32c": crc})


def _write_files(
    bucket: Bucket, folder: str, files: Mapping[str, Buffer | Sequence[Buffer]], sha256: bool
) -> dict[str, ManifestFile]:
    written = {}
    for name, data in files.items():
        hashing = _Hashing(data) if sha256 else None
        info = _create(bucket, f"{folder}/{name}", data)
        assert info.crc32c is not None
        written[name] = ManifestFile(
            size_bytes=info.size_bytes, crc32c=info.crc32c, sha256=hashing.hexdigest() if hashing else None
        )
    return written


def _write_manifest(bucket: Bucket, folder: str, manifest: Manifest) -> tuple[int, str]:
    """(crc32c, sha256) of what is written."""
    data = manifest.to_bytes()
    crc = _create(bucket, f"{folder}/{MANIFEST}", data).crc32c
    assert crc is not None
    return crc, hashlib.sha256(data).hexdigest()


def _create(bucket: Bucket, name: str, data: Data) -> ObjectInfo:
    try:
        return bucket.write(name, data, if_generation=0)
    except PreconditionFailed:
        # Nobody else uses the folder: the network has doubled the request, and answered the second.
        raise Transient(f"{bucket.uri}/{name} was there before it was written.", fix="Try again.") from None


class _Hashing:
    """The sha256 of what is being written, in a thread beside it: a bucket that has them all sends parts at once."""

    def __init__(self, data: Buffer | Sequence[Buffer]) -> None:
        self._data, self._digest = data, hashlib.sha256()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sha256")
        self._thread.start()

    def hexdigest(self) -> str:
        """Waits for the end."""
        self._thread.join()
        return self._digest.hexdigest()

    def _run(self) -> None:
        for chunk in chunks(self._data):
            self._digest.update(chunk)
