"""Proves what an attempt says: what it takes, how it ended, and never more than it knows."""

from job.agent.words import available_memory_bytes, end_lines, plan_lines
from job.errors import NeedsPerson, Preempted

READY = {"parameters": 1_000_000, "trained_parameters": 20_000, "state_bytes": 240_000, "max_steps": 10}


def test_the_plan_says_what_snapshots_take() -> None:
    assert plan_lines(READY, 3, 10**9) == [
        "training 20,000 of 1,000,000 parameters for 10 steps; 3 snapshots in memory take 720.0 kB (240.0 kB each)"
    ]


def test_more_than_the_memory_there_is_is_warned_of() -> None:
    lines = plan_lines(READY, 3, 500_000)
    assert lines[1].startswith("warning: only 500.0 kB of memory are available")
    assert "checkpoint.slots = 2" in lines[1]


def test_available_memory_is_read_where_it_is_told() -> None:
    assert available_memory_bytes("MemTotal: 8 kB\nMemAvailable:    4 kB\n") == 4096
    assert available_memory_bytes("MemTotal: 8 kB\n") is None


def test_an_attempt_that_claimed_nothing_changed_nothing() -> None:
    assert end_lines(Preempted("stopped on SIGTERM."), None) == [
        "stopped on SIGTERM. Nothing was changed; the same command tries again."
    ]


def test_an_error_says_what_and_what_to_do() -> None:
    assert end_lines(NeedsPerson("no disk.", fix="Buy one."), None) == ["error: no disk.\n  Buy one."]
