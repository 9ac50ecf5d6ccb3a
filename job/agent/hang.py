"""A trainer that hangs: told from one that is slow, made to say where it stands, ended."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from job.agent.loop import Loop
from job.agent.trainer import Trainer
from job.errors import BatonError, Transient

LOOK_EVERY_S = 1.0
STACKS_S = 2.0  # for faulthandler to write every thread's stack before the trainer is killed
# A download or a load that moves less between two looks that count is no progress: a stalled one too writes log lines
# and reads certificates again.
PROGRESS_BYTES = 1 << 20


def listen_for(loop: Loop, trainer: Trainer, has_come: Callable[[], bool], hang_timeout_s: float) -> None:
    """Serves events until `has_come`, or the trainer is lost; ends one that makes no progress for so long.

    Progress of a trainer that checks or loads is a message, or bytes that it reads and writes: of a model that
    is downloaded, hashed or loaded, which takes as long as it takes. Raises Preempted on any notice.
    """
    moved, moved_s = 0, time.monotonic()
    while not loop.until(lambda: has_come() or trainer.is_lost(), timeout_s=LOOK_EVERY_S):
        now_moved, now_s = bytes_moved(trainer.worker()), time.monotonic()
        if abs(now_moved - moved) >= PROGRESS_BYTES:  # it falls when the spawner has forked and the trainer is asked
            moved, moved_s = now_moved, now_s
        if now_s - max(moved_s, trainer.last_progress_s) > hang_timeout_s:
            end_hung(loop, trainer, hang_timeout_s)
            return


def end_hung(loop: Loop, trainer: Trainer, silent_s: float) -> None:
    """Lets the trainer print where every thread is, and kills it: it has made no progress for `silent_s`."""
    if not trainer.is_forked():
        trainer.failure = Transient(
            f"the trainer's libraries are not imported after {silent_s:.0f} s.", fix="A slow disk? Try again."
        )
        return
    trainer.dump_stacks()
    with contextlib.suppress(BatonError):
        loop.until(lambda: trainer.ended is not None, timeout_s=STACKS_S, heed="never")
    trainer.kill()
    trainer.failure = BatonError(f"no progress for {silent_s:.0f} s: the trainer hangs.")


def bytes_moved(pid: int | None) -> int:
    """What a process has read and written so far; 0 where the kernel does not say, or there is no process."""
    try:
        return io_bytes(Path(f"/proc/{pid}/io").read_text())
    except OSError:
        return 0


def io_bytes(text: str) -> int:
    """Bytes in the text of /proc/PID/io (proc(5)): through system calls, and of mapped files from the disk; pure."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return sum(int(fields.get(name, 0)) for name in ("rchar", "wchar", "read_bytes"))
