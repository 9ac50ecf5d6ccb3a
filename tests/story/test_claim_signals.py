"""Proves that a signal while an attempt takes the run over ends it in order: what it had taken it gives back, what it
had not is left alone, and the run goes on to the same weights. So it does after SIGKILL, which gives nothing back.
"""

import signal

import pytest
from attempts import Process, Run, tree

CHANGING = ["spec_written", "number_claimed", "head_taken", "first_objects"]


def start_at(run: Run, place: str) -> Process:
    """An attempt that has come to `place` (tests/story/claim_places.py), where it stays until `run.go_on`."""
    attempt = run.start(patches=[f"tests.story.claim_places:{place}"], env={"BATON_TEST_PLACE": str(run.marker(place))})
    run.wait_at(place, attempt)
    return attempt


def test_sigterm_just_before_leaves_nothing(run: Run, reference: str) -> None:
    attempt = start_at(run, "before_the_claim")
    attempt.kill(signal.SIGTERM)
    assert attempt.wait() == 75, attempt.err
    assert "stopped on SIGTERM. Nothing was changed; the same command tries again." in attempt.err
    assert not run.bucket.exists()
    assert run.finish() == reference


@pytest.mark.parametrize("place", CHANGING)
def test_what_sigterm_finds_half_taken_is_taken_and_given_back(run: Run, reference: str, place: str) -> None:
    attempt = start_at(run, place)
    attempt.kill(signal.SIGTERM)
    run.go_on(place)
    assert attempt.wait() == 75, attempt.err
    head = run.json("head.json")
    assert (head["attempt"], head["status"], head["checkpoint"]) == (1, "released", None)
    assert "stopped on SIGTERM. Nothing had been trained yet" in attempt.err
    assert run.finish() == reference


@pytest.mark.parametrize("place", CHANGING)
def test_of_a_run_that_has_begun_sigterm_loses_nothing(run: Run, reference: str, place: str) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    kept = {name: digest for name, digest in tree(run.bucket).items() if name.startswith("checkpoints/")}
    attempt = start_at(run, place)
    attempt.kill(signal.SIGTERM)
    run.go_on(place)
    assert attempt.wait() == 75, attempt.err
    head = run.json("head.json")
    assert (head["attempt"], head["status"], head["checkpoint"]["step"]) == (2, "released", 3)
    assert "Everything is safe up to step 3" in attempt.err
    assert {name: tree(run.bucket).get(name) for name in kept} == kept
    assert run.finish() == reference


def test_a_bucket_that_does_not_answer_holds_nobody_up(run: Run, reference: str) -> None:
    attempt = start_at(run, "number_claimed")
    attempt.kill(signal.SIGTERM)
    assert attempt.wait() == 75, attempt.err
    assert "stopped on SIGTERM. The run may have been claimed, nothing of it is lost" in attempt.err
    assert run.head() is None
    assert run.finish() == reference


@pytest.mark.parametrize("place", CHANGING)
def test_after_sigkill_the_next_attempt_goes_on(run: Run, reference: str, place: str) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    attempt = start_at(run, place)
    attempt.kill(signal.SIGKILL)
    assert attempt.wait() == -signal.SIGKILL
    assert run.durable_step() == 3
    assert run.finish() == reference
