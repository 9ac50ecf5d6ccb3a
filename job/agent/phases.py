"""Where an attempt's seconds went."""

import threading
import time


class PhaseClock:
    """Seconds by phase: one phase at a time, each may come again and adds up. One thread enters, any may read."""

    def __init__(self, first: str) -> None:
        self._lock = threading.Lock()
        self.current = first
        self._since_s = time.monotonic()
        self._seconds: dict[str, float] = {first: 0.0}

    def enter(self, phase: str) -> None:
        """The phase that runs from now on."""
        with self._lock:
            now_s = time.monotonic()
            self._seconds[self.current] += now_s - self._since_s
            self._seconds.setdefault(phase, 0.0)
            self.current, self._since_s = phase, now_s

    def seconds(self) -> dict[str, float]:
        """Seconds of every phase so far, the current one included, in the order of their first appearance."""
        with self._lock:
            running_s = time.monotonic() - self._since_s
            return {
                phase: round(spent_s + (running_s if phase == self.current else 0.0), 3)
                for phase, spent_s in self._seconds.items()
            }
