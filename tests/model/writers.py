"""What a writer can do, each by production code: begin an attempt, save, prune, look, finish; stop and resume."""

import atexit
import functools
import math
import struct
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from job.agent.claiming import claim, is_left_to_do
from job.agent.journal import Journal
from job.agent.restoring import Restored, restore
from job.agent.result import publish_result
from job.agent.snapshots import ScoredBatch, SlotTable, Snapshot
from job.agent.uploader import Uploader, UploadPolicy
from job.arena import TensorSpec
from job.run.claims import Claim, Claims, Want, refuse_unwanted, update_claims
from job.run.head import CheckpointRef, Head, Owner, Status, read_head
from job.run.heartbeat import Heartbeats

from .stepping import Operation, Outcome, Port

LAST_STEP = 9
"""The run is trained to the end by then."""
POLICY = UploadPolicy(
    fingerprint="f", keep_last=2, keep_every_steps=None, cores=2, trainer_threads=1, machine_usd_per_hour=1.0
)
INDEX = {"w": TensorSpec("I64", (4,), 0, 32)}


@dataclass(frozen=True)
class Owning:
    """What the process that took the run over remembers."""

    life: int
    """Tells it from the processes before it on this machine."""
    head: Head
    generation: int
    uncertain: frozenset[str]
    step: int
    """Trained so far."""
    scored: int
    """Batches scored after that step."""
    written: CheckpointRef | None
    """Of that step, once its folder is complete."""
    durable: int | None
    """How many of the scored batches head covers; None: not even the step."""
    spare: frozenset[str]
    """Folders that were found bad."""


@dataclass(frozen=True, eq=False)
class Writer:
    """A machine between two operations, and the process on it, if one lives that took the run over.

    Compared by identity, which is fast: `Model.writer` gives the one object for equal keys.
    """

    slot: int
    """Which machine."""
    kind: str = "process"
    """`vm`: its number is claimed for it, and it starts again with the same."""
    number: int | None = None
    """What is claimed for a vm."""
    operations: int = 0
    """Begun on this machine so far."""
    owning: Owning | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for writers that will do the same."""
        return self.slot, self.kind, self.number, self.operations, self.owning

    @property
    def by(self) -> int:
        """The process that acts."""
        return self.slot * 1000 + (self.operations if self.owning is None else self.owning.life)

    def dead(self, *, for_good: bool = False) -> "Writer":
        """After the process's end; a vm that ended for good is not started again with its number."""
        return Writer(self.slot, self.kind, None if for_good else self.number, self.operations)

    def able_to(self) -> tuple[str, ...]:
        """The operations that make sense now."""
        if self.owning is None:
            return ("begin", "look", "stop", "resume")
        trains = ("save",) if self.owning.step < LAST_STEP - 1 else ()
        scores = ("score",) if self.owning.step and self.owning.scored < 2 else ()
        return (*trains, *scores, "prune", "finish", "stop", "resume")


class Memory:
    """A slot of the arena."""

    def __init__(self) -> None:
        self.bytes = bytearray(512)

    def view(self, size_bytes: int) -> memoryview:
        """The first bytes."""
        return memoryview(self.bytes)[:size_bytes]


@functools.cache
def weights(step: int) -> bytes:
    """What training has made of the model after a step: bit for bit the same, whoever trains."""
    return struct.pack("<4q", *(step * 1_000_003 + k for k in range(1, 5)))


def snapshot(step: int, scored: int = 0) -> Snapshot:
    """What the trainer would copy into slot 0."""
    batches = tuple(ScoredBatch(n, f"scored {n} after {step}".encode(), {}) for n in range(scored))
    return Snapshot(0, INDEX, f"extra {step}".encode(), {"global_step": step}, step, batches)


@functools.cache
def result_folder(step: int) -> Path:
    """What the trainer leaves when it is finished; removed at exit."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    (Path(folder.name) / "weights").write_bytes(weights(step))
    return Path(folder.name)


class Process:
    """A writer's process for one operation: the agent's own objects, on the model's bucket."""

    def __init__(self, port: Port, writer: Writer) -> None:
        self.port, self.writer = port, writer
        self.table = SlotTable([Memory(), Memory(), Memory()])  # type: ignore[list-item]
        if (owning := writer.owning) is not None:
            self.owner = Owner(port, owning.head, owning.generation)
            self.owner._uncertain |= owning.uncertain
            self.uploader = Uploader(port, self.owner, self.table, POLICY, Journal(), lambda: None)
            self.uploader.last_step, self.uploader._spare = LAST_STEP, owning.spare
            if owning.step:
                self.train_to(owning.step, owning.scored)
                assert self.table.newest is not None
                self.table.newest.written = owning.written
                if owning.durable is not None:
                    self.table.newest.durable = self.table.newest.scored[: owning.durable]

    def train_to(self, step: int, scored: int = 0) -> None:
        """The trainer's part: the newest snapshot is of this step."""
        self.table.slots[0].view(32)[:] = weights(step)
        self.table.publish(snapshot(step, scored))

    def upload(self) -> None:
        """A turn of the uploader's thread."""
        self.uploader._retry(self.uploader._upload_newest)

    def flush(self, status: Status | None) -> None:
        """The last turn of it."""
        self.uploader.stop(status=status, give_up_s=lambda: math.inf)
        self.upload()
        self.uploader._retry(self.uploader._publish_final_status)

    def hears_stop(self) -> bool:
        """A turn of the heartbeat's thread."""
        heard: list[Want] = []
        Heartbeats(
            self.port,
            self.owner.head.attempt,
            self.owner.head.incarnation,
            interval_s=10,
            on_want=lambda want, reason: heard.append(want),
            on_trouble=lambda text: None,
            phase="train",
        )._turn()
        return bool(heard)

    def between(self, spare: frozenset[str]) -> Writer:
        """The writer, once nothing is under way."""
        newest = self.table.newest
        owning = Owning(
            self.writer.by - self.writer.slot * 1000,
            self.owner.head,
            self.owner._generation,
            frozenset(self.owner._uncertain),
            0 if newest is None else newest.step,
            0 if newest is None else len(newest.scored),
            None if newest is None else newest.written,
            None if newest is None or newest.durable is None else len(newest.durable),
            spare,
        )
        return replace(self.writer, owning=owning)


