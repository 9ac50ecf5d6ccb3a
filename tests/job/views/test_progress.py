"""Progress: the same fields on a terminal and in a log, and nothing that a run says can play with the terminal."""

import contextlib
import io
import os
import pty
import re
from collections.abc import Callable

import pytest

from job.run.attempt import ResumedFrom
from job.views.progress import Fields, Progress, format_line, resumed_line, seconds
from job.views.text import printable, printable_lines


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "loss": 0.0123, "reward": 0.41, "reward_std": 0.22, "step_time": 0.25, **more}


def lines_of(use: Callable[[Progress, Clock], None], max_steps: int = 100) -> list[str]:
    """What a log shows."""
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock)
    progress.begin(max_steps)
    use(progress, clock)
    progress.close()
    return stream.getvalue().splitlines()


def test_a_log_line_has_every_field() -> None:
    def use(progress: Progress, clock: Clock) -> None:
        progress.row(row(11, num_tokens=1000))
        progress.durable(11)
        clock.now_s += 7
        progress.row(row(12, num_tokens=1500))

    assert lines_of(use) == [
        "step 11/100  reward 0.41 ± 0.22  loss 0.0123  0.25 s/step  - tokens/s  nothing durable yet",
        "step 12/100  reward 0.41 ± 0.22  loss 0.0123  0.25 s/step  2000 tokens/s  step 11 durable for 7 s",
    ]


def test_a_log_gets_few_lines_and_always_the_last_step() -> None:
    def use(progress: Progress, clock: Clock) -> None:
        for step in range(1, 101):
            progress.row(row(step))
            clock.now_s += 0.125

    shown = [line.split("/")[0] for line in lines_of(use)]
    assert shown == ["step 1", "step 41", "step 81", "step 100"]


def test_the_age_is_that_of_the_step_not_of_the_last_word() -> None:
    def use(progress: Progress, clock: Clock) -> None:
        progress.durable(3)
        clock.now_s += 30
        progress.durable(3)
        progress.row(row(9))

    assert lines_of(use)[0].endswith("step 3 durable for 30 s")


def test_an_evaluation_is_told_and_the_summary_is_not() -> None:
    def use(progress: Progress, clock: Clock) -> None:
        progress.row({"step": 5, "eval_reward": 0.5, "eval_loss": 0.1})
        progress.row({"step": 5, "train_runtime": 1.0, "train_loss": 0.1})

    assert lines_of(use) == ["step 5: evaluation: reward 0.5"]


def test_rows_that_lack_fields_or_are_not_finite_are_shown_all_the_same() -> None:
    def use(progress: Progress, clock: Clock) -> None:
        progress.row({"step": 1, "reward": None})
        clock.now_s += 10
        progress.row({"step": 2, "reward": float("nan"), "loss": 1e-9, "num_tokens": 5})

    assert lines_of(use) == [
        "step 1/100  reward - ± -  loss -  - s/step  - tokens/s  nothing durable yet",
        "step 2/100  reward nan ± -  loss 1.0e-09  - s/step  - tokens/s  nothing durable yet",
    ]


def test_without_a_known_end_the_step_stands_alone() -> None:
    assert format_line(Fields(step=3)).startswith("step 3  reward")


@pytest.mark.parametrize(
    ("resumed", "end"),
    [
        (ResumedFrom(step=12, folder="checkpoints/000012-0001-ab"), "nothing was lost"),
        (
            ResumedFrom(step=12, folder="checkpoints/000012-0001-ab", orderly=False),
            "what was made after it is made again",
        ),
        (
            ResumedFrom(step=12, folder="checkpoints/000012-0001-ab", lost_steps=2, orderly=False),
            "what was made after it, 2 or more, is made again",
        ),
    ],
)
def test_the_first_line_after_a_resume_says_from_where_and_what_was_lost(resumed: ResumedFrom, end: str) -> None:
    line = resumed_line("file:///runs/a", resumed)
    assert line == f"resumed file:///runs/a from step 12 (checkpoints/000012-0001-ab): {end}"


def test_on_a_terminal_one_line_moves_and_lines_for_people_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    shown = on_a_terminal(
        lambda progress: (progress.row(row(2)), progress.say("[bold]a line[/bold] \x1b[31m"), progress.durable(2))
    )
    assert "\x1b[?25l" in shown, "the cursor is hidden while the line moves"
    assert "\x1b[?25h" in shown, "and comes back"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "[bold]a line[/bold] \N{REPLACEMENT CHARACTER}[31m" in text
    last = " ".join(text.rpartition("[31m")[2].split())
    assert "step 2/9 reward 0.41 ± 0.22 loss 0.0123 0.25 s/step - tokens/s" in last
    assert "step 2 durable for 0 s" in last, "no field is cut off on 80 columns"


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in on_a_terminal(lambda progress: progress.row(row(2)))


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w", buffering=1)
    progress = Progress(stream)
    os.close(master)
    progress.say("into the void")
    progress.row(row(1))
    progress.close()


def on_a_terminal(use: Callable[[Progress], object]) -> str:
    """What a terminal of 80 columns is sent."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        progress = Progress(stream, Clock())
        progress.begin(9)
        use(progress)
        progress.close()
        progress.close()
    shown = b""
    with contextlib.suppress(OSError):  # EIO: all is read and the other side is closed
        while True:
            shown += os.read(master, 1 << 16)
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", "\ufffd]0;owned\ufffd"),
        ("a\nb\tc\rd", "a b c d"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("a\u2028b\xa0c", "a b c"),
        ("\x9b31m\x00\ud800", "\ufffd31m\ufffd\ufffd"),
        ("grüße 数学 👩\u200d🔬", "grüße 数学 👩\u200d🔬"),
    ],
)
def test_hostile_text_is_made_one_harmless_line(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


def test_long_text_is_cut() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("abcd", 4) == "abcd"


def test_a_carriage_return_cannot_overwrite_what_stands_before_it() -> None:
    assert printable_lines("first\rsecond\nthird\x0cfourth") == ["first", "second", "third", "fourth"]


@pytest.mark.parametrize(("duration_s", "text"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_as_precise_as_a_person_needs(duration_s: float, text: str) -> None:
    assert seconds(duration_s) == text
