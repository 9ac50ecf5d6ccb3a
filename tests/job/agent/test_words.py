"""Proves what an attempt says: what it takes, how it ended, and never more than it knows."""

from job.agent.words import available_memory_bytes, end_lines, kl_is_news, kl_line, plan_lines
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


def test_a_notice_while_the_run_is_claimed_does_not_say_that_nothing_was_changed() -> None:
    assert end_lines(Preempted("stopped on SIGTERM."), None, claiming=True) == [
        "stopped on SIGTERM. The run may have been claimed, nothing of it is lost; the same command goes on."
    ]


def test_an_error_says_what_and_what_to_do() -> None:
    assert end_lines(NeedsPerson("no disk.", fix="Buy one."), None) == ["error: no disk.\n  Buy one."]


def test_a_kl_that_grows_is_told_when_it_passes_the_limit_and_each_time_it_doubles() -> None:
    told: float | None = None
    warned = []
    for kl in (0.1, 0.4, 0.6, 0.7, 1.1, 1.3, 2.0, 2.7):
        if kl_is_news({"step": 1, "kl": kl}, 0.5, told):
            told = kl
            warned.append(kl)
    assert warned == [0.6, 1.3, 2.7]


def test_without_a_kl_or_a_limit_there_is_nothing_to_tell() -> None:
    assert not kl_is_news({"step": 1, "reward": 3.0}, 0.5, None)
    assert not kl_is_news({"step": 1, "kl": 9.0}, None, None)


def test_the_warning_names_the_step_and_what_to_do() -> None:
    line = kl_line({"step": 7, "kl": 0.61})
    assert line.startswith("warning: at step 7 the model is 0.61 nats per token away")
    assert "train.beta" in line
