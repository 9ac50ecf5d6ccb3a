"""Proves that an attempt looks again before it changes the run: what another attempt or a person did since its first
look, while it checked and loaded, is heeded, and nothing is written for nothing.
"""

from attempts import Process, Run, tree, weights_sha256

from job.run.claims import claim_process, update_claims
from job.storage import open_bucket

PLACE = "before_the_claim"


def start_before_the_claim(run: Run, **env: str) -> Process:
    """An attempt that has looked and checked, and stays there until `run.go_on`."""
    attempt = run.start(
        patches=[f"tests.story.claim_places:{PLACE}"], env={"BATON_TEST_PLACE": str(run.marker(PLACE)), **env}
    )
    run.wait_at(PLACE, attempt)
    return attempt


def test_a_run_that_another_attempt_finishes_meanwhile_is_finished_and_not_claimed_again(
    run: Run, reference: str
) -> None:
    late = start_before_the_claim(run)
    assert run.finish() == reference
    before = tree(run.bucket)
    run.go_on(PLACE)
    assert late.wait() == 0, late.err
    assert f"{run.uri} is finished: its result is in {run.uri}/result" in late.err
    assert tree(run.bucket) == before
    assert weights_sha256(run) == reference


def test_an_attempt_that_is_superseded_meanwhile_writes_nothing(run: Run) -> None:
    bucket = open_bucket(run.uri)
    claim_process(bucket, host="here", pid=1)
    late = start_before_the_claim(run, BATON_ATTEMPT="1")
    claim_process(bucket, host="there", pid=2)
    before = tree(run.bucket)
    run.go_on(PLACE)
    assert late.wait() == 4, late.err
    assert f"error: attempt 2 of {run.uri} is claimed; this is attempt 1." in late.err
    assert tree(run.bucket) == before


def test_a_run_that_is_stopped_meanwhile_is_left_alone(run: Run) -> None:
    late = start_before_the_claim(run)
    update_claims(open_bucket(run.uri), lambda claims: claims.model_copy(update={"want": "stop"}))
    before = tree(run.bucket)
    run.go_on(PLACE)
    assert late.wait() == 3, late.err
    assert f"error: the run {run.uri} is stopped." in late.err
    assert tree(run.bucket) == before
