"""Proves that an attempt does what control/claims.json says, and that a run which is stopped, failed, finished or
another attempt's is left alone, with the exit code and the line for it.
"""

import json
import signal

import pytest
from attempts import Run, tree, weights_sha256

from job.run.claims import Want, update_claims
from job.storage import open_bucket


def want(run: Run, what: Want, reason: str | None = None) -> None:
    """Says it in claims.json, as `baton stop`, the crash-loop rule and `baton resume` do."""
    update_claims(open_bucket(run.uri), lambda claims: claims.model_copy(update={"want": what, "reason": reason}))


@pytest.mark.parametrize(
    ("what", "reason", "line"),
    [
        ("stop", "the cap is reached", "is stopped: the cap is reached."),
        ("failed", "three crashes at step 3", "has failed: three crashes at step 3."),
    ],
)
def test_a_run_that_is_not_wanted_any_more_is_saved_and_released(
    run: Run, reference: str, what: Want, reason: str, line: str
) -> None:
    attempt = run.start_at("mid_accumulation")
    want(run, what, reason)
    assert attempt.wait() == 75, attempt.err
    assert reason in attempt.err
    head = run.json("head.json")
    assert (head["status"], head["checkpoint"]["step"]) == ("released", 3)

    before = tree(run.bucket)
    refused = run.start()
    assert refused.wait() == 3
    assert f"error: the run {run.uri} {line}" in refused.err
    assert "baton resume" in refused.err
    assert tree(run.bucket) == before

    want(run, "run")
    assert run.finish() == reference


def test_a_finished_run_is_left_as_it_is(run: Run, reference: str) -> None:
    assert run.finish() == reference
    rows = (run.bucket / "result/metrics.jsonl").read_text().splitlines()
    assert "train_loss" in json.loads(rows[-1]), "the row that comes after the last checkpoint"
    before = tree(run.bucket)
    again = run.start()
    assert again.wait() == 0
    assert f"{run.uri} is finished: its result is in {run.uri}/result" in again.err
    assert tree(run.bucket) == before


def test_an_attempt_below_the_newest_claim_ends_with_4(run: Run, reference: str) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    assert run.kill_at("generation", signal.SIGTERM) == 75
    before = tree(run.bucket)
    late = run.start(env={"BATON_ATTEMPT": "1"})
    assert late.wait() == 4
    assert f"error: attempt 2 of {run.uri} is claimed; this is attempt 1." in late.err
    assert tree(run.bucket) == before
    assert run.finish() == reference


def test_the_newest_claim_started_again_is_its_next_incarnation(run: Run, reference: str) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGKILL) == -signal.SIGKILL
    again = run.start(env={"BATON_ATTEMPT": "1"})
    assert again.wait() == 0, again.err
    head = run.json("head.json")
    assert (head["attempt"], head["incarnation"]) == (1, 1)
    assert weights_sha256(run) == reference


def test_a_number_that_nobody_claimed_is_refused(run: Run) -> None:
    attempt = run.start(env={"BATON_ATTEMPT": "7"})
    assert attempt.wait() == 2
    assert f"error: attempt 7 of {run.uri} was never claimed." in attempt.err
    assert not (run.bucket / "head.json").exists()
