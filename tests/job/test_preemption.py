"""Proves that signals and the metadata server become one Deadline: from the first line of a process, also as PID 1,
also while its main thread is busy, and that a second SIGINT ends it at once."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from job.preemption import Notice, install, metadata_host

ROOT = Path(__file__).parents[2]
BUSY = """
import os, re, signal, sys, threading
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)  # whatever runs the tests did
from job import preemption
notice = preemption.install()
told = threading.Event()
notice.start(told.set, at_once=lambda: os._exit(9))
print("ready", flush=True)
if "gil" in sys.argv:
    re.match(r"(a+)+$", "a" * 26 + "b")  # C code that holds the GIL for seconds
told.wait()
print(notice.deadline.reason, notice.deadline.immediate, flush=True)
if "stay" in sys.argv:
    threading.Event().wait()
os._exit(75)
"""


@contextmanager
def process(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [*prefix, sys.executable, "-c", BUSY, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def notice() -> Iterator[Notice]:
    """Installed in this process; its handlers are taken back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield install()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_means_now(number: signal.Signals) -> None:
    with process() as child:
        child.send_signal(number)
        assert child.wait(30) == 75
        assert child.stdout is not None
        assert child.stdout.readline() == f"{number.name} True\n"


def test_a_hang_up_is_ignored_under_nohup() -> None:
    with process("stay", "nohup") as child:
        child.send_signal(signal.SIGHUP)
        child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        assert child.stdout.readline() == "SIGTERM True\n"


def test_a_signal_is_kept_while_c_code_holds_the_gil() -> None:
    with process("gil") as child:
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 75


def test_a_second_interrupt_ends_the_process_at_once() -> None:
    with process("stay") as child:
        child.send_signal(signal.SIGINT)
        assert child.stdout is not None
        assert child.stdout.readline() == "SIGINT True\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 9


def test_a_second_sigterm_changes_nothing() -> None:
    with process("stay") as child:
        assert child.stdout is not None
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "SIGTERM True\n"
        child.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + 30
        while child.poll() is None and time.monotonic() < end_s:
            child.send_signal(signal.SIGINT)  # those that are pending at once count as one
        assert child.wait(1) == 9


@pytest.mark.needs_system("unshare", "the right to unshare")
def test_it_works_as_pid_1_where_signals_without_a_handler_are_ignored() -> None:
    with process(prefix=("unshare", "--pid", "--fork", "--kill-child")) as child:
        pids = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        os.kill(int(pids[0]), signal.SIGTERM)
        assert child.wait(30) == 75


def test_a_signal_that_was_blocked_by_the_program_before_is_not_lost() -> None:
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
        "os.kill(os.getpid(), signal.SIGTERM); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", code, BUSY], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (75, "ready\nSIGTERM True\n")


def test_an_earlier_deadline_stays_and_an_immediate_one_replaces_it(notice: Notice) -> None:
    changes: list[str] = []
    notice._wake = lambda: changes.append("changed")
    notice.announce("first", left_s=30, immediate=False)
    notice.announce("later", left_s=100, immediate=False)
    assert notice.deadline is not None
    assert notice.deadline.reason == "first"
    notice.announce("SIGTERM", left_s=100, immediate=True)
    assert notice.deadline.reason == "SIGTERM"
    assert notice.deadline.left_s() <= 30
    notice.announce("sooner", left_s=1, immediate=False)
    assert notice.deadline.reason == "SIGTERM"
    assert changes == ["changed", "changed"]


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as the metadata server does: FALSE, an error, no HTTP at all, FALSE without a change, then TRUE."""

    answers: ClassVar = [(200, "FALSE"), (503, ""), (0, ""), (200, "FALSE"), (200, "TRUE")]
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            self.send_error(403)
            return
        type(self).asked.append(self.path)
        status, text = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if status == 0:
            self.wfile.write(b"no HTTP\r\n\r\n")
            return
        self.send_response(status)
        self.send_header("ETag", f"tag{len(self.asked)}")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_metadata_server_is_polled_until_it_says_preempted(notice: Notice, monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    told = threading.Event()
    notice._wake = told.set
    before_s = time.monotonic()
    notice.watch_metadata(notice_s=120)
    assert told.wait(30)
    server.shutdown()
    deadline = notice.deadline
    assert deadline is not None
    assert (deadline.reason, deadline.immediate) == ("preemption notice", False)
    assert before_s + 120 <= deadline.at_s <= time.monotonic() + 120
    assert [path.split("last_etag=")[1] for path in Metadata.asked] == ["0", "tag1", "tag1", "tag1", "tag4"]
    assert all("wait_for_change=true" in path for path in Metadata.asked)


def test_without_a_metadata_server_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    product = tmp_path / "product_name"
    monkeypatch.setattr("job.preemption.FIRMWARE", product)
    assert metadata_host() is None
    product.write_text("Standard PC\n")
    assert metadata_host() is None
    product.write_text("Google Compute Engine\n")
    assert metadata_host() == "metadata.google.internal"
