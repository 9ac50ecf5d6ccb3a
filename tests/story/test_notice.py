"""Proves that the metadata server's notice is for finishing: training goes on after it, until the last safe moment,
and everything is durable and released before the machine would be gone.
"""

import http.server
import threading
import time
from collections.abc import Iterator

import pytest
from attempts import Run, wait_until, weights_sha256

NOTICE_S, MARGIN_S = 8.0, 4.0
SETTINGS = [f"attempt.notice_s={NOTICE_S}", f"attempt.flush_margin_s={MARGIN_S}"]


class Metadata(http.server.ThreadingHTTPServer):
    """Answers as Compute Engine's does: the value at once when it is new to the caller, otherwise when it changes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.preempted = threading.Event()
        self.told_s: float | None = None
        """time.time() at which the first caller was told TRUE."""
        self.env = {"GCE_METADATA_HOST": f"127.0.0.1:{self.server_port}"}


class Answer(http.server.BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        if self.headers["Metadata-Flavor"] != "Google" or not self.path.startswith(
            "/computeMetadata/v1/instance/preempted?wait_for_change=true"
        ):
            self.send_error(403)
            return
        if "last_etag=1" in self.path:
            self.server.preempted.wait()
        preempted = self.server.preempted.is_set()
        if preempted and self.server.told_s is None:
            self.server.told_s = time.time()
        text = b"TRUE" if preempted else b"FALSE"
        self.send_response(200)
        self.send_header("ETag", "2" if preempted else "1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    server = Metadata()
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.preempted.set()
    server.shutdown()
    server.server_close()


def give_notice(metadata: Metadata) -> None:
    metadata.preempted.set()
    wait_until(lambda: metadata.told_s is not None, "the agent asks")


def test_training_goes_on_after_the_notice_until_the_last_safe_moment(
    run: Run, reference: str, metadata: Metadata
) -> None:
    run.settings = SETTINGS
    attempt = run.start_at("mid_accumulation", "next_step", env=metadata.env)
    wait_until(lambda: run.durable_step() == 3, "step 3, the last boundary")
    give_notice(metadata)
    wait_until(lambda: "preemption notice" in attempt.err, "the agent's word that it heard")
    run.go_on("mid_accumulation")
    assert attempt.wait() == 75, attempt.err  # it stays in step 5 until it is killed there
    assert run.marker("mid_accumulation.next").exists()
    assert run.durable_step() == 4, "a step was made after the notice"
    assert run.json("head.json")["status"] == "released"
    ended = run.json("attempts/0001/attempt.json")["ended"]
    assert metadata.told_s is not None
    used_s = ended["at_s"] - metadata.told_s
    print(f"released {used_s:.2f} s after the notice, which left {NOTICE_S} s")
    assert 0 < used_s < NOTICE_S
    assert run.finish() == reference


def test_a_run_that_can_finish_within_the_notice_finishes(run: Run, reference: str, metadata: Metadata) -> None:
    run.settings = ["attempt.notice_s=600"]
    attempt = run.start_at("mid_accumulation", env=metadata.env)
    give_notice(metadata)
    wait_until(lambda: "preemption notice" in attempt.err, "the agent's word that it heard")
    run.go_on("mid_accumulation")
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(run) == reference


def test_a_machine_that_boots_into_its_own_end_gives_75(run: Run, reference: str, metadata: Metadata) -> None:
    metadata.preempted.set()
    run.settings = ["attempt.notice_s=1"]
    attempt = run.start(env=metadata.env)
    assert attempt.wait() == 75, attempt.err
    run.settings = []
    assert run.finish() == reference
