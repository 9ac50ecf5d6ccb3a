"""When an on-demand VM may be taken instead of a spot one, as command lines say it. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from infra.machines import machines
from job.errors import UsageError

WORDS = "never, after:T (as in after:30m, after:2h) or deadline"
_AFTER = re.compile(r"after:(\d+(?:\.\d+)?)([smhd])")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True)
class FallBack:
    """The policy, in the words of the run's spec."""

    when: Literal["never", "after", "deadline"] = "never"
    after_s: float | None = None
    """Seconds without a VM after which `after` applies."""


NEVER = FallBack()


def fall_back_of(text: str) -> FallBack:
    """The policy that `--on-demand` names. Raises UsageError."""
    if text == "never":
        return NEVER
    if text == "deadline":
        return FallBack("deadline")
    match = _AFTER.fullmatch(text)
    if match is None:
        raise UsageError(f"--on-demand {text}: there is no such policy.", fix=f"Give one of: {WORDS}.")
    return FallBack("after", float(match[1]) * _UNIT_S[match[2]])


def seconds_of(deadline: datetime | None, now_s: float) -> float | None:
    """A deadline in seconds since the epoch. Raises UsageError for one in the past."""
    if deadline is None:
        return None
    if deadline.timestamp() <= now_s:
        raise UsageError("--deadline is in the past.", fix="Name a time to come.")
    return deadline.timestamp()


def refuse_fall_back(policy: FallBack, gpu: str, *, spot: bool, deadline_s: float | None) -> None:
    """Raises UsageError for a policy that could never apply."""
    if policy.when == "never":
        return
    if not spot:
        raise UsageError("--on-demand says when spot VMs are replaced, and this run has none.", fix="Add --spot.")
    if not machines().gpu[gpu].on_demand:
        raise UsageError(
            f"--on-demand {policy.when}: Google Cloud rents single {machines().gpu[gpu].title} as spot VMs only.",
            fix="Leave --on-demand out, or use another --gpu.",
        )
    if policy.when == "deadline" and deadline_s is None:
        raise UsageError("--on-demand deadline: no deadline is named.", fix="Add --deadline 2026-12-24T08:00.")
