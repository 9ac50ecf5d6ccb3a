"""Faults on demand: which request goes wrong, how, and how often.

A rule is a JSON object; only `kind` has to be there:

    {"kind": "503",               what happens (KINDS below)
     "object": "runs/*/head.json", glob over the object's name; `bucket` likewise
     "verb": "upload",            an operation or a group of them (routes.py); any where it is missing
     "count": 1,                  how many times; null for ever
     "skip": 0,                   how many fitting requests pass first
     "after_bytes": 0,            cut, stall: how many bytes of the object pass; corrupt: which byte is wrong
     "delay_s": 0,                slow: before the answer; stall: how long (null: until the server stops)
     "bandwidth_bytes_per_s": 0,  slow: of each stream
     "within_s": 0}               only where the object was changed less than this ago: with "429", "upload" and a count
                                  of null, 1.0 is the real service's limit

A rule about bytes fires only for requests that carry at least so many. `lost_reply` fires only where an object was
changed; named by its operation ("resumable_put"), also for an answer that changed none.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from infra.localcloud.errors import ANONYMOUS, Refusal, invalid_credentials
from infra.localcloud.storage.errors import forbidden, too_many_requests, unavailable
from infra.localcloud.storage.messages import ConnectionCut
from infra.localcloud.storage.routes import GROUPS, OPERATIONS, Route

ANSWERS = ("401", "403", "408", "429", "500", "502", "503", "504")
KINDS = (*ANSWERS, "cut", "lost_reply", "corrupt", "slow", "stall")
UNTIL_STOPPED_S = 24 * 3600.0


@dataclass(frozen=True)
class Rule:
    """One fault that is armed."""

    kind: str
    object: str = "*"
    bucket: str = "*"
    verb: str = "*"
    count: int | None = 1
    skip: int = 0
    after_bytes: int = 0
    delay_s: float | None = 0.0
    bandwidth_bytes_per_s: float = 0.0
    within_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.verb not in {"*"} | GROUPS | OPERATIONS.keys():
            raise ValueError(f"verb {self.verb!r} is neither an operation nor a group of them")
        if min(1 if self.count is None else self.count, self.after_bytes + 1, self.skip + 1) < 1:
            raise ValueError("count is at least 1, skip and after_bytes at least 0")
        if self.kind == "slow" and not (self.delay_s or self.bandwidth_bytes_per_s):
            raise ValueError("slow needs delay_s or bandwidth_bytes_per_s")

    def fits(self, route: Route) -> bool:
        """Whether this request is meant."""
        return (
            self.verb in ("*", route.group, route.operation)
            and fnmatchcase(route.bucket, self.bucket)
            and fnmatchcase(route.name, self.object)
        )


class Faults:
    """The rules that are armed. Safe to use from several threads, and while the server runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._changed_at: dict[tuple[str, str], float] = {}
        self._stopping = threading.Event()

    def arm(
        self,
        kind: str,
        *,
        object: str = "*",
        bucket: str = "*",
        verb: str = "*",
        count: int | None = 1,
        skip: int = 0,
        after_bytes: int = 0,
        delay_s: float | None = 0.0,
        bandwidth_bytes_per_s: float = 0.0,
        within_s: float = 0.0,
    ) -> None:
        """One more rule. Raises ValueError for one that makes no sense."""
        rule = Rule(kind, object, bucket, verb, count, skip, after_bytes, delay_s, bandwidth_bytes_per_s, within_s)
        with self._lock:
            self._rules.append(rule)

    def arm_json(self, data: dict[str, Any]) -> None:
        """One more rule, as it comes over the wire. Raises ValueError."""
        try:
            self.arm(**data)
        except TypeError as error:
            raise ValueError(f"{data} is not a rule: {error}") from None

    def clear(self) -> None:
        """Disarms all."""
        with self._lock:
            self._rules = []

    def armed(self) -> list[dict[str, Any]]:
        """The rules that may still fire."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def take(self, route: Route, *kinds: str, data_bytes: int = 0, changed: bool = False) -> Rule | None:
        """The oldest rule of these kinds that fits, one less of it being left; None where there is none.

        `data_bytes`: how much of the object passes with this request; `changed`: whether it changed an object.
        """
        with self._lock:
            for at, rule in enumerate(self._rules):
                if rule.kind not in kinds or not rule.fits(route):
                    continue
                if (rule.after_bytes or rule.kind == "corrupt") and data_bytes <= rule.after_bytes:
                    continue
                if rule.kind == "lost_reply" and not changed and rule.verb != route.operation:
                    continue
                if rule.within_s and time.monotonic() - self._changed_at.get(_key(route), -math.inf) >= rule.within_s:
                    continue
                if rule.skip:
                    self._rules[at] = replace(rule, skip=rule.skip - 1)
                    continue
                if rule.count is not None:
                    self._rules[at : at + 1] = [replace(rule, count=rule.count - 1)] if rule.count > 1 else []
                return rule
        return None

    def changed(self, route: Route) -> None:
        """That an object was changed just now."""
        with self._lock:
            self._changed_at[_key(route)] = time.monotonic()

    def stop(self) -> None:
        """Ends all waiting."""
        self._stopping.set()

    def wait(self, seconds: float | None) -> None:
        """Waits, until the server stops at the latest."""
        self._stopping.wait(UNTIL_STOPPED_S if seconds is None else seconds)

    def tamper(self, rule: Rule, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """An object's bytes on their way, with what the rule does to them."""
        left = rule.after_bytes
        for block in blocks:
            if not 0 <= left < len(block):
                yield block
            elif rule.kind == "corrupt":
                yield block[:left] + bytes([block[left] ^ 1]) + block[left + 1 :]
            else:
                yield block[:left]
                if rule.kind == "cut":
                    raise ConnectionCut
                self.wait(rule.delay_s)
                yield block[left:]
            left -= len(block)

    def throttle(
        self, rule: Rule, blocks: Iterator[bytes], clock: Callable[[], float] = time.monotonic
    ) -> Iterator[bytes]:
        """An object's bytes, no faster than the rule allows this stream."""
        started, passed = clock(), 0
        piece = max(
            1, min(256 * 1024, int(rule.bandwidth_bytes_per_s / 20))
        )  # twenty waits a second, so that it is even
        for block in blocks:
            for at in range(0, len(block), piece):
                part = block[at : at + piece]
                passed += len(part)
                self.wait(max(0.0, started + passed / rule.bandwidth_bytes_per_s - clock()))
                yield part


def answer(kind: str, route: Route, account: str) -> Refusal:
    """The refusal that a rule wants."""
    match kind:
        case "401":
            return invalid_credentials()
        case "403":
            needed = {"upload": "create", "download": "get"}.get(route.group, route.group)
            who = "Caller" if account == ANONYMOUS else account  # here it is 403 for everybody
            return forbidden(who, f"storage.objects.{needed}", "object")
        case "429":
            return too_many_requests(route.bucket, route.name)
        case _:
            return unavailable(int(kind))


def _key(route: Route) -> tuple[str, str]:
    return (route.to_bucket, route.to_name) if route.to_name else (route.bucket, route.name)
