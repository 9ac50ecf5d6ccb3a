"""From the first step to the last: keeps a trainer running until the run is trained, a notice comes or trouble does."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from job.agent.cadence import last_safe_moment_s
from job.agent.hang import end_hung
from job.agent.loop import Loop
from job.agent.snapshots import SlotTable
from job.agent.spawner import describe_exit
from job.agent.trainer import Trainer
from job.agent.uploader import Uploader
from job.errors import BatonError, ExitCode, NeedsPerson, Preempted, Transient

TICK_S = 1.0
NEVER = -1  # no step has failed yet; None is the state before the first boundary
BURY_S = 30.0  # a process in an uninterruptible system call (a GPU driver) can outlive SIGKILL for a while
OUT_OF_MEMORY = describe_exit(-signal.SIGKILL)  # how the kernel's OOM killer ends a process
HANG_STEPS = 10  # median steps without progress that count as a hang, but never less than the setting


@dataclass
class Watch:
    """What the supervisor needs to know of everything around the trainer."""

    loop: Loop
    table: SlotTable
    uploader: Uploader
    request_trainer: Callable[[], Trainer]
    """Forks a trainer, which begins to check and to build the model."""
    begin: Callable[[Trainer], None]
    """Waits until it has, then lets it go on from the newest snapshot in memory; returns too when it is lost."""
    on_tick: Callable[[], None]
    on_crash: Callable[[str], None]
    """How a trainer ended that is started again from the newest snapshot in memory."""
    hang_timeout_s: float
    flush_margin_s: float
    less_memory: str
    """What to say to somebody whose trainer the kernel has killed."""


def supervise(watch: Watch, trainer: Trainer) -> dict[str, Any]:
    """What the trainer said when it was finished. The first one given may still build its model.

    Raises Preempted on a notice, and what the trainer or the uploader failed with. The trainer is dead when this
    returns or raises.
    """
    steps = StepTimes()
    failed_step: int | None = NEVER
    while True:
        try:
            watch.begin(trainer)
            _follow(watch, trainer, steps)
        finally:
            trainer.kill()
            bury(watch.loop, trainer)
        if trainer.finished is not None:
            return trainer.finished
        if watch.uploader.error is not None:
            raise watch.uploader.error
        if watch.loop.notice.deadline is not None:
            raise Preempted(f"stopped on {watch.loop.notice.deadline.reason}.")
        failure = trainer.why_lost()
        if failure.exit_code != ExitCode.BUG:
            raise failure
        step = watch.table.newest.step if watch.table.newest is not None else None
        if step == failed_step:
            raise failed_twice(
                trainer, "before the first step" if step is None else f"after step {step}", watch.less_memory
            )
        failed_step = step
        watch.on_crash(failure.what)
        trainer = watch.request_trainer()


def _follow(watch: Watch, trainer: Trainer, steps: "StepTimes") -> None:
    """Serves one trainer until there is a reason to stop; returns with the reason in trainer, uploader or notice."""

    def stop() -> bool:
        if trainer.ended is not None or trainer.finished is not None or watch.uploader.error is not None:
            return True
        deadline = watch.loop.notice.deadline
        if deadline is None:
            return False
        safe_s = last_safe_moment_s(
            deadline.at_s, flush_s=watch.uploader.flush_estimate_s(), margin_s=watch.flush_margin_s
        )
        return deadline.immediate or time.monotonic() >= safe_s

    while not watch.loop.until(stop, timeout_s=TICK_S, heed="never"):
        watch.on_tick()
        newest = watch.table.newest
        steps.seen(None if newest is None else newest.step)
        limit_s = max(HANG_STEPS * steps.median_s(), watch.hang_timeout_s)
        if time.monotonic() - trainer.last_progress_s > limit_s:
            end_hung(watch.loop, trainer, limit_s)
            return


def failed_twice(trainer: Trainer, where: str, less_memory: str) -> BatonError:
    """What to end with when a second trainer was lost where the one before was."""
    if trainer.failure is None and trainer.ended == OUT_OF_MEMORY:
        return NeedsPerson(
            f"the trainer was killed twice {where} ({trainer.ended}): "
            "most likely the machine is out of memory; `dmesg` tells.",
            fix=less_memory,
        )
    return BatonError(
        f"the trainer failed twice {where}: {trainer.why_lost().what}",
        fix="Nothing is lost: the run resumes there once the cause is mended.",
    )


def bury(loop: Loop, trainer: Trainer) -> None:
    """Waits for the killed trainer's end, and with it for everything that it had sent."""
    if not loop.until(lambda: trainer.ended is not None, timeout_s=BURY_S, heed="never"):
        raise Transient(f"the trainer does not end {BURY_S:.0f} s after SIGKILL.")


class StepTimes:
    """Seconds between step boundaries, as far as the ticks see them."""

    def __init__(self) -> None:
        self._step: int | None = None
        self._since_s = time.monotonic()
        self._seconds: list[float] = []

    def seen(self, step: int | None) -> None:
        """The newest boundary is that of `step`."""
        if step is None or step == self._step:
            return
        now_s = time.monotonic()
        if self._step is not None and step > self._step:
            self._seconds.append((now_s - self._since_s) / (step - self._step))
        self._step, self._since_s = step, now_s

    def median_s(self) -> float:
        """The median step so far, 0 before there are two boundaries."""
        return median(self._seconds[-100:]) if self._seconds else 0.0
