"""One attempt at the run: the steps of job/__main__.py, each a method, in the order in which they are called."""

from types import TracebackType
from typing import Any, Self

from job.advice import less_memory
from job.agent.arguments import Arguments
from job.agent.budget import Budget
from job.agent.checking import checked_trainer
from job.agent.claiming import Claimed, claim, is_left_to_do
from job.agent.cores import usable_cores
from job.agent.hang import listen_for
from job.agent.loop import Job, Loop
from job.agent.place import traffic_to
from job.agent.priority import stand_back
from job.agent.restoring import Restored, restore
from job.agent.result import publish_result
from job.agent.saving import LOOK_S, make_durable, save_after
from job.agent.scratch import Scratch
from job.agent.snapshots import MOST_SLOTS, SlotTable, slots_for
from job.agent.spawner import Spawner
from job.agent.supervise import Watch, supervise
from job.agent.trainer import Trainer, TrainerOrder
from job.agent.uploader import Uploader, UploadPolicy
from job.agent.voice import Voice, leave_at_once
from job.agent.wanted import Wanted, find_wanted, read_recipe, write_spec_for
from job.agent.words import beginning_lines, end_lines
from job.arena import Slot
from job.errors import BatonError, ExitCode, Preempted
from job.preemption import Notice
from job.run.claims import read_claims
from job.run.head import Head, Owner, Status
from job.run.inputs import input_path
from job.run.spec import Spec, SpecModel
from job.settings import to_plain
from job.storage import open_bucket

HEARTBEAT = "heartbeat"  # the file that docker/healthcheck.sh looks for
LAST_WORDS_S = 5.0  # for attempt.json and the journal, when everything that matters is done


