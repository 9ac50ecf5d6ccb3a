"""Makes the newest snapshot durable, behind the trainer: one upload in flight, the newest waiting wins."""

import contextlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import tenacity

from job.agent.cadence import paid_pause_s, pause_s
from job.agent.journal import Journal
from job.agent.snapshots import ScoredBatch, SlotTable, Snapshot
from job.arena import REFERENCE_PREFIX, safetensors_header
from job.checkpoint.manifest import ManifestFile
from job.checkpoint.retention import delete_dropped, delete_folder, garbage, kept_after
from job.checkpoint.save import save_addition, save_checkpoint, save_shared
from job.errors import BatonError, Transient
from job.run.head import CheckpointRef, Owner, Status
from job.run.layout import CHECKPOINTS
from job.storage import Bucket, Buffer
from job.storage.prices import usd

STATE, REFERENCE = "state.safetensors", "reference.safetensors"
EXTRA, META = "extra.safetensors", "meta.json"
SCORED, SCORED_META = "scored.safetensors", "scored.json"
RETRY_WAIT_MAX_S = 30.0
RETRY_WAIT_STOPPING_S = 0.2


@dataclass(frozen=True)
class UploadPolicy:
    """What the uploader is told once: how checkpoints are hashed, kept and spaced."""

    fingerprint: str
    keep_last: int
    keep_every_steps: int | None
    cores: int
    trainer_threads: int
    machine_usd_per_hour: float
    usd_per_gib: float = 0.0
    """Of traffic between this machine and the bucket."""
    reference_moves_every_steps: int | None = None
    """None where no reference model moves."""

    def is_kept(self, step: int) -> bool:
        """Whether this step's checkpoint stays for good."""
        every = self.keep_every_steps
        return every is not None and step > 0 and step % every == 0


