"""Work in several streams: results in order, the first error ends it, and no more is taken ahead than can run."""

import threading
from collections.abc import Callable, Iterator

import pytest

from job.storage.parallel import in_parallel


def test_results_come_in_the_order_of_the_jobs_and_streams_work_at_once() -> None:
    meet = threading.Barrier(4)

    def job(number: int) -> Callable[[], int]:
        return lambda: (meet.wait(20), number)[1]

    assert in_parallel((job(n) for n in range(12)), 4) == list(range(12))


def test_nothing_to_do_is_done() -> None:
    assert in_parallel((), 4) == []


def test_the_first_error_is_raised_and_nothing_more_is_begun() -> None:
    begun = []

    def jobs() -> Iterator[Callable[[], None]]:
        for number in range(1000):
            begun.append(number)
            yield fail if number == 3 else lambda: None

    def fail() -> None:
        raise ValueError("the fourth")

    with pytest.raises(ValueError, match="the fourth"):
        in_parallel(jobs(), 1)
    assert len(begun) < 10


def test_a_source_that_breaks_is_raised_after_what_runs_has_ended() -> None:
    ended = threading.Event()

    def jobs() -> Iterator[Callable[[], None]]:
        yield ended.set
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        in_parallel(jobs(), 4)
    assert ended.is_set()
    assert [thread for thread in threading.enumerate() if thread.name == "transfer"] == []


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken, done, most = [0], [0], [0]

    def jobs() -> Iterator[Callable[[], None]]:
        for _ in range(50):
            taken[0] += 1
            most[0] = max(most[0], taken[0] - done[0])
            yield finish

    def finish() -> None:
        done[0] += 1

    in_parallel(jobs(), 1)
    assert most[0] <= 4
