"""Proves that a bug in the agent ends an attempt as other trouble does: what is in memory is saved, exit 1."""

from types import TracebackType
from typing import Self

import pytest

from job import __main__ as agent
from job.errors import BatonError, ExitCode


class BrokenAttempt:
    """Stands for an Attempt whose first step meets what cannot be."""

    ended_with: BatonError | None = None

    def __init__(self, arguments: object, notice: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def look(self) -> bool:
        raise AssertionError("this cannot be")

    def end(self, error: BatonError | None) -> int:
        type(self).ended_with = error
        return ExitCode.FINISHED if error is None else error.exit_code


def test_a_bug_in_the_agent_is_an_end_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("job.agent.attempt.Attempt", BrokenAttempt)
    monkeypatch.setattr("job.preemption.install", lambda: None)
    assert agent.main(["--run", "file:///nowhere"]) == ExitCode.BUG
    assert BrokenAttempt.ended_with is not None
    assert BrokenAttempt.ended_with.what.startswith("Traceback")
    assert BrokenAttempt.ended_with.what.endswith("AssertionError: this cannot be")
