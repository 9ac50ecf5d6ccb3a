"""A watchdog process: which runs it watches, with whose rights, until when it goes on, whom it tells."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from infra.reading.runs import runs_of
from infra.watch.notify import webhook, webhook_url
from infra.watch.observed import Policy
from infra.watchdog import INTERVAL_S, Watchdog
from job.errors import UsageError
from job.run.spec import read_spec
from job.storage import open_bucket
from job.views.text import printable


def watch_runs(uris: Sequence[str], *, interval_s: float = INTERVAL_S, policy: Policy | None = None) -> Watchdog:
    """A watchdog of these runs. Raises UsageError for a URI that is no run with VMs."""
    for uri in uris:
        spec = read_spec(open_bucket(uri))
        if spec is None:
            raise UsageError(f"there is no run at {uri}.", fix="Check the URI; `baton launch` starts a run.")
        if spec.machine is None:
            raise UsageError(
                f"{uri} is a run of processes that people start: there are no VMs to look after.",
                fix="`baton launch` starts runs on VMs.",
            )
    return _made(lambda: uris, None, interval_s, policy)


def watch_bucket(bucket_uri: str, *, interval_s: float = INTERVAL_S) -> Watchdog:
    """A watchdog of all runs of a bucket, those to come included."""
    bucket_uri = bucket_uri.rstrip("/")
    runs_of(bucket_uri)  # says at once when it cannot be read
    return _made(lambda: runs_of(bucket_uri), bucket_uri, interval_s)


def go_on(watchdog: Watchdog, done: Callable[[], bool], stopping: threading.Event) -> None:
    """Ticks until `done` says so or `stopping` is set; at once again where something was done."""
    while not stopping.is_set():
        began_s = time.monotonic()
        again = watchdog.tick()
        if done():
            return
        if not again:
            stopping.wait(max(0.0, watchdog.interval_s - (time.monotonic() - began_s)))


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """Set by SIGTERM, SIGINT and SIGHUP: a watchdog may be ended anywhere, and this one ends between two ticks."""
    stopping = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {one: signal.signal(one, lambda *_: stopping.set()) for one in signals}
    try:
        yield stopping
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def say(text: str) -> None:
    """A line for people on stderr, with the time."""
    for line in text.splitlines():
        print(f"{datetime.now(UTC):%H:%M:%S} {printable(line)}", file=sys.stderr, flush=True)


def _made(
    runs: Callable[[], Sequence[str]], bucket_uri: str | None, interval_s: float, policy: Policy | None = None
) -> Watchdog:
    from infra.cloud.access import open_cloud

    return Watchdog(
        runs,
        open_bucket=open_bucket,
        open_cloud=open_cloud,
        watcher=f"{socket.gethostname()}:{os.getpid()}",
        bucket_uri=bucket_uri,
        call=webhook(webhook_url(), say),
        say=say,
        policy=policy,
        interval_s=interval_s,
    )