class Uploader:
    """One thread that writes checkpoints and head. `error` is set when it gives up; `on_change` is called each turn."""

    def __init__(
        self,
        bucket: Bucket,
        owner: Owner,
        table: SlotTable,
        policy: UploadPolicy,
        journal: Journal,
        on_change: Callable[[], None],
    ) -> None:
        self.error: BaseException | None = None
        self.done = False
        self.last_step: int | None = None
        """Set by whoever knows it, before the first snapshot is published."""
        self._bucket, self._owner, self._table, self._policy = bucket, owner, table, policy
        self._journal, self._on_change = journal, on_change
        self._stopping = threading.Event()
        self._final_status: Status | None = None
        self._give_up_s: Callable[[], float] = lambda: math.inf
        self._upload_s: deque[float] = deque(maxlen=5)
        self._next_s = 0.0
        self._reference: tuple[int, ManifestFile] | None = None
        """The reference model as it lies in blobs/, and the step after which it was moved there."""
        self._shared_s = 0.0
        self._spare: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, daemon=True, name="uploader")

    def start(self, *, spare: Collection[str] = ()) -> None:
        """Begins to upload, after collecting what dead attempts left; folders in `spare` stay for whoever looks."""
        self._spare = frozenset(spare)
        self._thread.start()

    def stop(self, *, status: Status | None, give_up_s: Callable[[], float]) -> None:
        """Asks for the end: the newest snapshot is made durable, head gets `status` (None: stays), `done` becomes true.

        Trouble outside is waited out until `give_up_s()` (time.monotonic()), then it is the error. Asked
        after every try, because a notice may come meanwhile.
        """

        self._final_status, self._give_up_s = status, give_up_s
        self._stopping.set()
        with self._table.changed:
            self._table.changed.notify_all()

    def durable_step(self) -> int | None:
        """The step that head names."""
        checkpoint = self._owner.head.checkpoint
        return None if checkpoint is None else checkpoint.step

    def flush_estimate_s(self) -> float:
        """How long making the newest snapshot durable takes, from the last few uploads (sha256 comes on top: x 1.5).

        The reference model on top: it may just have moved, which is seldom among those.
        """
        return 1.5 * (max(self._upload_s, default=1.0) + self._shared_s)

    def _collect_garbage(self) -> None:
        """Deletes what attempts that were killed in an upload left behind. The next attempt tries again."""
        with contextlib.suppress(BatonError):
            names = [info.name for info in self._bucket.list(CHECKPOINTS)]
            for folder in garbage(self._owner.head, names):
                if folder not in self._spare:
                    delete_folder(self._bucket, folder)
                    self._journal.event("garbage_deleted", folder=folder)

    def _run(self) -> None:
        try:
            self._collect_garbage()
            while not self._stopping.is_set():
                self._wait_for_work()
                if not self._stopping.is_set():
                    self._retry(self._upload_newest)
            self._retry(self._upload_newest)
            self._retry(self._publish_final_status)
        except BaseException as error:  # handed to the main thread, which ends the attempt with it
            self.error = error
        self.done = True
        self._on_change()

    def _wait_for_work(self) -> None:
        with self._table.changed:
            while not self._stopping.is_set():
                newest = self._table.newest
                if newest is None or newest.is_durable():
                    self._table.changed.wait()
                elif (left_s := self._next_s - time.monotonic()) > 0:
                    self._table.changed.wait(left_s)
                else:
                    return

    def _retry(self, work: Callable[[], None]) -> None:
        """Trouble outside is waited out as long as training goes on."""
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=RETRY_WAIT_MAX_S),
            stop=lambda state: time.monotonic() > self._give_up_s(),
            sleep=self._pause,
            before_sleep=lambda state: self._journal.event(
                "upload_retried", error=str(state.outcome.exception() if state.outcome else None)
            ),
            reraise=True,
        )(work)

    def _pause(self, seconds: float) -> None:
        """Between tries; short once the attempt is ending."""
        if self._stopping.is_set():
            time.sleep(min(seconds, RETRY_WAIT_STOPPING_S))
        else:
            self._stopping.wait(seconds)

    def _upload_newest(self) -> None:
        work = self._table.begin_writing()
        if work is None:
            return
        snapshot, scored = work
        wall_s, cpu_s = time.monotonic(), time.process_time()  # of all threads: a bucket may use several
        usage = self._bucket.usage
        try:
            ref = self._save(snapshot, scored)
            kept = kept_after(
                self._owner.head.kept,
                ref,
                keep_last=self._policy.keep_last,
                keep_every_steps=self._policy.keep_every_steps,
            )
            # Rows first: whoever reads head finds every row up to the step that it names.
            self._journal.flush_metrics()
            dropped = self._owner.publish(checkpoint=ref, kept=kept, status=self._status_with(snapshot, scored))
            snapshot.durable = scored
        finally:
            self._table.end_writing()
        spent_s = time.monotonic() - wall_s
        self._upload_s.append(spent_s)
        usage = self._bucket.usage - usage
        cost_usd = usd(usage, self._policy.usd_per_gib)
        self._next_s = time.monotonic() + max(
            pause_s(
                time.process_time() - cpu_s, cores=self._policy.cores, trainer_threads=self._policy.trainer_threads
            ),
            paid_pause_s(cost_usd, machine_usd_per_hour=self._policy.machine_usd_per_hour),
        )
        self._journal.event(
            "checkpoint",
            step=ref.step,
            folder=ref.folder,
            seconds=round(spent_s, 4),
            scored=len(scored),
            **({"storage": usage.model_dump(), "usd": round(cost_usd, 8)} if usage.operations else {}),
        )
        self._journal.flush_if_due()
        self._on_change()
        delete_dropped(self._bucket, dropped, self._owner.head.kept)

    def _status_with(self, snapshot: Snapshot, scored: tuple[ScoredBatch, ...]) -> Status | None:
        """What head gets together with this snapshot: where it is the last one, one write of head says both."""
        if self._stopping.is_set() and self._table.newest is snapshot and snapshot.scored == scored:
            return self._final_status
        return None

    def _publish_final_status(self) -> None:
        if self._final_status not in (None, self._owner.head.status):
            self._owner.publish(status=self._final_status)

    def _shared(self, snapshot: Snapshot) -> dict[str, ManifestFile]:
        """The reference model where it moves: many steps have the same one, which is written once."""
        if (every := self._policy.reference_moves_every_steps) is None:
            return {}
        moved_at = snapshot.step - snapshot.step % every  # as TRL's SyncRefModelCallback does
        if self._reference is None or self._reference[0] != moved_at:
            began_s = time.monotonic()
            file = save_shared(self._bucket, tensor_file(snapshot, self._table, self._names(snapshot, shared=True)))
            self._shared_s = time.monotonic() - began_s
            self._reference = moved_at, file
        return {REFERENCE: self._reference[1]}

    def _names(self, snapshot: Snapshot, *, shared: bool) -> frozenset[str]:
        """The tensors that lie in blobs/, being the same at many steps, or all others."""
        moves = self._policy.reference_moves_every_steps is not None
        return frozenset(n for n in snapshot.index if (moves and n.startswith(REFERENCE_PREFIX)) == shared)

    def _save(self, snapshot: Snapshot, scored: tuple[ScoredBatch, ...]) -> CheckpointRef:
        # It costs too much at every step.
        sha256 = self._stopping.is_set() or snapshot.step == self.last_step or self._policy.is_kept(snapshot.step)
        owner = self._owner
        if snapshot.written is None:
            snapshot.written = save_checkpoint(
                self._bucket,
                step=snapshot.step,
                attempt=owner.head.attempt,
                incarnation=owner.head.incarnation,
                fingerprint=self._policy.fingerprint,
                files={
                    STATE: tensor_file(snapshot, self._table, self._names(snapshot, shared=False)),
                    EXTRA: snapshot.extra,
                    META: json.dumps(snapshot.meta).encode(),
                },
                sha256=sha256,
                parent=owner.head.checkpoint,
                shared=self._shared(snapshot),
            )
        if not scored:
            return snapshot.written
        return save_addition(
            self._bucket,
            snapshot.written,
            {
                SCORED: [batch.blob for batch in scored],
                SCORED_META: json.dumps(
                    [{"micro_step": b.micro_step, "bytes": len(b.blob), "meta": b.meta} for b in scored]
                ).encode(),
            },
            sha256=sha256,
        )


def tensor_file(snapshot: Snapshot, table: SlotTable, names: Collection[str]) -> list[Buffer]:
    """The safetensors file of these tensors of a snapshot, straight from shared memory, without a copy."""
    index = {name: t for name, t in snapshot.index.items() if name in names}
    end = max((t.offset + t.size_bytes for t in index.values()), default=0)
    view = table.slots[snapshot.slot].view(end)
    return [safetensors_header(index), *(view[t.offset : t.offset + t.size_bytes] for t in index.values())]
