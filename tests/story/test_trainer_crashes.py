"""Proves that a crash of the trainer alone loses nothing but the step under way, and buys no batch twice.

Real trainers, killed from outside at random moments and in the middle of a copy and of scoring, while their agent
lives on: it starts them again from its memory, until the same step has failed twice.
"""

import random
import signal
from os import kill
from pathlib import Path

import pytest
from attempts import Process, Run, random_moments, wait_until, weights_sha256

CRASHES = [signal.SIGKILL, signal.SIGSEGV]
TRACE = "tests.story.places:trace"


def crash(attempt: Process, number: signal.Signals) -> None:
    """Kills the trainer that computes now."""
    trainer = attempt.trainer_pid()
    assert trainer is not None
    kill(trainer, number)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def steps_it_went_on_from(run: Run) -> list[int | None]:
    return [event["step"] for event in run.events("trainer_crashed")]


@pytest.mark.parametrize("number", CRASHES)
def test_a_trainer_that_crashes_at_random_moments_is_started_again_from_memory(
    run: Run, reference: str, number: signal.Signals
) -> None:
    moments = random_moments()
    trace = run.folder / "trace"
    attempt = run.start(patches=[TRACE], env={"BATON_TEST_TRACE": str(trace)})
    seen = 0
    possible: list[set[int]] = []
    for _ in range(2):
        seen = crash_after_a_publish(attempt, number, trace, seen, moments, possible)
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(run) == reference
    went_on_from = steps_it_went_on_from(run)
    assert len(went_on_from) == len(possible)
    for step, newest in zip(went_on_from, possible, strict=True):
        assert step in newest, "the newest boundary that the trainer had published"
    assert run.json("head.json")["attempt"] == 1
    assert f"signal {number.name}" in attempt.err
    assert batches_bought_twice(lines(trace)) == []


def crash_after_a_publish(
    attempt: Process, number: signal.Signals, trace: Path, seen: int, moments: random.Random, possible: list[set[int]]
) -> int:
    """Kills the trainer some time after it has published since line `seen`, so that no step fails twice.

    Adds the steps that it may go on from; returns the lines that the dead trainer left.
    """
    wanted = seen + moments.randrange(1, 12)

    def is_time() -> bool:
        new = lines(trace)[seen:]
        published = [line for line in new if line.startswith("published")]
        return not attempt.lives() or (published != [] and len(lines(trace)) >= wanted)

    wait_until(is_time, "a publish")
    for _ in range(moments.randrange(100_000)):
        pass
    trainer = attempt.trainer_pid()
    if trainer is None or not attempt.lives():  # it was faster and is finished
        return seen
    kill(trainer, number)
    wait_until(lambda: attempt.trainer_pid() != trainer, "the trainer's end")
    left = lines(trace)
    left = left[: next((i for i, line in enumerate(left) if i > seen and line == "run"), len(left))]
    if "finished" in attempt.err:
        return len(left)
    steps = [int(line.split()[1]) for line in left if line.startswith("published")]
    begun = [int(line.split()[1]) for line in left if line.startswith("publishing")]
    possible.append({steps[-1], begun[-1]})
    return len(left)


def batches_bought_twice(trace: list[str]) -> list[str]:
    """Generation batches that were scored again although they had been handed over."""
    handed_over: set[str] = set()
    twice = []
    for line in trace:
        what, _, micro_step = line.partition(" ")
        if what == "scored":
            handed_over.add(micro_step)
        elif what == "scoring" and micro_step in handed_over:
            twice.append(micro_step)
    return twice


@pytest.mark.parametrize("number", CRASHES)
@pytest.mark.parametrize(("place", "step", "bought"), [("staging", 2, 2), ("scoring", 4, 2), ("scored", 4, 2)])
def test_a_trainer_that_crashes_at_a_place_goes_on_from_the_boundary_before(
    run: Run, reference: str, place: str, step: int, bought: int, number: signal.Signals
) -> None:
    bill = run.folder / "bill"
    attempt = run.start_at(place, env={"STORY_BILL": str(bill)})
    crash(attempt, number)
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(run) == reference
    assert steps_it_went_on_from(run) == [step]
    assert f"the trainer crashed (the trainer ended by itself: signal {number.name}.)" in attempt.err
    assert f"starting it again from step {step}" in attempt.err
    assert len(lines(bill)) == bought, "only a batch that nobody had scored yet is generated again"


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("evaluation", 3),  # it belongs to step 4, whose boundary comes after it
        pytest.param("generation", 4, marks=pytest.mark.long),
        pytest.param("mid_accumulation", 3, marks=pytest.mark.long),
        pytest.param("adapter_files", 6, marks=pytest.mark.long),
    ],
)
def test_a_trainer_that_is_killed_between_two_boundaries_goes_on_from_the_first(
    run: Run, reference: str, place: str, step: int
) -> None:
    attempt = run.start_at(place)
    crash(attempt, signal.SIGKILL)
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(run) == reference
    assert steps_it_went_on_from(run) == [step]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSEGV, 1), (signal.SIGKILL, 3)])
def test_the_same_step_failing_twice_ends_the_attempt_and_the_run_resumes(
    run: Run, reference: str, number: signal.Signals, code: int
) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    attempt = run.start_at("first_micro_step")
    run.marker("first_micro_step").unlink()  # the next trainer stays there too
    crash(attempt, number)
    run.wait_at("first_micro_step", attempt)
    crash(attempt, number)
    assert attempt.wait() == code, attempt.err
    errors = [line for line in attempt.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, attempt.err
    assert "twice after step 3" in errors[0]
    assert "Traceback" not in attempt.err
    assert run.durable_step() == 3
    assert run.finish() == reference


@pytest.mark.parametrize("number", CRASHES)
def test_a_trainer_that_crashes_while_it_loads_the_model_is_started_again(
    run: Run, reference: str, number: signal.Signals
) -> None:
    attempt = run.start_at("model_loading")
    crash(attempt, number)
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(run) == reference
