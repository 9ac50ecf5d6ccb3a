"""What happens later: one thread that does things when their time has come, and one line of work for each VM."""

import heapq
import itertools
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

Action = Callable[[], None]


@dataclass(frozen=True)
class Timings:
    """How long things take in the cloud, in seconds. What a program in a VM does takes as long as it takes."""

    pending_s: float = 1.0
    """Until an operation begins."""
    refusal_s: float = 4.0
    """From then until no capacity is found."""
    provisioning_s: float = 8.0
    staging_s: float = 10.0
    guest_boot_s: float = 12.0
    """From RUNNING to the startup script: firmware, kernel, systemd."""
    deleting_s: float = 3.0
    """From the end of the VM to the end of its disks."""
    restarting_s: float = 20.0
    """From a host's failure to the automatic restart."""
    acpi_s: float = 120.0
    """From the ACPI signal to the power cut."""
    acpi_spot_s: float = 30.0
    scale: float = 1.0
    """Whatever else the platform lets pass, the notice of a preemption: it goes that many times faster."""

    def scaled(self, scale: float) -> "Timings":
        """All of it that many times faster."""
        times = {each.name: getattr(self, each.name) / scale for each in fields(self) if each.name != "scale"}
        return replace(self, **times, scale=self.scale * scale)


class Timers(Protocol):
    """A clock, and what it sets off."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def after(self, seconds: float, action: Action) -> None:
        """Does it that much later."""

    def close(self) -> None:
        """Nothing more is done."""


class RealTimers:
    """Those of the machine."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._due: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def after(self, seconds: float, action: Action) -> None:
        """Does it that much later, in the timers' own thread: it must be quick."""
        with self._condition:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))
            self._condition.notify()

    def close(self) -> None:
        """Nothing more is done."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            guarded(action)

    def _next(self) -> Action | None:
        with self._condition:
            while not self._closed:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._condition.wait(left)
        return None


class Hands:
    """What is done to machines: for each VM one thing after the other, for several at once. It may take its time."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._work: dict[str, deque[Action]] = {}

    def do(self, vm: str, action: Action) -> None:
        """Does it once all that was asked before for this VM is done."""
        with self._lock:
            if vm in self._work:
                self._work[vm].append(action)
                return
            self._work[vm] = deque([action])
        threading.Thread(target=self._run, args=(vm,), name=f"hands {vm}", daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Waits until nothing is left to do; False when the time was up before."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._work, timeout_s)

    def _run(self, vm: str) -> None:
        while True:
            with self._lock:
                if not self._work[vm]:
                    del self._work[vm]
                    self._lock.notify_all()
                    return
                action = self._work[vm].popleft()
            guarded(action)


def guarded(action: Action) -> None:
    """Does it; a bug in one thing must not end all others."""
    try:
        action()
    except Exception:
        traceback.print_exc()
