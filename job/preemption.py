"""Signals and the metadata server become one Deadline.

The C-level handler writes the signal's number into a socket, a thread reads it: nothing that the main thread does can
delay it, and nothing is interrupted in the middle. SIGTERM, SIGINT and SIGHUP mean now; the notice of the metadata
server leaves time that training may use. A second SIGINT ends the process at once.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SIGNAL_GRACE_S = 10.0  # Docker's default between SIGTERM and SIGKILL (docs.docker.com, container stop, 2026-11)
FIRMWARE = Path("/sys/class/dmi/id/product_name")  # "Google Compute Engine" on a VM of Google Cloud
METADATA_PATH = "/computeMetadata/v1/instance/preempted"
METADATA_WAIT_S = 60  # length of one long poll
METADATA_PAUSE_S = 1.0  # after an error, and between answers that come at once though nothing changed


@dataclass(frozen=True)
class Deadline:
    """When the attempt must be gone, and who said so."""

    reason: str
    at_s: float
    """time.monotonic() of the moment by which everything must be durable."""
    immediate: bool
    """True for a signal: flush and leave now. False for a notice that lets training use the time up."""

    def left_s(self) -> float:
        """Seconds until then, never below zero."""
        return max(0.0, self.at_s - time.monotonic())


class Notice:
    """The earliest Deadline that anybody announced; None as long as nobody did.

    Made by `install`, before anything else of the process. `start` begins to listen: it starts threads, so it comes
    after the process has forked what it needs. Signals that arrive in between are kept.
    """

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self.deadline: Deadline | None = None
        self._reader, self._writer = reader, writer
        self._wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._at_once: Callable[[], None] = lambda: None
        self._interrupts = 0

    def start(self, wake: Callable[[], None], *, at_once: Callable[[], None]) -> None:
        """Listens from now on. `wake` is called when the deadline changes; `at_once` on a second SIGINT."""
        self._wake, self._at_once = wake, at_once
        threading.Thread(target=self._read_signals, daemon=True, name="signals").start()

    def watch_metadata(self, notice_s: float) -> None:
        """Asks the metadata server for a preemption notice, where this machine has one. A notice leaves `notice_s`."""
        host = metadata_host()
        if host is not None:
            threading.Thread(target=self._poll_metadata, args=(host, notice_s), daemon=True, name="metadata").start()

    def announce(self, reason: str, *, left_s: float, immediate: bool) -> None:
        """Somebody wants the attempt to end within `left_s`. An earlier or immediate deadline replaces a later one."""
        new = Deadline(reason, time.monotonic() + left_s, immediate)
        with self._lock:
            old = self.deadline
            if old is not None and (old.immediate or (not immediate and old.at_s <= new.at_s)):
                return
            if old is not None:
                new = Deadline(reason, min(new.at_s, old.at_s), immediate)
            self.deadline = new
        self._wake()

    def leave_to_parent(self) -> None:
        """In a forked child: signals to the whole process group are the parent's business.

        A handler that does nothing rather than SIG_IGN, which programs started from here would inherit.
        """
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _do_nothing)
        self._reader.close()
        self._writer.close()

    def _read_signals(self) -> None:
        while data := self._reader.recv(1):
            number = signal.Signals(data[0])
            if number is signal.SIGINT:
                self._interrupts += 1
                if self._interrupts > 1:
                    self._at_once()
            if number in SIGNALS:
                # What follows a SIGTERM is SIGKILL, after a time that only the sender knows: `docker stop` waits 10 s.
                self.announce(number.name, left_s=SIGNAL_GRACE_S, immediate=True)

    def _poll_metadata(self, host: str, notice_s: float) -> None:
        import urllib.request  # 50 ms that the handlers, which come first of all, need not wait for
        from http.client import HTTPException

        etag = "0"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine
        while True:
            url = f"http://{host}{METADATA_PATH}?wait_for_change=true&timeout_sec={METADATA_WAIT_S}&last_etag={etag}"
            request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
            try:
                with opener.open(request, timeout=METADATA_WAIT_S + 10) as reply:
                    etag = reply.headers.get("ETag", "0")
                    preempted = reply.read().strip().upper() == b"TRUE"
            except (OSError, ValueError, HTTPException):
                preempted = False
            if preempted:
                self.announce("preemption notice", left_s=notice_s, immediate=False)
                return
            time.sleep(METADATA_PAUSE_S)


def install() -> Notice:
    """Takes the signals over; from here on none of them kills the process. Needs only the standard library."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in SIGNALS:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _do_nothing)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # `baton train` blocks the signals before it becomes this process, so that none is lost on the way.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return Notice(reader, writer)


def metadata_host() -> str | None:
    """The metadata server's host, None where there is none: GCE_METADATA_HOST, or the firmware says Google."""
    if host := os.environ.get("GCE_METADATA_HOST"):
        return host
    with contextlib.suppress(OSError):
        if "Google" in FIRMWARE.read_text():
            return "metadata.google.internal"
    return None


def _do_nothing(number: int, frame: object) -> None:
    """The wake-up socket carries the signal; Python has nothing to do."""
