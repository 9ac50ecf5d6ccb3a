"""Keeps writes of one name apart: Cloud Storage takes about one a second of each object."""

import threading


class Pace:
    """Deals out turns. Threads may ask at once; names that have had no turn lately cost no memory."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait_s(self, name: str, now_s: float) -> float:
        """How long whoever asks at `now_s` has to wait for the turn that is theirs from now on."""
        with self._lock:
            self._next_s = {other: next_s for other, next_s in self._next_s.items() if next_s > now_s}
            turn_s = self._next_s.get(name, now_s)
            self._next_s[name] = turn_s + self._interval_s
            return turn_s - now_s
