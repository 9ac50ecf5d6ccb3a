"""Head: who owns the run and which checkpoint is its newest. Its owner writes it, by compare-and-swap."""

import secrets
import threading
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from job.errors import Fenced, UsageError
from job.run.layout import HEAD
from job.run.records import Record, transient_retry
from job.storage import Bucket, PreconditionFailed

TAKE_OVER_TRIES = 20
"""The owner before may publish between our look and our write, once a step."""


class Status(StrEnum):
    """What the owner says of the run. That it is stopped or has failed is said in claims.json instead."""

    RUNNING = "running"
    RELEASED = "released"
    """Orderly exit: a successor may take over at once."""
    WAITING = "waiting"
    """An outside service is down; no machine is held."""
    FINISHING = "finishing"
    """Trained to the end; result/ derives from the checkpoint that head names."""
    FINISHED = "finished"


class Waiting(Record):
    """Why nothing goes on, and until when."""

    until_s: float
    """Seconds since the epoch."""
    why: str


class CheckpointRef(Record):
    """One checkpoint, and what its MANIFEST.json must be."""

    folder: str
    step: int = Field(ge=0)
    attempt: int = Field(ge=1)
    manifest_crc32c: int
    manifest_sha256: str | None = None
    """For whoever quotes it or follows the run's lineage; restore goes by the crc32c."""
    addition: str | None = None
    """Folder, inside the checkpoint's, of what was scored after its step."""
    addition_crc32c: int | None = None
    """Of the addition's MANIFEST.json."""
    blobs: tuple[str, ...] = ()
    """sha256 of its files that lie in blobs/: they go when the last checkpoint goes that has them."""


