"""One attempt at the run: the steps of job/__main__.py, each a method, in the order in which they are called."""

import contextlib
import math
import os
import select
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from job.advice import less_memory
from job.agent.arguments import Arguments
from job.agent.checking import checked_trainer
from job.agent.claiming import Claimed, claim, is_left_to_do
from job.agent.cores import usable_cores
from job.agent.hang import listen_for
from job.agent.journal import Journal
from job.agent.loop import Job, Loop
from job.agent.phases import PhaseClock
from job.agent.priority import stand_back
from job.agent.record import LiveRecord
from job.agent.restoring import Restored, restore
from job.agent.result import publish_result
from job.agent.scratch import Scratch
from job.agent.snapshots import MOST_SLOTS, SlotTable, slots_for
from job.agent.spawner import Spawner
from job.agent.supervise import Watch, supervise
from job.agent.trainer import Trainer, TrainerOrder
from job.agent.uploader import Uploader, UploadPolicy
from job.agent.wanted import Wanted, find_wanted, input_path, read_recipe, write_spec_for
from job.agent.words import available_memory_bytes, beginning_lines, end_lines, kl_is_news, kl_line, plan_lines
from job.arena import Slot
from job.errors import BatonError, ExitCode, Fenced, Preempted, error_for
from job.preemption import Notice
from job.run.attempt import ResumedFrom
from job.run.head import Head, Status
from job.run.heartbeat import Heartbeats
from job.run.spec import Spec, SpecModel
from job.settings import to_plain
from job.storage import open_bucket
from job.views.progress import Progress

FLUSH_PATIENCE_S = 60.0  # for a bucket out of reach, when the attempt ends with an error that it shall tell
LAST_WORDS_S = 5.0  # for attempt.json and the journal, when everything that matters is done


