"""Each transition is told once, whoever sees it first; the webhook gets Slack's format, and nothing hostile in it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from seen import NOW_S, URI, claim
from seen import end as an_end

from infra.watch.notify import Event, Teller, events_of, slack_message, waiting_event, webhook, webhook_url
from job.errors import Transient, UsageError
from job.run.claims import Claim, Claims
from job.run.layout import EVENTS
from job.storage import Bucket, open_bucket

CLAIMS = Claims(attempts=(claim(1, ended=an_end("preempted", detail="a drill by bob")), claim(2)))


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(tmp_path.as_uri())


def names(claims: Claims) -> list[str]:
    return [told.name.removeprefix(EVENTS) for told in events_of(claims)]


def test_the_claims_alone_say_what_happened() -> None:
    assert names(CLAIMS) == [
        "0001-claimed.json",
        "0001-created.json",
        "0001-ended.json",
        "0002-claimed.json",
        "0002-created.json",
    ]
    stopped = CLAIMS.model_copy(update={"want": "stop", "reason": "by me"})
    assert names(stopped)[-1] == "0002-stop.json"
    again = stopped.model_copy(update={"resumed_at_s": 5.0})
    assert names(again)[-1] == "0002-stop-5.json"
    text = [told.event.text for told in events_of(stopped)]
    assert text[0] == "attempt 1 in us-central1-a: asks for a g2-standard-4 (spot, $0.40/h)"
    assert text[2] == "attempt 1 in us-central1-a: preempted, a drill by bob; step 10 is durable"
    assert text[-1] == "stopped: by me"
    failed = CLAIMS.model_copy(update={"want": "failed", "reason": None})
    assert events_of(failed)[-1].event.text == "has failed: no reason is recorded"
    assert events_of(Claims()) == ()
    assert events_of(Claims(attempts=(Claim(number=1, kind="process", claimed_at_s=1.0),))) == ()


def test_people_are_called_for_what_cost_money_or_needs_them() -> None:
    def loud(ended: Any) -> bool:
        return events_of(Claims(attempts=(claim(1, ended=ended),)))[-1].loud

    assert loud(an_end("preempted"))
    assert not loud(an_end("stockout", ran_s=None))
    assert loud(an_end("quota", ran_s=None))
    assert loud(an_end("refused", ran_s=None))
    assert [told.loud for told in events_of(CLAIMS)] == [False, True, True, False, True]


def test_any_number_of_watchdogs_tell_each_transition_once(bucket: Bucket) -> None:
    called: list[str] = []
    said: list[str] = []
    tellers = [Teller(URI, bucket, called.append, said.append) for _ in range(3)]
    for _ in range(2):
        for teller in tellers:
            teller.tell(events_of(CLAIMS), NOW_S)
    assert len(said) == 5
    assert called[0].startswith(f"{URI}: attempt 1")
    assert len(called) == 1  # the others are older than an hour, or not worth a call
    Teller(URI, bucket, called.append, said.append).tell(events_of(CLAIMS), NOW_S)
    assert (len(said), len(called)) == (5, 1)
    found = Event.read(bucket, f"{EVENTS}0001-ended.json")
    assert found is not None
    assert (found[0].kind, found[0].attempt, found[0].at_s) == ("ended", 1, NOW_S - 100)


def test_what_one_watchdog_could_not_tell_another_does(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    teller = Teller(URI, bucket, said.append, said.append)
    with monkeypatch.context() as patched:

        def fails(*arguments: Any, **more: Any) -> Any:
            raise Transient("no answer")

        patched.setattr(bucket, "write", fails)
        patched.setattr("tenacity.nap.time.sleep", lambda seconds: None)
        with pytest.raises(Transient):
            teller.tell(events_of(CLAIMS), NOW_S)
    assert said == []
    teller.tell(events_of(CLAIMS), NOW_S)
    assert len(said) == 6


def test_waiting_for_capacity_is_told_once_until_a_vm_has_run_again() -> None:
    one = waiting_event(CLAIMS, "no capacity: everywhere", NOW_S + 600, NOW_S)
    assert one is not None
    assert (one.name, one.event.text) == (f"{EVENTS}0001-waits.json", "waits 10 min: no capacity: everywhere")
    more = Claims(attempts=(*CLAIMS.attempts[:1], claim(2, ended=an_end("stockout", ran_s=None)), claim(3)))
    later = waiting_event(more, "no capacity", NOW_S + 5, NOW_S)
    assert later is not None
    assert later.name == one.name
    assert waiting_event(Claims(), "x", 1.0, 1.0) is None


class Slack(BaseHTTPRequestHandler):
    """Takes what is posted."""

    posted: list[Any] = []  # noqa: RUF012
    status = 200

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.headers["Content-Type"], json.loads(data)))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def slack() -> Iterator[str]:
    Slack.posted.clear()
    Slack.status = 200
    server = HTTPServer(("127.0.0.1", 0), Slack)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_webhook_gets_one_line_of_plain_text(slack: str) -> None:
    said: list[str] = []
    webhook(slack, said.append)("run: <!channel> & <https://evil|here>\n\x1b[31mred")
    ((kind, body),) = Slack.posted
    assert kind == "application/json"
    assert body == {"text": "baton: run: &lt;!channel&gt; &amp; &lt;https://evil|here&gt; \ufffd[31mred"}
    assert said == []
    assert len(slack_message("x" * 5000)["text"]) < 600


def test_a_webhook_that_fails_is_said_and_its_address_never(slack: str) -> None:
    said: list[str] = []
    Slack.status = 500
    webhook(slack, said.append)("x")
    webhook("http://127.0.0.1:9/secret", said.append)("x")
    assert said == ["the webhook answered 500", "the webhook did not answer (ConnectError)"]
    webhook(None, said.append)("x")
    assert len(said) == 2


def test_an_address_that_is_a_secret_is_never_sent_in_the_open() -> None:
    with pytest.raises(UsageError, match="not an https URL") as refused:
        webhook("http://hooks.example/T0/secret", print)
    assert "secret" not in refused.value.what


def test_the_address_is_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATON_WEBHOOK", raising=False)
    assert webhook_url() is None
    (tmp_path / ".env").write_text("BATON_WEBHOOK=https://a.example\n")
    assert webhook_url() == "https://a.example"
    monkeypatch.setenv("BATON_WEBHOOK", "https://b.example")
    assert webhook_url() == "https://b.example"
