"""From the newest good checkpoint in the bucket into the agent's shared memory, verified, without a file on disk."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from job.agent.snapshots import ScoredBatch, SlotTable, Snapshot
from job.agent.trainer import split_scored
from job.agent.uploader import EXTRA, META, REFERENCE, SCORED, SCORED_META, STATE
from job.arena import TensorIndex, align, parse_safetensors_header
from job.checkpoint.restore import Quarantined, restore_newest
from job.errors import NeedsPerson
from job.run.attempt import ResumedFrom
from job.run.head import CheckpointRef, Head, Owner, Status, read_head
from job.storage import Bucket


@dataclass(frozen=True)
class Restored:
    """What the trainer goes on from."""

    snapshot: Snapshot | None
    """In a slot of the table; None for a run without a checkpoint."""
    named: CheckpointRef | None
    """The checkpoint that head named when this was read."""
    kept: tuple[CheckpointRef, ...] = ()
    """What head shall keep from now on."""
    quarantined: tuple[Quarantined, ...] = ()
    """Checkpoints and additions that head lists and that turned out bad."""

    def resumed_from(self, before: Head | None, reached_step: int | None) -> ResumedFrom | None:
        """What attempt.json says of it. Lost are the steps that the owner before told of and that were not durable."""
        if self.snapshot is None or self.snapshot.written is None:
            return None
        orderly = before is not None and before.status in (Status.RELEASED, Status.WAITING, Status.FINISHING)
        lost_steps = 0 if orderly or reached_step is None else max(0, reached_step - self.snapshot.step)
        written = self.snapshot.written
        return ResumedFrom(
            step=self.snapshot.step,
            folder=written.folder,
            manifest_sha256=written.manifest_sha256,
            lost_steps=lost_steps,
            orderly=orderly,
        )

    def drop_bad(self, owner: Owner) -> None:
        """Takes what turned out bad out of head."""
        if self.quarantined:
            owner.publish(kept=self.kept, quarantined={bad.folder for bad in self.quarantined})


def restore(bucket: Bucket, head: Head | None, table: SlotTable) -> Restored:
    """Brings back the newest good checkpoint that head lists.

    Raises NeedsPerson (exit 3) when head lists some and none is good.
    """
    while True:
        try:
            return _restore(bucket, head, table)
        except NeedsPerson:
            # Until this attempt takes over, the owner before may go on: it deletes what its own newer head dropped.
            now = read_head(bucket)
            if now == head:
                raise
            head = now


def _restore(bucket: Bucket, head: Head | None, table: SlotTable) -> Restored:
    if head is None or head.checkpoint is None:
        return Restored(None, None)
    slot = table.slot_to_fill()
    buffers: dict[str, memoryview] = {}
    offsets: dict[str, int] = {}

    def allocate(name: str, size_bytes: int) -> memoryview:
        if name not in (STATE, REFERENCE):
            memory = memoryview(bytearray(size_bytes))
        else:
            offsets.pop(name, None)  # of a checkpoint that turned out bad
            at = align(max((offset + len(buffers[other]) for other, offset in offsets.items()), default=0))
            offsets[name], memory = at, table.slots[slot].view(at + size_bytes)[at:]
        buffers[name] = memory
        return memory

    found = restore_newest(bucket, head, allocate)
    scored: tuple[ScoredBatch, ...] = ()
    if found.addition is not None:
        scored = split_scored(json.loads(bytes(buffers[SCORED_META])), bytes(buffers[SCORED]))
    meta = json.loads(bytes(buffers[META]))
    snapshot = Snapshot(
        slot=slot,
        index=_index({offset: buffers[name] for name, offset in offsets.items() if name in found.manifest.files}),
        extra=bytes(buffers[EXTRA]),
        meta=meta,
        step=meta["global_step"],
        scored=scored,
        written=found.checkpoint.model_copy(update={"addition": None, "addition_crc32c": None}),
        durable=scored,
    )
    return Restored(snapshot, head.checkpoint, found.kept, found.quarantined)


def _index(files: Mapping[int, memoryview]) -> TensorIndex:
    """Where the tensors of safetensors files lie in a slot, by the offsets of the files in it."""
    return {
        name: replace(tensor, offset=offset + tensor.offset)
        for offset, file in files.items()
        for name, tensor in parse_safetensors_header(file).items()
    }
