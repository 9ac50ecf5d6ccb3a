"""Troubles on demand: no capacity, no quota, an API that is down or refuses, zones that do not answer.

Beside what /_control has words for there are rules for single answers; only `kind` has to be there:

    {"kind": "503",            an HTTP status (401 credentials, 403 a missing right, 429 and 5xx), rate_limit (403 with
                               that reason), quota (403), lost_reply (done, but the connection ends without an answer),
                               slow, or the code of an operation's error, e.g. UNSUPPORTED_OPERATION
     "call": "insert",         an operation of the API (routes.py); any where it is missing
     "zone": "us-*",           glob
     "vm": "*",                glob
     "count": 1,               how many times; null for ever
     "skip": 0,                how many fitting requests pass first
     "delay_s": 0}             slow: before the answer
"""

import threading
import time
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from infra.localcloud.compute.errors import OperationError
from infra.localcloud.compute.quotas import METRICS, limit_of
from infra.localcloud.errors import Refusal, invalid_credentials

STATUSES = ("401", "403", "408", "429", "500", "502", "503", "504")
REFUSALS = (*STATUSES, "rate_limit", "quota")
OTHERS = ("lost_reply", "slow")
WHERE = ("operation", "http")


@dataclass(frozen=True)
class Rule:
    """One answer that goes wrong."""

    kind: str
    call: str = "*"
    zone: str = "*"
    vm: str = "*"
    count: int | None = 1
    skip: int = 0
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in REFUSALS + OTHERS and not (self.kind.isupper() and self.kind.replace("_", "").isalnum()):
            raise ValueError(
                f"kind {self.kind!r} is not one of {', '.join(REFUSALS + OTHERS)}, nor an operation's code"
            )

    @property
    def in_operation(self) -> bool:
        """Whether the request succeeds and its operation fails."""
        return self.kind not in REFUSALS + OTHERS


@dataclass(frozen=True)
class Stockout:
    """From when on a zone has no capacity, or has it again; the newest that fits decides."""

    zone: str
    machine_type: str = "*"
    until_s: float | None = None
    over: bool = False


@dataclass(frozen=True)
class Quota:
    """A limit that was changed."""

    metric: str
    limit: float
    region: str = "*"
    where: str = "operation"
    """Where it is told: inside the operation, or in the answer to the request (http)."""