def begin(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """The start of an attempt, as in job/agent/attempt.py: restore, look again, claim, drop what is bad."""
    if writer.kind == "vm" and writer.number is None:  # its watchdog's part
        claimed = update_claims(port, _claim_for_vm).newest
        assert claimed is not None
        writer = replace(writer, number=claimed.number)
    head = read_head(port)
    process = Process(port, writer)
    restored = restore(port, head, process.table)
    turn = claim(port, writer.number, "f") if is_left_to_do(port, writer.number) else None
    if turn is None:
        return writer.dead(for_good=True), Outcome("finished")
    process.owner = turn.owner
    if process.owner.head.checkpoint != restored.named:
        restored = restore(port, process.owner.head, process.table)
    process.table.newest = restored.snapshot
    restored.drop_bad(process.owner)
    return process.between(frozenset(bad.folder for bad in restored.quarantined)), _found(process, restored)


def look(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """Restores without taking over, while others go on."""
    process = Process(port, writer)
    return writer, _found(process, restore(port, read_head(port), process.table))


def save(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """A heartbeat, then the next step and its checkpoint; told to stop, the attempt releases the run instead."""
    return _go_on(port, writer, 1, 0)


def score(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """The same with a batch that was scored after the newest step."""
    return _go_on(port, writer, 0, 1)


def _go_on(port: Port, writer: Writer, steps: int, scored: int) -> tuple[Writer, Outcome]:
    process, owning = Process(port, writer), writer.owning
    assert owning is not None
    if process.hears_stop():
        process.flush(Status.RELEASED if process.owner.head.status is Status.RUNNING else None)
        return writer.dead(for_good=True), Outcome("released", step=owning.step)
    if steps:
        process.train_to(owning.step + steps)
    else:
        process.table.publish_scored(snapshot(owning.step, owning.scored + scored).scored)
    process.upload()
    return process.between(owning.spare), Outcome("ok", step=owning.step + steps)


def prune(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """What a new owner does once: it deletes what dead attempts left behind."""
    process = Process(port, writer)
    process.uploader._collect_garbage()
    assert writer.owning is not None
    return process.between(writer.owning.spare), Outcome("ok")


def finish(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """The last step, `finishing`, result/, `finished`."""
    process = Process(port, writer)
    assert writer.owning is not None
    if writer.owning.step < LAST_STEP:
        process.train_to(LAST_STEP)
    process.flush(Status.FINISHING)
    checkpoint = process.owner.head.checkpoint
    assert checkpoint is not None
    publish_result(port, process.owner, result_folder(LAST_STEP), checkpoint, lambda line: None)
    process.owner.publish(status=Status.FINISHED)
    return writer.dead(for_good=True), Outcome("finished", step=LAST_STEP)


def stop(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """A person, or the cap, wants no more of it."""
    update_claims(port, lambda claims: claims.model_copy(update={"want": "stop", "reason": "enough"}))
    return writer, Outcome("ok")


def resume(port: Port, writer: Writer) -> tuple[Writer, Outcome]:
    """A person wants it to go on."""
    update_claims(port, lambda claims: claims.model_copy(update={"want": "run", "reason": None}))
    return writer, Outcome("ok")


OPERATIONS: dict[str, Operation] = {
    work.__name__: work for work in (begin, save, score, prune, look, finish, stop, resume)
}


def _claim_for_vm(claims: Claims) -> Claims:
    refuse_unwanted(claims, "model://run")
    number = 1 if claims.newest is None else claims.newest.number + 1
    claim = Claim(number=number, kind="vm", claimed_at_s=0.0, vm=f"vm-{number}", request_id=str(number))
    return claims.model_copy(update={"attempts": (*claims.attempts, claim)})


def _found(process: Process, restored: Restored) -> Outcome:
    """What a restore brought back; another kind of outcome where the bytes are not those that were trained."""
    bad = tuple(sorted(found.folder for found in restored.quarantined))
    got = restored.snapshot
    if got is None:
        return Outcome("ok", quarantined=bad)
    memory = process.table.slots[got.slot].view(512)
    tensors = {name: bytes(memory[t.offset : t.offset + t.size_bytes]) for name, t in got.index.items()}
    wanted = snapshot(got.step, len(got.scored))
    same = (got.extra, got.meta, got.scored) == (wanted.extra, wanted.meta, wanted.scored)
    if not same or tensors != {"w": weights(got.step)}:
        return Outcome("bug", f"restored step {got.step} with other bytes than were saved")
    return Outcome("ok", step=got.step, quarantined=bad)
