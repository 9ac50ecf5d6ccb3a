"""Writing lines for people without waiting for them: Ctrl-S, or a pipe that nobody reads, stops a write for ever."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable

MOST_LINES = 1000  # that wait; a log of a day has fewer, a trainer that prints in a loop more


class Printer:
    """One daemon thread that writes, in order; from any thread. It is started by the first line.

    While nobody reads, the oldest lines are dropped for newer ones; how many is said in their place. So the last
    line, which says how it ended, is never dropped.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._waiting: deque[str | Callable[[], None]] = deque()
        self._lines, self._dropped = 0, 0
        self._busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def line(self, line: str) -> None:
        """Writes a line, some time."""
        with self._changed:
            if self._lines == MOST_LINES:
                self._waiting.remove(next(entry for entry in self._waiting if isinstance(entry, str)))
                self._lines, self._dropped = self._lines - 1, self._dropped + 1
            self._lines += 1
            self._add(line)

    def call(self, work: Callable[[], None]) -> None:
        """Calls `work`, which may write, in its turn. Never dropped."""
        with self._changed:
            self._add(work)

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything is written, or the time is over: False."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def _add(self, entry: str | Callable[[], None]) -> None:
        self._waiting.append(entry)
        self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="printer")
            self._thread.start()

    def _run(self) -> None:
        while True:
            dropped, entry = self._next()
            with contextlib.suppress(OSError):  # a terminal that was closed is no reason to stop training
                if dropped:
                    self._write(f"({dropped} lines are left out here: nobody was reading; the run's log has them)")
                if isinstance(entry, str):
                    self._write(entry)
                else:
                    entry()
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> tuple[int, str | Callable[[], None]]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting))
            self._busy = True
            entry = self._waiting.popleft()
            dropped, self._dropped = self._dropped, 0
            self._lines -= isinstance(entry, str)
            return dropped, entry
