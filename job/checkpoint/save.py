"""Saves a checkpoint: files, then MANIFEST.json, each created once. Head makes it the newest."""

import hashlib
import secrets
import threading
from collections.abc import Mapping, Sequence

from job.checkpoint.manifest import Manifest, ManifestFile, Parent
from job.errors import Transient
from job.run.head import CheckpointRef
from job.run.layout import MANIFEST, checkpoint_folder
from job.storage import Bucket, Buffer, Data, ObjectInfo, PreconditionFailed
from job.storage.chunks import chunks

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
) -> CheckpointRef:
    """Writes the files of a checkpoint and their MANIFEST; the reference is for `Owner.publish`.

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
        files=_write_files(bucket, folder, files, sha256),
    )
    crc, sha = _write_manifest(bucket, folder, manifest)
    return CheckpointRef(folder=folder, step=step, attempt=attempt, manifest_crc32c=crc, manifest_sha256=sha)


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