class Attempt:
    """Holds what the steps share. Use as a context manager: it leaves no process and no folder behind."""

    wanted: Wanted
    spec: Spec
    restored: Restored
    trainer: Trainer
    claimed: Claimed | None = None
    claiming = False
    """The bucket has been asked for the run, so that it may be this attempt's before `claimed` says so."""
    uploader: Uploader | None = None

    def __init__(self, arguments: Arguments, notice: Notice) -> None:
        self.arguments, self.notice = arguments, notice
        self.asked = read_recipe(arguments)
        self.bucket = open_bucket(arguments.run)
        self.voice = Voice()
        slots = [Slot.create(f"slot{i}") for i in range(MOST_SLOTS)]
        self._scratch = Scratch()
        self.scratch = self._scratch.path
        self.spawner = Spawner.start(notice, slots, self.scratch)  # before any thread exists
        stand_back()  # the trainer comes first; not inherited by the spawner
        self.table = SlotTable(slots)
        self.loop = Loop(notice)

    def __enter__(self) -> Self:
        self.notice.start(self.loop.wake, at_once=lambda: leave_at_once(ExitCode.PREEMPTED))
        self.spawner.listen(self.loop, self.voice.say)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.spawner.kill()
        self.voice.progress.close()
        self._scratch.remove()

    # --- the steps -----------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Finds out what the run is and refuses what cannot be. False: it is finished, there is nothing to do."""
        self.wanted = self.loop.call(lambda: find_wanted(self.bucket, self.arguments, self.asked, self.scratch))
        self.voice.hide(self.wanted.secrets.values())
        head = self.wanted.head
        if head is not None and head.status is Status.FINISHED:
            self.voice.say_finished(self.bucket.uri)
            return False
        del self.table.slots[slots_for(self.wanted.settings) :]
        return True

    def restore(self) -> None:
        """Brings the newest good checkpoint into memory, while the spawner imports."""
        self.voice.phases.enter("restore")
        self._restore_from(self.wanted.head)

    def check(self) -> None:
        """Lets a trainer validate model, task and data. Raises what it refuses; nothing has been changed yet."""
        self.voice.phases.enter("import")
        settings = self.wanted.settings
        self.trainer = checked_trainer(
            self.loop,
            self._request_trainer,
            lambda what: self.voice.crashed(what, self._newest_step()),
            hang_timeout_s=settings.attempt.hang_timeout_s,
            less_memory=less_memory(settings),
        )
        assert self.trainer.checked is not None
        for warning in self.trainer.checked["warnings"]:
            self.voice.say(f"warning: {warning}")

    def claim(self) -> bool:
        """Takes the run over: spec, number, head. From here on the run is changed.

        False: another attempt has finished it since the look.
        """
        assert self.trainer.checked is not None
        number = self.arguments.attempt
        if not self.loop.call(lambda: is_left_to_do(self.bucket, number)):
            self.voice.say_finished(self.bucket.uri)
            return False
        model = SpecModel(**self.trainer.checked["model"])
        self.claiming = True
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
            self.voice.say_finished(self.bucket.uri)
            return False
        owner = claimed.owner
        if owner.head.checkpoint != self.restored.named:  # the predecessor went on after this attempt had looked
            self._restore_from(owner.head)
        resumed_from = self.restored.resumed_from(claimed.replaced, claimed.reached_step)
        machine = self.trainer.checked["machine"]
        attempt = self.wanted.settings.attempt
        budget = Budget(self.bucket, owner.head.attempt, self.spec, self._hear_spent)
        budget.refuse_spent(self.loop.call(lambda: read_claims(self.bucket)))
        self.traffic = self.loop.call(lambda: traffic_to(self.bucket))
        self.voice.claimed(
            self.bucket,
            claimed,
            resumed_from,
            machine,
            self.traffic,
            heartbeat_s=attempt.heartbeat_s,
            on_want=self._hear_want,
            on_beat=budget.hear,
            sign=self.scratch / HEARTBEAT,
        )
        self.loop.call(lambda: self._open(owner))
        budget.start()
        self.notice.watch_metadata(attempt.notice_s)
        for line in beginning_lines(self.bucket.uri, claimed, self.restored, resumed_from, machine):
            self.voice.say(line)
        if resumed_from is not None:
            self.voice.progress.durable(resumed_from.step)
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
                usd_per_gib=self.traffic.usd_per_gib,
                reference_moves_every_steps=settings.train.ref_model_sync_steps
                if settings.train.sync_ref_model
                else None,
            ),
            self.voice.journal,
            self._note_upload,
        )
        self.uploader.start(spare={bad.folder for bad in self.restored.quarantined})
        watch = Watch(
            loop=self.loop,
            table=self.table,
            uploader=self.uploader,
            request_trainer=self._request_trainer,
            begin=self._begin,
            on_tick=lambda: self.voice.tick(self._newest_step(), self.notice.deadline),
            on_crash=lambda what: self.voice.crashed(what, self._newest_step()),
            hang_timeout_s=settings.attempt.hang_timeout_s,
            flush_margin_s=settings.attempt.flush_margin_s,
            less_memory=less_memory(settings),
        )
        return supervise(watch, self.trainer)

    def publish_result(self, finished: dict[str, Any]) -> None:
        """The last checkpoint, then result/, then `finished`."""
        assert self.claimed is not None
        owner = self.claimed.owner
        self.voice.enter_phase("result")
        make_durable(self.loop, owner, self.uploader, Status.FINISHING)
        # The last row is of after the last checkpoint.
        self.loop.call(self.voice.journal.flush_metrics, heed="immediate")
        self.loop.call(self.voice.write_phases, heed="immediate")
        folder = self.scratch / "result"
        checkpoint = owner.head.checkpoint
        assert checkpoint is not None
        assert checkpoint.step == finished["step"]
        self.loop.call(lambda: publish_result(self.bucket, owner, folder, checkpoint, self.voice.say), heed="immediate")
        self.loop.call(lambda: owner.publish(status=Status.FINISHED), heed="immediate")
        self.voice.say(f"finished after step {finished['step']}: {self.bucket.uri}/result")

    def end(self, error: BatonError | None) -> int:
        """Saves what is in memory, says how it ended, writes the last words. Returns the exit code."""
        self.spawner.kill()
        if error is not None:
            error = self.voice.without_secrets(error)
            if self.claimed is not None:
                self.voice.enter_phase("flush")
                error = save_after(error, self.loop, self.claimed.owner, self.uploader)
            self.voice.progress.end()  # so that the last line on a terminal is this one
            self.voice.say("\n".join(end_lines(error, self.claimed, claiming=self.claiming)))
        code = ExitCode.FINISHED if error is None else error.exit_code
        self.voice.stop_beating(self._patience_s())
        job = Job(lambda: self.voice.last_words(code, error), self.loop.wake)
        self.loop.until(lambda: job.done, timeout_s=self._patience_s(), heed="never")
        return code

    # --- what the steps use --------------------------------------------------------------------------------------

    def _patience_s(self) -> float:
        """How long to wait for words that may be lost: hardly at all once the machine should be gone."""
        deadline = self.notice.deadline
        return LAST_WORDS_S if deadline is None else min(LAST_WORDS_S, deadline.left_s() + LOOK_S)

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
            hub_token=self.wanted.hub_token,
            result_dir=str(self.scratch / "result"),
        )
        return Trainer(
            self.loop,
            self.spawner,
            self.table,
            order,
            on_phase=self.voice.enter_phase,
            on_rows=lambda rows: self.voice.rows(rows, settings.train.kl_warning),
        )

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
            self.voice.training_begins(trainer.ready, len(self.table.slots))
        self.loop.call(lambda: trainer.start(self.table.newest))

    def _open(self, owner: Owner) -> None:
        """The attempt's first objects in the bucket, and what the restore found, now that it may write."""
        self.voice.open(self.bucket, owner.head.attempt)
        for bad in self.restored.quarantined:
            self.voice.journal.event("quarantine", folder=bad.folder, step=bad.step, reason=bad.reason)
        self.restored.drop_bad(owner)
        self.voice.journal.event("started", step=self._newest_step())
        self.voice.journal.flush()

    def _newest_step(self) -> int | None:
        return None if self.table.newest is None else self.table.newest.step

    def _note_upload(self) -> None:
        assert self.uploader is not None
        self.voice.durable(self.uploader.durable_step())
        self.loop.wake()

    def _hear_want(self, want: str, reason: str | None) -> None:
        self.notice.announce(
            f"the word that the run is to {want}" + (f" ({reason})" if reason else ""),
            left_s=30,
            immediate=True,
        )

    def _hear_spent(self, what: str) -> None:
        self.notice.announce(what, left_s=30, immediate=True)
