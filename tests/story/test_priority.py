"""Proves that a message to the agent does not interrupt the trainer: every thread of the agent is batch work."""

import os
from pathlib import Path

from attempts import Run, weights_sha256


def policies(pid: int) -> set[int]:
    """The scheduling policies of a process's threads."""
    return {os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}


def test_every_thread_of_the_agent_stands_back_and_none_of_the_trainer_does(run: Run, reference: str) -> None:
    attempt = run.start_at("scoring")
    trainer = attempt.trainer_pid()
    assert trainer is not None
    assert policies(attempt.pid) == {os.SCHED_BATCH}
    assert policies(trainer) == {os.SCHED_OTHER}
    run.go_on("scoring")
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(run) == reference
