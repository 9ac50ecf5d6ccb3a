"""The attempt stops itself when its own share of the run's cap is spent, whatever a watchdog does or does not.

Whose clock is right does not matter: how long ago the VM was claimed is told by the bucket's clock, which wrote both
times where it can, and from the last heartbeat on by the machine's own seconds since it booted. Before it the watchdog
stops the run (Policy.stop_s), after it the platform ends the VM (maxRunDuration).
"""

import threading
import time
from collections.abc import Callable

from job.errors import BatonError, NeedsPerson
from job.run.claims import Claims
from job.run.costs import share_s
from job.run.spec import Spec, read_spec
from job.storage import Bucket

STOP_S = 90.0
"""Before the share is spent: to save what is in memory, leave, and have the machine power off."""
LOOK_S = 60.0
"""Before that: whether the cap is still what it was. A person may have allowed more."""


def seconds_up() -> float:
    """The machine's own seconds, which nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Budget:
    """Calls `on_spent` with the reason, once, from a thread of its own."""

    def __init__(
        self,
        bucket: Bucket,
        number: int,
        spec: Spec,
        on_spent: Callable[[str], None],
        now: Callable[[], float] = seconds_up,
    ) -> None:
        self._bucket, self._number, self._on_spent, self._now = bucket, number, on_spent, now
        self._max_usd = None if spec.machine is None else spec.machine.max_usd
        self._claims = Claims()
        self._bucket_s, self._heard_s = 0.0, 0.0
        self._changed = threading.Event()

    def refuse_spent(self, claims: Claims) -> None:
        """Raises NeedsPerson for a VM that could not even leave in time: whoever created it does not heed the cap, and
        would create another."""
        share = None if self._max_usd is None else share_s(self._max_usd, claims.attempts, self._number)
        if share is not None and share <= STOP_S:
            raise NeedsPerson(
                f"the cap of ${self._max_usd:.2f} is reached: attempt {self._number} should not have got a VM.",
                fix=f"Allow more: baton resume {self._bucket.uri} --max-usd {2 * (self._max_usd or 0):.2f}",
            )

    def hear(self, bucket_s: float, claims: Claims) -> None:
        """With every heartbeat: the bucket's time, and what is claimed."""
        self._bucket_s, self._heard_s, self._claims = bucket_s, self._now(), claims
        self._changed.set()

    def start(self) -> None:
        """Begins to watch; nothing where there is no cap."""
        if self._max_usd is not None:
            threading.Thread(target=self._run, daemon=True, name="budget").start()

    def left_s(self) -> float | None:
        """Of the share; None before the first heartbeat, and for an attempt without price."""
        own = next((claim for claim in self._claims.attempts if claim.number == self._number), None)
        if own is None or self._max_usd is None:
            return None
        share = share_s(self._max_usd, self._claims.attempts, self._number)
        if share is None:
            return None
        before_s = max(0.0, self._bucket_s - own.claimed_at_s)
        return share - before_s - (self._now() - self._heard_s)

    def _run(self) -> None:
        looked = False
        while True:
            left_s = self.left_s()
            if left_s is not None and left_s <= STOP_S + LOOK_S and not looked:
                looked = True
                self._look_again()
                continue
            if left_s is not None and left_s <= STOP_S:
                self._on_spent(f"the cap of ${self._max_usd:.2f}, of which this attempt's share is spent")
                return
            looked = looked and left_s is not None and left_s <= STOP_S + LOOK_S
            until_s = None if left_s is None else left_s - STOP_S - (0.0 if looked else LOOK_S)
            self._changed.wait(until_s)
            self._changed.clear()

    def _look_again(self) -> None:
        try:
            spec = read_spec(self._bucket)
        except BatonError:
            return
        if spec is not None and spec.machine is not None:
            self._max_usd = spec.machine.max_usd
