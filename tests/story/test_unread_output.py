"""Proves that an attempt whose output nobody reads (a pipe that is full, a terminal after Ctrl-S) trains, hears of its
notice and ends as any other.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from attempts import ROOT, Process, Run, attempt_env, weights_sha256

USUAL_S = 10.0  # what `docker stop` gives
ONE_PAGE = 4096


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe in which there is no room."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, ONE_PAGE)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


def start(run: Run, stderr: int) -> Process:
    """A cold attempt whose stderr is that pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "job", *run.argv()],
        cwd=run.workplace,
        env=attempt_env({"PYTHONPATH": str(ROOT)}),
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        start_new_session=True,
    )
    (run.folder / "unread.err").touch()
    return Process(process.pid, run.folder, lambda wait_s: process.wait(wait_s), "unread")


def test_sigterm_is_heard_although_nobody_reads(run: Run, full_pipe: int) -> None:
    run.settings.append("train.max_steps=100000")
    attempt = start(run, full_pipe)
    run.wait_for_step(2, attempt)
    began_s = time.monotonic()
    attempt.kill(signal.SIGTERM)
    assert attempt.wait() == 75
    ended_s = time.monotonic() - began_s
    print(f"ended {ended_s:.2f} s after SIGTERM")
    assert ended_s < USUAL_S
    assert run.json("head.json")["status"] == "released"
    ended = run.json("attempts/0001/attempt.json")["ended"]
    assert ended["exit_code"] == 75
    logs = "".join(path.read_text() for path in sorted(run.bucket.glob("attempts/0001/logs/*")))
    assert "stopped on SIGTERM" in logs, "what nobody read is in the run's log"


def test_a_run_is_finished_although_nobody_reads(run: Run, reference: str, full_pipe: int) -> None:
    attempt = start(run, full_pipe)
    assert attempt.wait() == 0
    assert weights_sha256(run) == reference


def test_a_second_interrupt_leaves_at_once_although_nobody_reads(run: Run, full_pipe: int) -> None:
    run.settings.append("train.max_steps=100000")
    attempt = start(run, full_pipe)
    run.wait_for_step(2, attempt)
    attempt.kill(signal.SIGINT)
    with contextlib.suppress(ProcessLookupError):  # the first may have been enough
        attempt.kill(signal.SIGINT)
    assert attempt.wait() == 75
