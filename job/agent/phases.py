"""Where an attempt's seconds went."""

import time


class PhaseClock:
    """Seconds by phase: one phase at a time, each may come again and adds up."""

    def __init__(self, first: str) -> None:
        self.current = first
        self._since_s = time.monotonic()
        self._seconds: dict[str, float] = {}

    def enter(self, phase: str) -> None:
        """The phase that runs from now on."""
        now_s = time.monotonic()
        self._seconds[self.current] = self._seconds.get(self.current, 0.0) + now_s - self._since_s
        self.current, self._since_s = phase, now_s

    def seconds(self) -> dict[str, float]:
        """Seconds of every phase so far, the current one included, in the order of their first appearance."""
        self.enter(self.current)
        return {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}
