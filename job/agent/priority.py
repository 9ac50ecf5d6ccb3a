"""The agent's place behind its trainer in the scheduler's queue."""

import contextlib
import os


def stand_back() -> None:
    """From now on this thread, and those that it starts, wake without interrupting whoever computes.

    A message from the trainer wakes the agent on the trainer's own core where no other is free, and the kernel would
    let the agent run a slice of 3 ms first: most of the time for which the loop was held (docs/benchmarks.md). Batch
    work waits for the next tick instead (sched(7), SCHED_BATCH); its share of the time stays the same.
    """
    with contextlib.suppress(PermissionError):  # a container may forbid it; it is only slower then
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
