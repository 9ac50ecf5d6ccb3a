"""Proves that a service that goes away, or refuses a run's credentials for a while, stops no training and costs no bit;
and that uploads that do not get through end an attempt in time, with 76.
"""

import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attempts import Process, Run, wait_until, weights_sha256

from infra.localcloud.storage.process import BUCKET, StorageProcess, serve

EVERY_STEP = ["attempt.machine_usd_per_hour=1000"]
"""Checkpoints as often as there are steps, whatever the service bills for them."""
GRACE_S = 10.0  # between SIGTERM and SIGKILL (job/preemption.py)


@pytest.fixture
def port() -> int:
    """A free one: the service comes back where it was."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def cloud(port: int, tmp_path: Path) -> Iterator[StorageProcess]:
    with serve("--port", str(port), "--root", str(tmp_path / "cloud")) as cloud:
        yield cloud


@pytest.fixture
def cloud_run(run: Run, cloud: StorageProcess, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
    run.cloud_uri = f"gs://{BUCKET}/runs/{secrets.token_hex(4)}"
    run.settings = EVERY_STEP
    return run


def bill(run: Run) -> dict[str, str]:
    """Lets the story's task note each generation batch that it scores."""
    return {"STORY_BILL": str(run.folder / "bill")}


def wait_for_next_batch(run: Run, attempt: Process) -> None:
    """Training goes on: the batch after the one of `mid_accumulation` is scored."""
    noted = run.folder / "bill"
    wait_until(lambda: noted.read_text().count("\n") == 2 or not attempt.lives(), f"next batch\n{attempt.err}")
    assert attempt.lives(), attempt.err


def test_an_outage_in_the_middle_stops_no_training_and_loses_nothing(
    run: Run, reference: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    run.cloud_uri = f"gs://{BUCKET}/runs/outage"
    run.settings = EVERY_STEP
    flags = ("--port", str(port), "--root", str(tmp_path / "cloud"))
    with serve(*flags):
        attempt = run.start_at("mid_accumulation", env=bill(run))
    run.go_on("mid_accumulation")
    wait_for_next_batch(run, attempt)
    with serve(*flags):
        assert attempt.wait() == 0, attempt.err
        assert weights_sha256(run) == reference


def test_credentials_that_are_refused_for_a_while_are_waited_for(
    cloud_run: Run, cloud: StorageProcess, reference: str
) -> None:
    attempt = cloud_run.start_at("mid_accumulation", env=bill(cloud_run))
    cloud.arm("401", count=None)
    cloud_run.go_on("mid_accumulation")
    wait_for_next_batch(cloud_run, attempt)
    cloud.clear()
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(cloud_run) == reference


@pytest.mark.parametrize("fault", [pytest.param("stall", marks=pytest.mark.long), "503"])
def test_uploads_that_do_not_get_through_end_an_attempt_in_time_and_the_next_goes_on(
    cloud_run: Run, cloud: StorageProcess, reference: str, fault: str
) -> None:
    attempt = cloud_run.start_at("mid_accumulation")
    cloud.arm(fault, verb="upload", count=None, delay_s=None)
    attempt.kill(signal.SIGTERM)
    told_s = time.monotonic()
    assert attempt.wait() == 76, attempt.err
    assert time.monotonic() - told_s < GRACE_S + 2
    errors = [line for line in attempt.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, attempt.err
    assert "Traceback" not in attempt.err
    cloud.clear()
    assert cloud_run.finish() == reference
