"""A trainer that has checked model, task and data: what is refused is refused before anything is changed."""

from collections.abc import Callable

from job.agent.hang import listen_for
from job.agent.loop import Loop
from job.agent.supervise import bury, failed_twice
from job.agent.trainer import Trainer

WHERE = "while it checked model, task and data"


def checked_trainer(
    loop: Loop,
    request_trainer: Callable[[], Trainer],
    on_crash: Callable[[str], None],
    *,
    hang_timeout_s: float,
    less_memory: str,
) -> Trainer:
    """One that has said what it found. As in training, one that crashes or hangs is started again, once.

    Raises Preempted on a notice, and what the trainer refuses or failed with.
    """
    trainer = _listen(loop, request_trainer(), hang_timeout_s)
    if trainer.checked is None and trainer.is_replaceable():
        trainer.kill()
        bury(loop, trainer)
        on_crash(trainer.why_lost().what)
        trainer = _listen(loop, request_trainer(), hang_timeout_s)
        if trainer.checked is None and trainer.is_replaceable():
            raise failed_twice(trainer, WHERE, less_memory)
    if trainer.checked is None:
        raise trainer.why_lost()
    return trainer


def _listen(loop: Loop, trainer: Trainer, hang_timeout_s: float) -> Trainer:
    listen_for(loop, trainer, lambda: trainer.checked is not None, hang_timeout_s)
    return trainer
