"""Proves that lines for people wait for nobody: a write that blocks holds up no caller, the newest lines are kept and
in order, what was dropped is said, and a terminal that is gone ends nothing.
"""

import contextlib
import os
import pty
import threading

import pytest

from job.views.printer import MOST_LINES, Printer
from job.views.progress import Progress

LIMIT_S = 60.0


class Reader:
    """Somebody who reads when `reads` is set."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.waited_for = threading.Event()
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.waited_for.set()
        assert self.reads.wait(LIMIT_S)
        self.lines.append(line)


def test_lines_are_written_in_order_and_flush_waits_for_them() -> None:
    reader = Reader()
    reader.reads.set()
    printer = Printer(reader.write)
    for number in range(100):
        printer.line(f"line {number}")
    assert printer.flush(LIMIT_S)
    assert reader.lines == [f"line {number}" for number in range(100)]


def test_while_nobody_reads_the_oldest_lines_make_place_for_the_newest() -> None:
    reader = Reader()
    printer = Printer(reader.write)
    printer.line("being written")
    assert reader.waited_for.wait(LIMIT_S)
    for number in range(3 * MOST_LINES):
        printer.line(f"line {number}")
    printer.line("error: the last word")
    assert not printer.flush(0)
    reader.reads.set()
    assert printer.flush(LIMIT_S)
    left_out = 2 * MOST_LINES + 1
    assert reader.lines == [
        "being written",
        f"({left_out} lines are left out here: nobody was reading; the run's log has them)",
        *(f"line {number}" for number in range(left_out, 3 * MOST_LINES)),
        "error: the last word",
    ]


def test_work_is_done_in_its_turn_and_never_dropped() -> None:
    reader = Reader()
    printer = Printer(reader.write)
    printer.line("being written")
    assert reader.waited_for.wait(LIMIT_S)
    printer.call(lambda: reader.lines.append("the moving line ends"))
    for number in range(2 * MOST_LINES):
        printer.line(f"line {number}")
    reader.reads.set()
    assert printer.flush(LIMIT_S)
    assert reader.lines[2] == "the moving line ends", "after what was being written and the note of what was dropped"
    assert reader.lines[-1] == f"line {2 * MOST_LINES - 1}"


def test_a_write_that_fails_ends_nothing() -> None:
    written: list[str] = []

    def write(line: str) -> None:
        if line == "bad":
            raise BrokenPipeError
        written.append(line)

    printer = Printer(write)
    for line in ("good", "bad", "good again"):
        printer.line(line)
    assert printer.flush(LIMIT_S)
    assert written == ["good", "good again"]


def test_a_terminal_that_was_stopped_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    os.set_blocking(slave, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(slave, b"x" * 512)
    os.set_blocking(slave, True)
    progress = Progress(os.fdopen(slave, "w"))
    progress.begin(9)
    for step in range(9):
        progress.row({"step": step, "reward": 0.5})
        progress.durable(step)
        progress.say("a line")
    progress.close()  # every call has returned
    os.close(master)  # which ends the write that was stopped
