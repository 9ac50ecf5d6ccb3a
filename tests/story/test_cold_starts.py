"""Proves the same of attempts as a user starts them, a new interpreter each: a signal while they import ends them with
75 and leaves nothing in the run, and a run killed cold resumes and finishes cold.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attempts import Process, Run, attempt_env, random_moments, wait_until, weights_sha256

SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
MOST_LIBRARIES = 200  # an importing spawner maps at least so many, which takes it seconds


def is_safe(pid: int) -> bool:
    """Whether SIGTERM has a handler or is blocked: before that no program can answer for it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return bool((int(fields["SigCgt"], 16) | int(fields["SigBlk"], 16)) & SIGTERM_BIT)


def mapped_files(attempt: Process) -> int:
    """How many libraries the spawner has loaded so far: how far its imports are."""
    try:
        (spawner,) = attempt.children()
        maps = Path(f"/proc/{spawner}/maps").read_text()
    except (ValueError, FileNotFoundError, ProcessLookupError):
        return 0
    return len({line.split()[-1] for line in maps.splitlines() if line.endswith(".so") or ".so." in line})


def test_sigterm_as_soon_as_there_is_a_handler_gives_75_and_writes_nothing(run: Run) -> None:
    attempt = run.start_cold()
    wait_until(lambda: is_safe(attempt.pid), "handlers")
    attempt.kill(signal.SIGTERM)
    assert attempt.wait() == 75, attempt.err
    assert not run.bucket.exists()


@pytest.mark.parametrize("nth", range(3))
def test_sigterm_at_a_random_moment_of_the_imports_gives_75_and_writes_nothing(run: Run, nth: int) -> None:
    moments = random_moments()
    files = [moments.randrange(1, MOST_LIBRARIES) for _ in range(nth + 1)][nth]
    attempt = run.start_cold()
    wait_until(lambda: mapped_files(attempt) >= files or attempt.trainer_pid() is not None, f"{files} libraries")
    attempt.kill(signal.SIGTERM)
    assert attempt.wait() == 75, attempt.err
    assert not run.bucket.exists()
    assert "stopped on SIGTERM" in attempt.err


def test_a_run_that_is_killed_cold_resumes_and_finishes_cold(run: Run, reference: str) -> None:
    first = run.start_cold("first")
    run.wait_for_step(1, first)
    first.kill(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, first.err
    reached = run.durable_step()
    last = run.start_cold("last")
    assert last.wait() == 0, last.err
    assert f"step {reached}" in last.err, "its first line says where it resumed"
    assert weights_sha256(run) == reference


def test_baton_train_ends_with_75_on_sigterm_and_goes_on(run: Run, reference: str) -> None:
    moments = random_moments()
    durable = moments.randrange(-1, 5)
    attempt = baton_train(run)
    if durable < 0:
        wait_until(lambda: is_safe(attempt.pid), "baton's first lines")
    else:
        run.wait_for_step(durable, attempt)
    attempt.kill(signal.SIGTERM)
    assert attempt.wait() in ((75,) if durable < 0 else (75, 0)), attempt.err
    assert run.finish() == reference


def baton_train(run: Run) -> Process:
    """Starts `baton train`, as in README."""
    baton = Path(sys.executable).with_name("baton")
    with (run.folder / "baton.err").open("wb") as err:
        process = subprocess.Popen(
            [baton, "train", *run.argv()], cwd=run.workplace, env=attempt_env({}), stdout=err, stderr=err
        )
    return Process(process.pid, run.folder, lambda wait_s: process.wait(wait_s), "baton")
