"""Proves that a notice which comes while an attempt takes the run over leaves nothing owned that nobody releases, and
that of a run which is finished, stopped or another's by then nothing is taken.
"""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from faults import FaultyBucket

from job.agent.attempt import Attempt
from job.agent.claiming import claim, is_left_to_do
from job.agent.loop import Loop
from job.errors import Fenced, NeedsPerson, Preempted
from job.preemption import Deadline
from job.run.claims import claim_process, update_claims
from job.run.head import Owner, Status, read_head
from job.run.layout import CLAIMS
from job.storage import Bucket


def test_a_take_over_that_succeeds_as_the_notice_comes_is_known_on_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    notice: Any = SimpleNamespace(deadline=None)

    def take(bucket: object, number: object, fingerprint: object) -> str:
        notice.deadline = Deadline("SIGTERM", time.monotonic() + 10, immediate=True)
        return "the run is this attempt's"

    monkeypatch.setattr("job.agent.attempt.claim", take)
    monkeypatch.setattr("job.agent.attempt.is_left_to_do", lambda *asked: True)
    monkeypatch.setattr("job.agent.attempt.write_spec_for", lambda *asked: SimpleNamespace(fingerprint=""))
    attempt: Any = object.__new__(Attempt)
    attempt.loop, attempt.bucket = Loop(notice), None
    attempt.trainer = SimpleNamespace(checked={"model": {"name": "tiny"}})
    attempt.wanted, attempt.arguments = SimpleNamespace(settings=None), SimpleNamespace(attempt=None)

    with pytest.raises(Preempted):
        attempt.claim()
    assert attempt.claimed == "the run is this attempt's"


def finish(bucket: Bucket) -> None:
    """As the attempt that made the last step does."""
    Owner.take_over(bucket, claim_process(bucket, host="other", pid=1)[0].number).publish(status=Status.FINISHED)


def test_a_run_that_was_finished_meanwhile_is_not_claimed(bucket: Bucket) -> None:
    finish(bucket)
    before = tree(bucket)
    assert not is_left_to_do(bucket, None)
    assert claim(bucket, None, "") is None
    assert tree(bucket) == before


def test_a_run_that_is_finished_as_its_number_is_claimed_is_left_as_it_is(faulty: FaultyBucket) -> None:
    owner = Owner.take_over(faulty.inner, claim_process(faulty.inner, host="other", pid=1)[0].number)

    def finish_first(number: int, method: str, name: str) -> None:
        if (method, name) == ("write", CLAIMS):
            faulty.before = lambda number, method, name: None
            owner.publish(status=Status.FINISHED)

    faulty.before = finish_first
    assert claim(faulty, None, "") is None
    head = read_head(faulty)
    assert head is not None
    assert head.owner == (1, 0)


def test_a_run_that_was_stopped_meanwhile_is_refused_before_anything_is_written(bucket: Bucket) -> None:
    update_claims(bucket, lambda claims: claims.model_copy(update={"want": "stop", "reason": "the cap is reached"}))
    with pytest.raises(NeedsPerson, match="the cap is reached"):
        is_left_to_do(bucket, None)


def test_an_attempt_that_was_superseded_meanwhile_is_refused_before_anything_is_written(bucket: Bucket) -> None:
    for pid in (1, 2):
        claim_process(bucket, host="here", pid=pid)
    assert is_left_to_do(bucket, 2)
    with pytest.raises(Fenced, match=r"attempt 2 of .* is claimed; this is attempt 1"):
        is_left_to_do(bucket, 1)


def tree(bucket: Bucket) -> dict[str, int]:
    """The generation of every object."""
    return {info.name: info.generation for info in bucket.list("")}
