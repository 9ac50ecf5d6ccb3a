"""Proves that the metadata server's notice is for finishing: training goes on after it, until the last safe moment,
and everything is durable and released before the machine would be gone.
"""

import time
from collections.abc import Iterator

import pytest
from attempts import Run, wait_until, weights_sha256

from infra.localcloud.messages import Request, Response
from infra.localcloud.server import serving
from infra.localcloud.vm.guest import Guest
from infra.localcloud.vm.metadata import MetadataServer

NOTICE_S, MARGIN_S = 8.0, 4.0
SETTINGS = [f"attempt.notice_s={NOTICE_S}", f"attempt.flush_margin_s={MARGIN_S}"]


class Metadata:
    """The metadata server of the machine that the attempts run on."""

    def __init__(self) -> None:
        self.server = MetadataServer(Guest("vm", "project", "us-central1-a"), lambda: None)
        self.told_s: float | None = None
        """time.time() at which the first caller was told TRUE."""
        self.env: dict[str, str] = {}

    def answer(self, request: Request) -> Response:
        """What the server says, and when."""
        response = self.server.answer(request)
        if response.body == b"TRUE" and self.told_s is None:
            self.told_s = time.time()
        return response


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    metadata = Metadata()
    with serving(metadata.answer, stop=metadata.server.close) as url:
        metadata.env = {"GCE_METADATA_HOST": url.removeprefix("http://")}
        yield metadata


def give_notice(metadata: Metadata) -> None:
    metadata.server.announce_preemption()
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
    metadata.server.announce_preemption()
    run.settings = ["attempt.notice_s=1"]
    attempt = run.start(env=metadata.env)
    assert attempt.wait() == 75, attempt.err
    run.settings = []
    assert run.finish() == reference
