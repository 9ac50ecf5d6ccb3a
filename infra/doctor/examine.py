"""All checks at once, each with its own deadline: what has not answered by then is not known."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from infra.doctor.checks.image import look_at_image
from infra.doctor.checks.judge_key import look_at_judge_key
from infra.doctor.checks.model import look_at_model
from infra.doctor.checks.prices import look_at_prices
from infra.doctor.checks.project import look_at_billing, look_at_credentials, look_at_project
from infra.doctor.checks.quota import look_at_quota
from infra.doctor.checks.set_up import (
    look_at_accounts,
    look_at_bucket,
    look_at_network,
    look_at_registry,
    look_at_secrets,
    look_at_services,
)
from infra.doctor.checks.watching import look_at_watchdog
from infra.doctor.finding import Finding, NotKnown, not_known
from infra.doctor.place import Check, Place
from job.errors import BatonError
from job.storage.parallel import in_parallel

CHECKS = (
    Check("GPU quota", look_at_quota),  # first: people at Google grant it
    Check("credentials", look_at_credentials),
    Check("project", look_at_project),
    Check("billing", look_at_billing),
    Check("services", look_at_services),
    Check("bucket", look_at_bucket),
    Check("network", look_at_network),
    Check("accounts", look_at_accounts),
    Check("registry", look_at_registry),
    Check("image", look_at_image),
    Check("secrets", look_at_secrets),
    Check("model", look_at_model),
    Check("judge key", look_at_judge_key),
    Check("watchdog", look_at_watchdog),
    Check("prices", look_at_prices),
)
DEADLINE_S = 4.0  # so that all of it is told in five seconds


@dataclass(frozen=True)
class Examined:
    """A check and what it found."""

    check: str
    finding: Finding
    seconds: float


def examine(place: Place, checks: Sequence[Check] = CHECKS, deadline_s: float = DEADLINE_S) -> list[Examined]:
    """What all checks find, in their order, at the latest when the deadline is over."""
    until_s = time.monotonic() + deadline_s
    return in_parallel([partial(_within, check, place, until_s) for check in checks], len(checks))


def _within(check: Check, place: Place, until_s: float) -> Examined:
    """The check in a thread of its own, which is left alone when it takes too long."""
    answers: queue.SimpleQueue[Finding | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(find(check, place))
        except Exception as error:  # raised again below, where somebody sees it
            answers.put(error)

    began_s = time.monotonic()
    threading.Thread(target=look, daemon=True, name=check.name).start()
    try:
        found = answers.get(timeout=max(0.0, until_s - began_s))
    except queue.Empty:
        found = not_known(f"no answer in {until_s - began_s:.0f} s")
    if isinstance(found, Exception):
        raise found
    return Examined(check.name, found, time.monotonic() - began_s)


def find(check: Check, place: Place) -> Finding:
    """What it finds; what it cannot tell is not known, with the reason."""
    try:
        return check.look(place)
    except NotKnown as error:
        return not_known(error.why, error.fix)
    except BatonError as error:
        return not_known(error.what.rstrip("."), f"# {error.fix}" if error.fix else "")