class Faults:
    """All that is armed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._stockouts: list[Stockout] = []
        self._quotas: list[Quota] = []
        self._unreachable: set[str] = set()
        self._down_until = 0.0
        self._stopping = threading.Event()

    def arm(self, rule: dict[str, Any]) -> None:
        """One more rule. Raises ValueError for one that makes no sense."""
        try:
            made = Rule(**rule)
        except TypeError as error:
            raise ValueError(f"{rule} is not a rule: {error}") from None
        with self._lock:
            self._rules.append(made)

    def stockout(self, zone: str, machine_type: str = "*", for_s: float | None = None, *, over: bool = False) -> None:
        """No capacity in the zones that fit, for so long; or capacity again."""
        until_s = None if for_s is None else time.monotonic() + for_s
        with self._lock:
            self._stockouts.insert(0, Stockout(zone, machine_type, until_s, over))

    def is_sold_out(self, zone: str, machine_type: str) -> bool:
        """Whether no capacity is left."""
        now = time.monotonic()
        with self._lock:
            for each in self._stockouts:
                fits = fnmatchcase(zone, each.zone) and fnmatchcase(machine_type, each.machine_type)
                if fits and (each.until_s is None or now < each.until_s):
                    return not each.over
        return False

    def quota(self, metric: str, limit: float | None, region: str = "*", where: str = "operation") -> None:
        """Another limit; None: the usual one. Raises ValueError for what is no metric."""
        if metric not in METRICS:
            raise ValueError(f"{metric} is not one of {', '.join(METRICS)}")
        if where not in WHERE:
            raise ValueError(f"{where} is not one of {', '.join(WHERE)}")
        with self._lock:
            self._quotas = [each for each in self._quotas if (each.metric, each.region) != (metric, region)]
            if limit is not None:
                self._quotas.insert(0, Quota(metric, limit, region, where))

    def limit(self, metric: str, region: str) -> tuple[float, str]:
        """(limit, where an excess is told)."""
        with self._lock:
            for each in self._quotas:
                if each.metric == metric and fnmatchcase(region, each.region):
                    return each.limit, each.where
        return limit_of(metric), "operation"

    def down(self, seconds: float) -> None:
        """The API answers 503 for so long, 0 ends that; what it manages goes on."""
        with self._lock:
            self._down_until = time.monotonic() + seconds

    def unreachable(self, zone: str, *, over: bool = False) -> None:
        """A zone does not answer: lists leave it out and say so."""
        with self._lock:
            (self._unreachable.discard if over else self._unreachable.add)(zone)

    def is_unreachable(self, zone: str) -> bool:
        """Whether the zone does not answer."""
        with self._lock:
            return any(fnmatchcase(zone, glob) for glob in self._unreachable)

    def strike(self, call: str, zone: str, vm: str) -> bool:
        """What befalls a request before it is looked at; returns whether its reply is to be lost.

        Raises what the client is to see.
        """
        with self._lock:
            if time.monotonic() < self._down_until or (zone and zone in self._unreachable):
                raise unavailable()
        slow = self._take(call, zone, vm, "slow")
        if slow is not None:
            self._stopping.wait(slow.delay_s)
        refusing = self._take(call, zone, vm, *REFUSALS)
        if refusing is not None:
            raise _refusal(refusing.kind)
        return self._take(call, zone, vm, "lost_reply") is not None

    def operation_error(self, call: str, zone: str, vm: str) -> OperationError | None:
        """The error that an operation shall end with."""
        rule = self._take(call, zone, vm)
        return None if rule is None else OperationError(rule.kind, f"{rule.kind}, as it was asked for.")

    def _take(self, call: str, zone: str, vm: str, *kinds: str) -> Rule | None:
        with self._lock:
            for at, rule in enumerate(self._rules):
                fits = rule.kind in kinds if kinds else rule.in_operation
                fits = fits and rule.call in ("*", call) and fnmatchcase(zone, rule.zone) and fnmatchcase(vm, rule.vm)
                if not fits:
                    continue
                if rule.skip:
                    self._rules[at] = replace(rule, skip=rule.skip - 1)
                    continue
                if rule.count is not None:
                    self._rules[at : at + 1] = [replace(rule, count=rule.count - 1)] if rule.count > 1 else []
                return rule
        return None

    def clear(self) -> None:
        """Disarms all."""
        with self._lock:
            self._rules, self._stockouts, self._quotas = [], [], []
            self._unreachable.clear()
            self._down_until = 0.0

    def stop(self) -> None:
        """Ends all waiting."""
        self._stopping.set()

    def armed(self) -> dict[str, Any]:
        """All of it, for people."""
        with self._lock:
            return {
                "rules": [asdict(rule) for rule in self._rules],
                "stockouts": [asdict(each) for each in self._stockouts],
                "quotas": [asdict(each) for each in self._quotas],
                "unreachable": sorted(self._unreachable),
                "down_s": max(0.0, self._down_until - time.monotonic()),
            }


def unavailable(status: int = 503) -> Refusal:
    """A failure of the service itself."""
    return Refusal(status, "backendError", "Internal error. Please try again or contact Google Support.")


def _refusal(kind: str) -> Refusal:
    match kind:
        case "401":
            return invalid_credentials()
        case "403":
            return Refusal(403, "forbidden", "Required permission is missing, as it was asked for.")
        case "429" | "rate_limit":
            status = 429 if kind == "429" else 403
            return Refusal(status, "rateLimitExceeded", "Rate Limit Exceeded", domain="usageLimits")
        case "quota":
            message = "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally."
            return Refusal(403, "quotaExceeded", message, domain="usageLimits")
        case _:
            return unavailable(int(kind))
