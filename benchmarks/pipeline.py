"""The agent of an attempt around trainers that a benchmark brings, each in a process of its own as in production.

Slots, slot table, uploader with its cadence, owner, journal and event loop are the real ones; only what
job.agent.spawner would run in the trainer's process is the benchmark's. This process never imports torch.
"""

import ctypes
import math
import mmap
import os
import signal
import socket
import struct
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, cast

from benchmarks.server import cpu_s
from infra.localcloud.storage.process import BUCKET, StorageProcess
from job.agent.journal import Journal
from job.agent.loop import Loop
from job.agent.priority import stand_back
from job.agent.snapshots import MOST_SLOTS, SlotTable
from job.agent.spawner import PR_SET_PDEATHSIG, Spawner
from job.agent.trainer import Trainer, TrainerOrder
from job.agent.uploader import Uploader, UploadPolicy
from job.arena import Channel, Slot
from job.errors import BatonError
from job.preemption import Notice
from job.run.head import Owner
from job.storage import Bucket, open_bucket

IDLE_WAIT_S = 60.0


class Durable:
    """What the agent has made durable, in memory that the trainer reads: it costs the loop under test nothing."""

    _FIELDS = struct.Struct("ddd")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def tell(self, step: int, scored: int, next_s: float) -> None:
        """The agent: everything up to here is durable; before `next_s` (time.monotonic()) nothing is uploaded."""
        self._FIELDS.pack_into(self._memory, 0, step, scored, next_s)

    def covers(self, step: int, scored: int) -> bool:
        """The trainer: all of this step is durable, and the pause after it is over."""
        at_step, at_scored, next_s = self._FIELDS.unpack_from(self._memory)
        return (at_step, at_scored) == (step, scored) and time.monotonic() >= next_s


@dataclass(frozen=True)
class Upload:
    """One turn of the uploader; times are time.monotonic()."""

    begin_s: float
    end_s: float
    step: int
    scored: int
    """Batches in the addition; 0: the state itself."""
    pause_s: float
    """What the cadence waits afterwards."""
    server_cpu_s: float = 0.0
    """CPU time of a server that shares the machine, which it would not in production."""


class MeasuredUploader(Uploader):
    """The uploader, and when it worked."""

    def __init__(self, *arguments: Any, durable: Durable, server: StorageProcess | None) -> None:
        super().__init__(*arguments)
        self._server = server
        self.uploads: list[Upload] = []
        self.busy = False
        self._durable = durable

    def _upload_newest(self) -> None:
        newest = self._table.newest
        if newest is None or newest.is_durable():
            return
        self.busy = True
        begin_s, server_s = time.monotonic(), self._server_cpu_s()
        super()._upload_newest()
        end_s = time.monotonic()
        scored = len(newest.durable or ())
        pause_s, server_s = max(0.0, self._next_s - end_s), self._server_cpu_s() - server_s
        self.uploads.append(Upload(begin_s, end_s, newest.step, scored, pause_s, server_s))
        self._durable.tell(newest.step, scored, self._next_s)
        self.busy = False
        self._on_change()  # wakes whoever waits for the end of this

    def _server_cpu_s(self) -> float:
        return 0.0 if self._server is None else cpu_s(self._server)


@dataclass(frozen=True)
class Ends:
    """What a benchmark's trainer is given in its process."""

    channel: Channel
    """To the agent; for job.training.channel_sink."""
    slots: list[Slot]
    durable: Durable
    turns: Channel
    """For a benchmark that lets two trainers work in turns."""


Work = Callable[[Ends], dict[str, Any]]
"""Runs in the trainer's process; what it returns is plain."""