class Attempt:
    """Holds what the steps share. Use as a context manager: it leaves no process and no folder behind."""

    wanted: Wanted
    spec: Spec
    restored: Restored
    resumed_from: ResumedFrom | None = None
    trainer: Trainer
    claimed: Claimed | None = None
    uploader: Uploader | None = None
    heartbeats: Heartbeats | None = None
    record: LiveRecord | None = None
    told_notice = False
    told_kl: float | None = None

    def __init__(self, arguments: Arguments, notice: Notice) -> None:
        self.arguments, self.notice = arguments, notice
        self.asked = read_recipe(arguments)
        self.bucket = open_bucket(arguments.run)
        self.phases = PhaseClock("look")
        self.journal = Journal()
        self.progress = Progress(stream=sys.stderr)
        slots = [Slot.create(f"slot{i}") for i in range(MOST_SLOTS)]
        self._scratch = Scratch()
        self.scratch = self._scratch.path
        self.spawner = Spawner.start(notice, slots, self.scratch)  # before any thread exists
        stand_back()  # the trainer comes first; not inherited by the spawner
        self.table = SlotTable(slots)
        self.loop = Loop(notice)

    def __enter__(self) -> Self:
        self.notice.start(self.loop.wake, at_once=self._leave_at_once)
        self.spawner.listen(self.loop, self.say)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.spawner.kill()
        self.progress.close()
        self._scratch.remove()

    # --- the steps -----------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Finds out what the run is and refuses what cannot be. False: it is finished, there is nothing to do."""
        self.wanted = self.loop.call(lambda: find_wanted(self.bucket, self.arguments, self.asked, self.scratch))
        head = self.wanted.head
        if head is not None and head.status is Status.FINISHED:
            self._say_finished()
            return False
        del self.table.slots[slots_for(self.wanted.settings) :]
        return True

    def restore(self) -> None:
        """Brings the newest good checkpoint into memory, while the spawner imports."""
        self.phases.enter("restore")
        self._restore_from(self.wanted.head)

    def check(self) -> None:
        """Lets a trainer validate model, task and data. Raises what it refuses; nothing has been changed yet."""
        self.phases.enter("import")
        settings = self.wanted.settings
        self.trainer = checked_trainer(
            self.loop,
            self._request_trainer,
            self._note_crash,
            hang_timeout_s=settings.attempt.hang_timeout_s,
            less_memory=less_memory(settings),
        )
        assert self.trainer.checked is not None
        for warning in self.trainer.checked["warnings"]:
            self.say(f"warning: {warning}")

    def claim(self) -> bool:
        """Takes the run over: spec, number, head. From here on the run is changed.

        False: another attempt has finished it since the look.
        """
        assert self.trainer.checked is not None
        number = self.arguments.attempt
        if not self.loop.call(lambda: is_left_to_do(self.bucket, number)):
            self._say_finished()
            return False
        model = SpecModel(**self.trainer.checked["model"])
        settings = self.wanted.settings
        self.spec = self.loop.call(lambda: write_spec_for(self.bucket, self.wanted, model))
        job = Job(lambda: claim(self.bucket, number, self.spec.fingerprint), self.loop.wake)
        try:
            self.loop.until(lambda: job.done)
        except Preempted:
            # Left behind it would take the run over all the same, and nobody would release it.
            if self.loop.until(lambda: job.done, timeout_s=LAST_WORDS_S, heed="never"):
                self.claimed = job.result()
            raise
        self.claimed = claimed = job.result()
        if claimed is None:
            self._say_finished()
            return False
        owner = claimed.owner
        if owner.head.checkpoint != self.restored.named:  # the predecessor went on after this attempt had looked
            self._restore_from(owner.head)
        self.heartbeats = Heartbeats(
            self.bucket,
            owner.head.attempt,
            owner.head.incarnation,
            interval_s=settings.attempt.heartbeat_s,
            on_want=self._hear_want,
            on_trouble=lambda text: self.journal.event("heartbeat_failed", error=text),
            phase=self.phases.current,
        )
        self.resumed_from = self.restored.resumed_from(claimed.replaced, claimed.reached_step)
        machine = self.trainer.checked["machine"]
        self.record = LiveRecord(self.bucket, owner, claimed.kind, self.phases, self.resumed_from, machine)
        self.loop.call(self._open)
        self.notice.watch_metadata(settings.attempt.notice_s)
        for line in beginning_lines(self.bucket.uri, claimed, self.restored, self.resumed_from, machine):
            self.say(line)
        if self.resumed_from is not None:
            self.progress.durable(self.resumed_from.step)
        return True

    def train(self) -> dict[str, Any]:
        """Trains to the last step; what the trainer said when it was finished. Raises Preempted on a notice."""
        assert self.claimed is not None
        settings = self.wanted.settings
        self.uploader = Uploader(
            self.bucket,
            self.claimed.owner,
            self.table,
            UploadPolicy(
                fingerprint=self.spec.fingerprint,
                keep_last=settings.checkpoint.keep_last,
                keep_every_steps=settings.checkpoint.keep_every_steps,
                cores=usable_cores(),
                trainer_threads=settings.train.cpu_threads,
                machine_usd_per_hour=settings.attempt.machine_usd_per_hour,
            ),
            self.journal,
            self._note_durable,
        )
        self.uploader.start(spare={bad.folder for bad in self.restored.quarantined})
        watch = Watch(
            loop=self.loop,
            table=self.table,
            uploader=self.uploader,
            request_trainer=self._request_trainer,
            begin=self._begin,
            on_tick=self._tick,
            on_crash=self._note_crash,
            hang_timeout_s=settings.attempt.hang_timeout_s,
            flush_margin_s=settings.attempt.flush_margin_s,
            less_memory=less_memory(settings),
        )
        return supervise(watch, self.trainer)

    def publish_result(self, finished: dict[str, Any]) -> None:
        """The last checkpoint, then result/, then `finished`."""
        assert self.claimed is not None
        owner = self.claimed.owner
        self._enter_phase("result")
        self._flush(Status.FINISHING)
        self.loop.call(self.journal.flush_metrics, heed="immediate")  # the last row is of after the last checkpoint
        folder = self.scratch / "result"
        checkpoint = owner.head.checkpoint
        assert checkpoint is not None
        assert checkpoint.step == finished["step"]
        self.loop.call(lambda: publish_result(self.bucket, folder, checkpoint, self.say), heed="immediate")
        self.loop.call(lambda: owner.publish(status=Status.FINISHED), heed="immediate")
        self.say(f"finished after step {finished['step']}: {self.bucket.uri}/result")

    def end(self, error: BatonError | None) -> int:
        """Saves what is in memory, says how it ended, writes the last words. Returns the exit code."""
        self.spawner.kill()
        if error is not None:
            error = self._save(error)
            self.progress.end()  # so that the last line on a terminal is this one
            self.say("\n".join(end_lines(error, self.claimed)))
        code = ExitCode.FINISHED if error is None else error.exit_code
        if self.heartbeats is not None:
            self.heartbeats.stop()
        if self.record is not None:
            record = self.record

            def last_words() -> None:
                record.end(code, error)
                self.journal.flush()

            job = Job(last_words, self.loop.wake)
            self.loop.until(lambda: job.done, timeout_s=LAST_WORDS_S, heed="never")
        return code

    # --- what the steps use --------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """A line for people: on stderr, and in the run's log."""
        self.progress.say(line)
        self.journal.log(line)

    def _say_finished(self) -> None:
        self.say(f"{self.bucket.uri} is finished: its result is in {self.bucket.uri}/result")

    def _restore_from(self, head: Head | None) -> None:
        self.restored = self.loop.call(lambda: restore(self.bucket, head, self.table))
        self.table.newest = self.restored.snapshot

    def _request_trainer(self) -> Trainer:
        settings, inputs = self.wanted.settings, self.wanted.inputs
        order = TrainerOrder(
            settings=to_plain(settings),
            files={key: str(pinned.path) for key, pinned in inputs.items()},
            names={str(pinned.path): str(input_path(settings, key)) for key, pinned in inputs.items()},
            model=self.wanted.model,
            result_dir=str(self.scratch / "result"),
        )
        return Trainer(self.loop, self.spawner, self.table, order, self._enter_phase, self._take_rows)

    def _begin(self, trainer: Trainer) -> None:
        """Waits for the model, then lets the trainer go on from the newest snapshot in memory, unless it is lost."""
        uploader = self.uploader
        assert uploader is not None
        listen_for(
            self.loop,
            trainer,
            lambda: trainer.ready is not None or uploader.error is not None,
            self.wanted.settings.attempt.hang_timeout_s,
        )
        if trainer.ready is None:
            return
        if uploader.last_step is None:
            uploader.last_step = trainer.ready["max_steps"]
            available_bytes = available_memory_bytes(Path("/proc/meminfo").read_text())
            for line in plan_lines(trainer.ready, len(self.table.slots), available_bytes):
                self.say(line)
            self.progress.begin(uploader.last_step)
        self.loop.call(lambda: trainer.start(self.table.newest))

    def _open(self) -> None:
        """The attempt's first objects in the bucket, and what the restore found, now that it may write."""
        assert self.claimed is not None
        assert self.record is not None
        assert self.heartbeats is not None
        self.record.write()
        self.heartbeats.start()
        self.journal.open(self.bucket, self.claimed.owner.head.attempt)
        for bad in self.restored.quarantined:
            self.journal.event("quarantine", folder=bad.folder, step=bad.step, reason=bad.reason)
        self.restored.drop_bad(self.claimed.owner)
        self.journal.event("started", step=None if self.restored.snapshot is None else self.restored.snapshot.step)
        self.journal.flush()

    def _flush(self, status: Status | None, patience_s: float = math.inf) -> None:
        """Everything in memory becomes durable, then head gets `status`. Raises what the uploader failed with.

        A bucket out of reach is waited for until the deadline of a notice, also of one that comes meanwhile, and no
        longer than `patience_s`.
        """
        assert self.claimed is not None
        owner, uploader = self.claimed.owner, self.uploader
        if uploader is None:
            if status is not None:
                self.loop.call(lambda: owner.publish(status=status), heed="never")
            return
        if not uploader.done:
            patient_until_s = time.monotonic() + patience_s

            def give_up_s() -> float:
                deadline = self.notice.deadline
                return patient_until_s if deadline is None else min(patient_until_s, deadline.at_s)

            uploader.stop(status=status, give_up_s=give_up_s)
            self.loop.until(lambda: uploader.done, heed="never")
        if uploader.error is not None:
            raise uploader.error

    def _save(self, error: BatonError) -> BatonError:
        """On the way out: the newest snapshot becomes durable. Returns the error to end with."""
        if self.claimed is None or isinstance(error, Fenced):
            return error
        self._enter_phase("flush")
        release = isinstance(error, Preempted) and self.claimed.owner.head.status is Status.RUNNING
        try:
            self._flush(Status.RELEASED if release else None, FLUSH_PATIENCE_S)
        except Fenced as fenced:
            return fenced
        except BatonError as trouble:
            what = f"{error.what} And what is in memory could not be saved: {trouble.what}"
            # A notice promises that everything is safe; any other ending keeps its own class.
            code = trouble.exit_code if isinstance(error, Preempted) else error.exit_code
            return error_for(code, what, trouble.fix if isinstance(error, Preempted) else error.fix)
        return error

    def _enter_phase(self, phase: str) -> None:
        self.phases.enter(phase)
        if self.heartbeats is not None:
            self.heartbeats.beat(phase=phase)

    def _take_rows(self, rows: list[dict[str, Any]]) -> None:
        self.journal.metrics(rows)
        for row in rows:
            self.progress.row(row)
            if kl_is_news(row, self.wanted.settings.train.kl_warning, self.told_kl):
                self.told_kl = row["kl"]
                self.say(kl_line(row))

    def _tick(self) -> None:
        if self.heartbeats is not None and self.table.newest is not None:
            self.heartbeats.beat(step=self.table.newest.step)
        deadline = self.notice.deadline
        if deadline is not None and not self.told_notice:
            self.told_notice = True
            self.journal.event("notice", reason=deadline.reason, left_s=round(deadline.left_s(), 1))
            self.say(f"{deadline.reason}: {deadline.left_s():.0f} s left; training goes on until the last safe moment")

    def _note_durable(self) -> None:
        assert self.uploader is not None
        if (step := self.uploader.durable_step()) is not None:
            self.progress.durable(step)
        if self.record is not None:
            with contextlib.suppress(BatonError):  # the next time will do
                self.record.write_if_due()
        self.loop.wake()

    def _note_crash(self, what: str) -> None:
        step = None if self.table.newest is None else self.table.newest.step
        self.journal.event("trainer_crashed", what=what, step=step)
        where = "the beginning" if step is None else f"step {step}"
        self.say(f"the trainer crashed ({what}); starting it again from {where}")

    def _hear_want(self, want: str, reason: str | None) -> None:
        self.notice.announce(
            f"the word that the run is to {want}" + (f" ({reason})" if reason else ""),
            left_s=30,
            immediate=True,
        )

    def _leave_at_once(self) -> None:
        show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""  # the moving line had hidden it
        words = b"second interrupt: leaving at once; the run goes on from its last durable step."
        with contextlib.suppress(OSError):  # a terminal that is gone
            if select.select([], [2], [], 0)[1]:  # and one that was stopped with Ctrl-S takes nothing
                os.write(2, show_cursor + b"\n" + words + b"\n")
        os._exit(ExitCode.PREEMPTED)
