"""What was asked of the server: counters that a test can assert on, and the last requests one by one."""

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

LAST_REQUESTS = 10_000


@dataclass(frozen=True)
class Entry:
    """One request, or one part of a batch."""

    at_s: float
    method: str
    operation: str
    price_class: str
    """A, B or free: what the real service would charge for it."""
    bucket: str
    object: str
    account: str
    status: int
    """0 where the connection was closed without an answer."""
    received_bytes: int
    sent_bytes: int
    duration_s: float
    fault: str
    """The kind of the rule that fired, if one did."""


class Accounting:
    """The totals since the start, or since the last reset. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: deque[Entry] = deque(maxlen=LAST_REQUESTS)
        self._counts: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._received_bytes = 0
        self._sent_bytes = 0

    def add(self, entry: Entry) -> None:
        """One more request."""
        with self._lock:
            self._last.append(entry)
            self._counts[entry.operation] += 1
            if entry.status < 500 and entry.status not in (0, 429):  # the service's own failures are not charged
                self._classes[entry.price_class] += 1
            self._received_bytes += entry.received_bytes
            self._sent_bytes += entry.sent_bytes

    def reset(self) -> None:
        """Begins again at nothing."""
        with self._lock:
            self._last.clear()
            self._counts.clear()
            self._classes.clear()
            self._received_bytes = self._sent_bytes = 0

    def totals(self) -> dict[str, Any]:
        """How many requests by operation and by class, and how many bytes of bodies went which way."""
        with self._lock:
            return {
                "operations": dict(self._counts),
                "classes": {name: self._classes[name] for name in ("A", "B", "free")},
                "received_bytes": self._received_bytes,
                "sent_bytes": self._sent_bytes,
            }

    def last(self) -> list[dict[str, Any]]:
        """The last requests, oldest first."""
        with self._lock:
            return [asdict(entry) for entry in self._last]
