"""Writes of one name are kept an interval apart, other names wait for nobody."""

from job.storage.pace import Pace


def test_turns_of_one_name_are_an_interval_apart() -> None:
    pace = Pace(1.0)
    assert [pace.wait_s("head.json", at) for at in (10.0, 10.0, 10.5, 20.0)] == [0.0, 1.0, 1.5, 0.0]


def test_another_name_does_not_wait() -> None:
    pace = Pace(1.0)
    pace.wait_s("head.json", 10.0)
    assert pace.wait_s("claims.json", 10.0) == 0.0


def test_names_that_are_written_once_are_forgotten() -> None:
    pace = Pace(1.0)
    for number in range(1000):
        pace.wait_s(f"segment-{number}", number * 2.0)
    assert len(pace._next_s) == 1