class Pipeline:
    """The agent's side. Use as a context manager: it leaves no process and no folder behind.

    Without a server the bucket is a folder.
    """

    def __init__(self, threads: int, server: StorageProcess | None = None) -> None:
        self.bucket: Bucket
        self.owner: Owner
        self._server = server
        self.table = SlotTable([Slot.create(f"slot{i}") for i in range(MOST_SLOTS)])
        self.durable = Durable()
        self.loop = Loop(Notice(*socket.socketpair()))  # nobody announces anything: Ctrl-C stays Python's
        self.scratch = tempfile.TemporaryDirectory(prefix="benchmark-")
        self._threads = threads
        self._forked: list[Forked] = []
        self.uploader: MeasuredUploader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for forked in self._forked:
            forked.kill()
        if self.uploader is not None and not self.uploader.done:
            self.uploader.stop(status=None, give_up_s=lambda: -math.inf)  # at the first trouble
            uploader = self.uploader
            self.loop.until(lambda: uploader.done, timeout_s=IDLE_WAIT_S)
        self.scratch.cleanup()

    def fork(self, work: Work) -> "Forked":
        """A trainer's process, which begins at once. Call before `begin`: that starts threads."""
        assert self.uploader is None
        forked = Forked(self, work)
        self._forked.append(forked)
        return forked

    def begin(self) -> MeasuredUploader:
        """Takes over a run in an empty bucket and starts to upload, as an attempt does."""
        stand_back()
        folder = Path(self.scratch.name) / "run"
        self.bucket = bucket = open_bucket(
            folder.as_uri() if self._server is None else f"gs://{BUCKET}/{folder.parent.name}"
        )
        self.owner = owner = Owner.take_over(bucket, 1)
        journal = Journal()
        journal.open(bucket, 1)
        policy = UploadPolicy(
            fingerprint="",
            keep_last=2,
            keep_every_steps=None,
            cores=len(os.sched_getaffinity(0)),
            trainer_threads=self._threads,
            machine_usd_per_hour=0.36,
        )
        self.uploader = MeasuredUploader(
            bucket, owner, self.table, policy, journal, self.loop.wake, durable=self.durable, server=self._server
        )
        self.uploader.start()
        return self.uploader

    def result(self, forked: "Forked") -> dict[str, Any]:
        """What its work returned, serving events until then. Raises what it failed with."""
        self.until(lambda: forked.trainer.finished is not None, forked)
        assert forked.trainer.finished is not None
        result: dict[str, Any] = forked.trainer.finished["result"]
        return result

    def until(self, condition: Callable[[], bool], *forked: "Forked") -> None:
        """Serves events until the condition holds. Raises when a trainer or the uploader has failed."""

        def trouble() -> BaseException | None:
            lost = [f.trainer.why_lost() for f in forked if f.trainer.is_lost() and f.trainer.finished is None]
            return lost[0] if lost else self.uploader.error if self.uploader else None

        self.loop.until(lambda: condition() or trouble() is not None)
        if (error := trouble()) is not None:
            raise error

    def drop_pending(self) -> None:
        """As if a newer snapshot had replaced what waits for its upload; returns when nothing is being written."""
        with self.table.changed:
            if (newest := self.table.newest) is not None:
                newest.durable = newest.scored
        uploader = self.uploader
        assert uploader is not None
        assert self.loop.until(lambda: not uploader.busy, timeout_s=IDLE_WAIT_S)


class Forked:
    """One trainer's process. To job.agent.trainer.Trainer it is the spawner."""

    failure: BatonError | None = None

    def __init__(self, pipeline: Pipeline, work: Work) -> None:
        self.pid = 0
        self._pipeline, self._work = pipeline, work
        self.turns, self._their_turns = Channel.pair()
        order = TrainerOrder(settings={}, files={}, names={}, model={}, result_dir="")
        self.trainer = Trainer(
            pipeline.loop, cast(Spawner, self), pipeline.table, order, on_phase=lambda name: None, on_rows=_drop
        )

    def request_trainer(self, trainer: Trainer) -> Channel:
        """Forks it."""
        ours, theirs = Channel.pair()
        parent_pid = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a benchmark that is killed leaves nothing
            if os.getppid() != parent_pid:
                os._exit(1)
            ours.close()
            self.turns.close()
            _live(Ends(theirs, self._pipeline.table.slots, self._pipeline.durable, self._their_turns), self._work)
        theirs.close()
        self._their_turns.close()
        end = os.pidfd_open(self.pid)
        self._pipeline.loop.listen(end, lambda: self._bury(trainer, end))
        return ours

    def kill(self) -> None:
        """Ends it, wherever it is."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self._pipeline.loop.until(lambda: self.pid == 0)

    def _bury(self, trainer: Trainer, end: int) -> None:
        self._pipeline.loop.forget(end)
        os.close(end)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        trainer.has_ended(os.waitstatus_to_exitcode(status))


def _live(ends: Ends, work: Work) -> NoReturn:
    code = 1
    try:
        assert ends.channel.receive().op == "check"
        result = work(ends)
        ends.channel.send("finished", rows=[], step=0, result=result)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _drop(rows: list[dict[str, Any]]) -> None:
    """Metric rows: the benchmark has its own."""
