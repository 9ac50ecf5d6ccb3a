"""Proves that a notice which comes while an attempt takes the run over leaves nothing owned that nobody releases."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from job.agent.attempt import Attempt
from job.agent.loop import Loop
from job.errors import Preempted
from job.preemption import Deadline


def test_a_take_over_that_succeeds_as_the_notice_comes_is_known_on_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    notice: Any = SimpleNamespace(deadline=None)

    def claim(bucket: object, number: object, fingerprint: object) -> str:
        notice.deadline = Deadline("SIGTERM", time.monotonic() + 10, immediate=True)
        return "the run is this attempt's"

    monkeypatch.setattr("job.agent.attempt.claim", claim)
    monkeypatch.setattr("job.agent.attempt.write_spec_for", lambda *asked: SimpleNamespace(fingerprint=""))
    attempt: Any = object.__new__(Attempt)
    attempt.loop, attempt.bucket = Loop(notice), None
    attempt.trainer = SimpleNamespace(checked={"model": {"name": "tiny"}})
    attempt.wanted, attempt.arguments = SimpleNamespace(settings=None), SimpleNamespace(attempt=None)

    with pytest.raises(Preempted):
        attempt.claim()
    assert attempt.claimed == "the run is this attempt's"
