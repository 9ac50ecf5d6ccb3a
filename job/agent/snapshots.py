"""The snapshots that the agent holds in shared memory, and which slot may be filled next."""

import threading
from dataclasses import dataclass, field
from typing import Any

from job.arena import Slot, TensorIndex
from job.run.head import CheckpointRef
from job.settings import Settings

MOST_SLOTS = 3  # filling, newest, writing


def slots_for(settings: Settings) -> int:
    """How many copies of the state are held: with the whole model in a snapshot a third costs too much memory."""
    return settings.checkpoint.slots or (MOST_SLOTS if settings.lora.enabled else 2)


@dataclass(frozen=True)
class ScoredBatch:
    """A generation batch that was generated and scored after the boundary: an addition to its checkpoint."""

    micro_step: int
    blob: bytes
    """A safetensors file."""
    meta: dict[str, Any]


@dataclass
class Snapshot:
    """The trainer's whole state at one step boundary, in a slot, and what was scored since."""

    slot: int
    index: TensorIndex
    extra: bytes
    meta: dict[str, Any]
    step: int
    scored: tuple[ScoredBatch, ...] = ()
    written: CheckpointRef | None = None
    """Its folder in the bucket, without additions, once that is complete."""
    durable: tuple[ScoredBatch, ...] | None = None
    """The scored batches that head covers; None as long as head does not name this snapshot at all."""

    def is_durable(self) -> bool:
        """Whether head names all of it."""
        return self.durable == self.scored


@dataclass
class SlotTable:
    """Which slot holds what. Every method may be called from any thread.

    Three slots: one is filled, one holds the newest complete snapshot, one is being written. With two, the newest is
    overwritten while the other is written: a trainer killed during that copy falls back to the one being written.
    """

    slots: list[Slot]
    newest: Snapshot | None = None
    writing: Snapshot | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def slot_to_fill(self) -> int:
        """The slot for the next snapshot; whatever it held is gone from now on."""
        with self.changed:
            held = [s.slot for s in (self.newest, self.writing) if s is not None]
            free = [i for i in range(len(self.slots)) if i not in held]
            if not free:
                assert self.newest is not None
                assert self.newest is not self.writing
                free, self.newest = [self.newest.slot], self.writing
            return free[0]

    def has_spare(self) -> bool:
        """Whether a slot can always be filled without giving up a snapshot."""
        return len(self.slots) >= MOST_SLOTS

    def publish(self, snapshot: Snapshot) -> None:
        """The slot being filled is complete: it is the newest from now on."""
        with self.changed:
            self.newest = snapshot
            self.changed.notify_all()

    def publish_scored(self, scored: tuple[ScoredBatch, ...]) -> None:
        """All batches scored since the newest boundary."""
        with self.changed:
            assert self.newest is not None
            self.newest.scored = scored
            self.changed.notify_all()

    def begin_writing(self) -> tuple[Snapshot, tuple[ScoredBatch, ...]] | None:
        """The newest snapshot, where head does not name all of it; its slot is not filled until `end_writing`."""
        with self.changed:
            if self.newest is None or self.newest.is_durable():
                return None
            self.writing = self.newest
            return self.newest, self.newest.scored

    def end_writing(self) -> None:
        """The slot being written may be filled again, unless it holds the newest."""
        with self.changed:
            self.writing = None
