"""Proves that a signal ends an attempt soon and in order, whatever the trainer is doing, and that a second Ctrl-C
ends it at once.

A reward that holds the GIL, an upload that hangs, a signal to the whole process group: 75 each time, and the run goes
on to the same weights.
"""

import signal
import time

import pytest
from attempts import Run, lives, wait_until

PLACES = ["generation", "mid_accumulation", "upload", "finishing"]


def status(run: Run) -> str:
    head = run.head()
    assert head is not None
    return str(head["status"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_wait_for_a_reward_that_holds_the_gil(
    run: Run, reference: str, number: signal.Signals
) -> None:
    marker = run.folder / "holds-the-gil"
    attempt = run.start(env={"STORY_HOLD_GIL": str(marker)})
    wait_until(lambda: marker.exists() or not attempt.lives(), f"the reward\n{attempt.err}")
    began_s = time.monotonic()
    attempt.kill(number)
    assert attempt.wait() == 75, attempt.err
    print(f"ended {time.monotonic() - began_s:.2f} s after {number.name}")
    assert not marker.with_name("holds-the-gil.done").exists(), "the attempt waited for the reward"
    assert status(run) == "released"
    assert run.durable_step() == 0
    assert run.finish() == reference


def test_a_reward_that_holds_the_gil_dies_with_the_agent(run: Run, reference: str) -> None:
    marker = run.folder / "holds-the-gil"
    attempt = run.start(env={"STORY_HOLD_GIL": str(marker)})
    wait_until(lambda: marker.exists() or not attempt.lives(), f"the reward\n{attempt.err}")
    trainer = attempt.trainer_pid()
    assert trainer is not None
    attempt.kill(signal.SIGKILL)
    assert attempt.wait() == -signal.SIGKILL
    wait_until(lambda: not lives(trainer), "the end of the trainer, whose agent is gone")
    assert not marker.with_name("holds-the-gil.done").exists()
    assert run.finish() == reference


@pytest.mark.parametrize("place", PLACES)
def test_one_interrupt_saves_and_ends_with_75(run: Run, reference: str, place: str) -> None:
    attempt = run.start_at(place)
    attempt.kill(signal.SIGINT)
    run.go_on(place)
    assert attempt.wait() == 75, attempt.err
    assert status(run) == ("finishing" if place == "finishing" else "released")
    assert "the same command goes on from there." in attempt.err
    assert run.finish() == reference


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_process_group_is_the_agents_business(
    run: Run, reference: str, number: signal.Signals
) -> None:
    attempt = run.start_at("mid_accumulation")
    attempt.kill_group(number)
    assert attempt.wait() == 75, attempt.err
    assert "crashed" not in attempt.err
    assert (status(run), run.durable_step()) == ("released", 3)
    assert run.finish() == reference


def test_a_second_interrupt_ends_at_once_although_an_upload_hangs(run: Run, reference: str) -> None:
    attempt = run.start_at("upload")
    trainer = attempt.trainer_pid()
    assert trainer is not None
    attempt.kill(signal.SIGINT)
    wait_until(lambda: not lives(trainer), "the first interrupt: the trainer is killed, the flush begins")
    assert attempt.lives(), "the flush waits for the upload"
    attempt.kill(signal.SIGINT)
    assert attempt.wait() == 75, attempt.err
    assert "second interrupt: leaving at once" in attempt.err
    assert status(run) == "running", "nobody released it"
    assert run.finish() == reference
