"""Which checkpoints stay, and the deletion of those that a successful head write has dropped."""

from collections.abc import Iterable, Sequence

from job.run.head import CheckpointRef, Head
from job.run.layout import MANIFEST, blob_name, parse_checkpoint_folder
from job.storage import Bucket


def kept_after(
    kept: Sequence[CheckpointRef],
    new: CheckpointRef,
    *,
    keep_last: int,
    keep_every_steps: int | None,
    best: CheckpointRef | None = None,
) -> tuple[CheckpointRef, ...]:
    """What head shall keep once `new` is its newest: newest first; pure.

    The `keep_last` newest steps, every step that `keep_every_steps` divides, and the best by evaluation. A
    checkpoint of the same step as `new` is superseded by it.
    """
    assert keep_last >= 2, "restore needs one to fall back to"
    older = [ref for ref in kept if ref.step != new.step]
    stays = {ref.folder for ref in older[: keep_last - 1]}
    if keep_every_steps is not None:
        stays |= {ref.folder for ref in older if ref.step > 0 and ref.step % keep_every_steps == 0}
    if best is not None:
        stays.add(best.folder)
    return (new, *(ref for ref in older if ref.folder in stays))


def delete_dropped(bucket: Bucket, dropped: Sequence[CheckpointRef], kept: Iterable[CheckpointRef]) -> None:
    """Deletes checkpoints that the owner's own successful head write has dropped, their MANIFEST first.

    Then their blobs that none of `kept`, which that write left, has. Raises Transient; what is left then is garbage.
    """
    for ref in dropped:
        delete_folder(bucket, ref.folder)
    for sha256 in {s for ref in dropped for s in ref.blobs} - {s for ref in kept for s in ref.blobs}:
        bucket.delete(blob_name(sha256))


def delete_folder(bucket: Bucket, folder: str) -> None:
    """Deletes one checkpoint that head does not list."""
    bucket.delete(f"{folder}/{MANIFEST}")
    for info in bucket.list(f"{folder}/"):
        bucket.delete(info.name)


def garbage(head: Head, names: Iterable[str]) -> list[str]:
    """Folders, of the objects `names` under checkpoints/, that nobody will ever need; pure.

    Not kept, and of an attempt below head's: what head's own attempt is writing now is not listed by head
    either.
    """
    kept = {ref.folder for ref in head.kept}
    folders = {"/".join(name.split("/")[:2]) for name in names} - kept
    return sorted(f for f in folders if (parsed := parse_checkpoint_folder(f)) and parsed[1] < head.attempt)
