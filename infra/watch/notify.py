"""What people are told of a run, once for each transition, whoever sees it first: an object under control/events/, and
a line to the webhook by whoever created it.

The events follow from control/claims.json alone: a watchdog that is killed before it tells leaves that to the next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from job.errors import UsageError
from job.run.claims import Claim, Claims
from job.run.layout import EVENTS, event_name
from job.run.records import Record, create
from job.settings.environment import load_secrets
from job.storage import Bucket, PreconditionFailed
from job.views.text import printable

WEBHOOK = "BATON_WEBHOOK"
LATE_S = 3600.0
"""What is older when it is first seen is recorded, but nobody is called for it."""
ANSWER_S = 5.0
LONGEST = 500


class Event(Record):
    """control/events/NNNN-KIND.json: one transition."""

    kind: str
    attempt: int
    at_s: float
    """Seconds since the epoch."""
    text: str
    """For people."""


@dataclass(frozen=True)
class Told:
    """An event, its name, and whether people are called for it."""

    name: str
    event: Event
    loud: bool


def events_of(claims: Claims) -> tuple[Told, ...]:
    """All transitions that the claims tell of, in their order; pure. The same claims give the same names."""
    found = [told for claim in claims.attempts if claim.kind == "vm" for told in _events(claim)]
    newest = claims.newest
    if newest is not None and claims.want != "run":
        words = "stopped" if claims.want == "stop" else "has failed"
        at_s = newest.claimed_at_s if newest.ended is None else newest.ended.at_s
        text = f"{words}: {claims.reason or 'no reason is recorded'}"
        round_ = "" if claims.resumed_at_s == 0.0 else f"-{claims.resumed_at_s:.0f}"
        found.append(_told(newest.number, f"{claims.want}{round_}", at_s, text, loud=True))
    return tuple(found)


def waiting_event(claims: Claims, why: str, next_try_s: float, now_s: float) -> Told | None:
    """That nothing can be asked for now, once until a VM has run again."""
    ran = [claim.number for claim in claims.attempts if claim.ended is not None and claim.ended.ran_from_s is not None]
    if claims.newest is None:
        return None
    text = f"waits {max(0.0, next_try_s - now_s) / 60:.0f} min: {why}"
    return _told(max(ran, default=0), "waits", now_s, text, loud=True)


class Teller:
    """Records the events of one run and calls people. Safe beside any number of others."""

    def __init__(self, uri: str, bucket: Bucket, call: Callable[[str], None], say: Callable[[str], None]) -> None:
        self._uri, self._bucket, self._call, self._say = uri, bucket, call, say
        self._known: set[str] | None = None

    def tell(self, events: tuple[Told, ...], now_s: float) -> None:
        """Whatever of it nobody has told yet. A bucket that fails leaves it for the next time."""
        if self._known is None:
            self._known = {info.name for info in self._bucket.list(EVENTS)}
        for told in events:
            if told.name in self._known:
                continue
            try:
                create(self._bucket, told.name, told.event.to_bytes())
            except PreconditionFailed:  # another watchdog was first
                self._known.add(told.name)
                continue
            self._known.add(told.name)
            self._say(told.event.text)
            if told.loud and now_s - told.event.at_s < LATE_S:
                self._call(f"{self._uri}: {told.event.text}")


def webhook(url: str | None, say: Callable[[str], None]) -> Callable[[str], None]:
    """Posts lines to a Slack-compatible webhook; nothing where there is none. What fails is said, never raised.

    Raises UsageError for a URL that is neither https nor on this machine.
    """
    if not url:
        return lambda text: None
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise UsageError(
            f"{WEBHOOK} is not an https URL.", fix="Its address is a secret: it is never sent in the open."
        )

    def post(text: str) -> None:
        import httpx

        try:
            reply = httpx.post(url, json=slack_message(text), timeout=ANSWER_S)
            reply.raise_for_status()
        except httpx.HTTPStatusError as error:
            say(f"the webhook answered {error.response.status_code}")
        except httpx.HTTPError as error:  # its words would show the URL
            say(f"the webhook did not answer ({type(error).__name__})")

    return post


def slack_message(text: str) -> dict[str, str]:
    """The body: plain text, in which nothing that a VM wrote mentions anybody or becomes a link."""
    safe = printable(text)[:LONGEST].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": f"baton: {safe}"}


def webhook_url() -> str | None:
    """BATON_WEBHOOK of the environment, then of `.env`."""
    secret = load_secrets().baton_webhook
    return None if secret is None else secret.get_secret_value()


def _events(claim: Claim) -> list[Told]:
    where = f"attempt {claim.number} in {claim.zone}"
    price = "" if claim.usd_per_hour is None else f", ${claim.usd_per_hour:.2f}/h"
    kind = "spot" if claim.spot is not False else "on demand"
    asked = f"{where}: asks for a {claim.machine_type} ({kind}{price})"
    found = [_told(claim.number, "claimed", claim.claimed_at_s, asked, loud=False)]
    if claim.instance_id is not None:
        text = f"{where}: {claim.vm} is there ({claim.machine_type}, {kind}{price})"
        found.append(_told(claim.number, "created", claim.claimed_at_s, text, loud=True))
    end = claim.ended
    if end is not None:
        detail = f", {end.detail}" if end.detail else ""
        step = "" if end.durable_step is None else f"; step {end.durable_step} is durable"
        loud = end.ran_from_s is not None or end.how in ("quota", "refused")
        found.append(_told(claim.number, "ended", end.at_s, f"{where}: {end.how}{detail}{step}", loud=loud))
    return found


def _told(number: int, kind: str, at_s: float, text: str, *, loud: bool) -> Told:
    event = Event(kind=kind, attempt=number, at_s=at_s, text=printable(text)[:LONGEST])
    return Told(event_name(number, kind), event, loud)