class Head(Record):
    """The run's one pointer. What it names is durable."""

    attempt: int = Field(ge=1)
    incarnation: int = Field(ge=0)
    status: Status
    waiting: Waiting | None = None
    """Set while the status is `waiting`, and only then."""
    checkpoint: CheckpointRef | None = None
    """The newest of `kept`; None before the first."""
    kept: tuple[CheckpointRef, ...] = ()
    """Newest first. Restore looks at nothing else."""
    write_id: str
    """Random in every write: after a lost reply it tells whether the write was mine."""
    fingerprint: str = ""
    """Of the settings that the owner trains by."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.checkpoint != (self.kept[0] if self.kept else None):
            raise ValueError("checkpoint is not the first of kept")
        if (self.status is Status.WAITING) != (self.waiting is not None):
            raise ValueError("`waiting` goes with the status waiting, and only with it")
        return self

    @property
    def owner(self) -> tuple[int, int]:
        """(attempt, incarnation)."""
        return self.attempt, self.incarnation


def read_head(bucket: Bucket) -> Head | None:
    """What head says, None for a run that nobody has begun."""
    found = Head.read(bucket, HEAD)
    return None if found is None else found[0]


class Owner:
    """The right to write head, from taking it over until somebody newer does. Threads that publish take turns."""

    def __init__(self, bucket: Bucket, head: Head, generation: int) -> None:
        self.head = head
        """As this owner wrote it last."""
        self._bucket = bucket
        self._generation = generation
        self._uncertain: set[str] = set()
        """write_ids of this owner's writes whose reply was lost."""
        self._publishing = threading.Lock()

    @classmethod
    def take_over(
        cls, bucket: Bucket, attempt: int, incarnation: int | None = None, *, fingerprint: str = ""
    ) -> "Owner":
        """Makes (attempt, incarnation) the owner. `incarnation` None: the next one of that attempt.

        The checkpoints stay, and so does `finishing`. Raises Fenced unless (attempt, incarnation) is greater
        than the owner's, UsageError for a run that is finished.
        """
        for _ in range(TAKE_OVER_TRIES):
            found = Head.read(bucket, HEAD)
            before, generation = (None, 0) if found is None else (found[0], found[1].generation)
            owner = cls(bucket, _taken_over(bucket.uri, before, attempt, incarnation, fingerprint), generation)
            try:
                owner._write(owner.head)
            except Fenced:  # the owner before published meanwhile; whoever is newer is found by looking again
                continue
            return owner
        raise Fenced(f"others keep changing {bucket.uri}/{HEAD}; attempt {attempt} did not get it.")

    def publish(
        self,
        *,
        status: Status | None = None,
        checkpoint: CheckpointRef | None = None,
        kept: Sequence[CheckpointRef] | None = None,
        waiting: Waiting | None = None,
        quarantined: Collection[str] = (),
    ) -> tuple[CheckpointRef, ...]:
        """Writes head; what is not given stays. Returns the checkpoints that this write dropped from `kept`.

        `kept` None: the new checkpoint and all before it. The step falls only when `quarantined` names the
        folder of the newest checkpoint, and those are not among the dropped: their bytes stay for whoever
        looks into it. Raises Fenced when another owner has written: nothing was changed. Raises Transient
        when it is not known whether the write arrived; the next publish finds out.
        """
        with self._publishing:
            if kept is None:
                others = self.head.kept if checkpoint is None else _without(self.head.kept, checkpoint.folder)
                kept = others if checkpoint is None else (checkpoint, *others)
            assert checkpoint is None or (kept and kept[0] == checkpoint), "a new checkpoint is the first of kept"
            before = self.head.checkpoint
            if before is not None and (not kept or kept[0].step < before.step):
                assert before.folder in quarantined, "head's step falls only when its checkpoint is quarantined"
            status = status or self.head.status
            head = Head(
                attempt=self.head.attempt,
                incarnation=self.head.incarnation,
                status=status,
                waiting=(waiting or self.head.waiting) if status is Status.WAITING else None,
                checkpoint=kept[0] if kept else None,
                kept=tuple(kept),
                write_id=secrets.token_hex(8),
                fingerprint=self.head.fingerprint,
            )
            held = self.head.kept
            self._write(head)
            stays = {ref.folder for ref in kept} | set(quarantined)
            return tuple(ref for ref in held if ref.folder not in stays)

    def confirm(self) -> None:
        """Looks whether head is still this owner's. Raises Fenced."""
        with self._publishing:
            found = transient_retry()(Head.read, self._bucket, HEAD)
            if found is None or found[0].owner != self.head.owner:
                raise self._fenced(None if found is None else found[0])

    def _write(self, head: Head) -> None:
        """Swaps head, however often replies are lost. Raises Fenced."""

        def once() -> int:
            try:
                return self._bucket.write(HEAD, head.to_bytes(), if_generation=self._generation).generation
            except PreconditionFailed:
                return self._look_again(head.write_id)

        self._uncertain.add(head.write_id)
        while (generation := transient_retry()(once)) == 0:
            continue
        self.head, self._generation = head, generation
        self._uncertain.clear()

    def _look_again(self, write_id: str) -> int:
        """The generation of that write if head holds it, 0 when it has to be tried again. Raises Fenced."""
        found = Head.read(self._bucket, HEAD)
        if found is not None and found[0].write_id in self._uncertain:
            if found[0].write_id == write_id:
                return found[1].generation
            # A write before this one had arrived after all, its reply was lost.
            self._uncertain.discard(found[0].write_id)
            self._generation = found[1].generation
            return 0
        raise self._fenced(None if found is None else found[0])

    def _fenced(self, newer: Head | None) -> Fenced:
        owner = "nobody" if newer is None else f"attempt {newer.attempt}.{newer.incarnation}"
        return Fenced(
            f"{owner} owns {self._bucket.uri}; this is attempt {self.head.attempt}.{self.head.incarnation}.",
            fix="Nothing was changed, nothing is to be done: the other attempt goes on.",
        )


def _taken_over(uri: str, before: Head | None, attempt: int, incarnation: int | None, fingerprint: str) -> Head:
    """The head that a new owner writes; pure but for its write_id. Raises Fenced, UsageError."""
    if before is None:
        return Head(
            attempt=attempt,
            incarnation=incarnation or 0,
            status=Status.RUNNING,
            write_id=secrets.token_hex(8),
            fingerprint=fingerprint,
        )
    if incarnation is None:
        incarnation = before.incarnation + 1 if before.attempt == attempt else 0
    if (attempt, incarnation) <= before.owner:
        raise Fenced(
            f"attempt {before.attempt}.{before.incarnation} owns {uri}; this is {attempt}.{incarnation}.",
            fix="Nothing was changed, nothing is to be done: the newer attempt goes on.",
        )
    if before.status is Status.FINISHED:
        raise UsageError(f"the run {uri} is finished.", fix="Its result is in result/.")
    return before.model_copy(
        update={
            "attempt": attempt,
            "incarnation": incarnation,
            "status": Status.FINISHING if before.status is Status.FINISHING else Status.RUNNING,
            "waiting": None,
            "write_id": secrets.token_hex(8),
            "fingerprint": fingerprint or before.fingerprint,
        }
    )


def _without(kept: Sequence[CheckpointRef], folder: str) -> tuple[CheckpointRef, ...]:
    return tuple(ref for ref in kept if ref.folder != folder)
