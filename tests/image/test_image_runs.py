"""The images in containers that could not be held tighter: what they refuse in one line, how their health is told."""

import re
import time
from pathlib import Path

import pytest
from image_boxes import TIGHT, Boxes, Images, wait_until

from infra.localcloud.storage.process import BUCKET, StorageProcess
from job.errors import ExitCode

pytestmark = pytest.mark.image
AT_ONCE_S = 10.0
"""Far less than it takes to import torch, and not so little that a busy machine fails it."""


def one_line(text: str, says: str) -> bool:
    # podman's own: without systemd nobody asks for the health of a container but a test.
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("time=")]
    return len(lines) == 1 and re.search(says, lines[0]) is not None


def test_it_runs_read_only_as_nobody_in_particular_and_without_any_capability(boxes: Boxes, images: Images) -> None:
    script = "id -u; grep CapEff /proc/self/status; touch /baton/x /etc/x /opt/venv/x; touch /tmp/x && echo tmp"
    for image in (images.slim, images.train_cpu):
        done = boxes.run(image, "-c", script, flags=["--entrypoint=bash"])
        assert done.stdout.split() == ["1000", "CapEff:", "0000000000000000", "tmp"]
        assert done.stderr.count("Read-only file system") == 3


def test_slim_is_the_laptops_command_line(boxes: Boxes, images: Images) -> None:
    done = boxes.run(images.slim)
    assert done.returncode == 0, done.stderr
    assert "launch" in done.stdout
    done = boxes.run(images.slim, "launch", "recipes/demo.toml", "--gpu", "l4", "--spot", "--dry-run", env={
        "BATON_PROJECT": "p", "BATON_BUCKET": "gs://b", "BATON_IMAGE": f"eu-docker.pkg.dev/p/r/train@sha256:{'1' * 64}"
    })  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_watchdog_starts_in_both_as_the_startup_script_starts_it(boxes: Boxes, images: Images) -> None:
    for image in (images.slim, images.train_cpu):
        done = boxes.run(image, "watchdog", "run", "--help", flags=["--entrypoint", "baton"])
        assert done.returncode == 0, done.stderr
        assert "--all" in done.stdout


def test_the_local_cloud_is_not_shipped_and_that_is_said(boxes: Boxes, images: Images) -> None:
    for command in ("local", "demo"):
        done = boxes.run(images.slim, command)
        assert done.returncode == ExitCode.USAGE
        assert f"baton {command} is not in the image" in done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_run_it_says_so(boxes: Boxes, images: Images) -> None:
    done = boxes.run(images.train_cpu)
    assert done.returncode == ExitCode.USAGE
    assert one_line(done.stderr, "BATON_RUN")


def test_a_cache_that_cannot_be_written_is_refused_at_once(boxes: Boxes, images: Images, tmp_path: Path) -> None:
    for flags in ([f"--volume={tmp_path}:/cache:ro"], [f"--volume={tmp_path}:/cache"]):  # the second is root's
        done = boxes.run(images.train_cpu, "recipes/demo.toml", "--run", "file:///tmp/run", flags=flags)
        assert done.returncode == ExitCode.NEEDS_PERSON
        assert one_line(done.stderr, "user 1000 cannot write to /cache")


def test_scratch_that_cannot_be_written_is_refused_at_once(boxes: Boxes, images: Images) -> None:
    tight = [flag for flag in TIGHT if not flag.startswith("--tmpfs")] + ["--read-only-tmpfs=false"]
    done = boxes.run(images.train_cpu, "recipes/demo.toml", "--run", "file:///x", tight=tight)
    assert done.returncode == ExitCode.NEEDS_PERSON
    assert one_line(done.stderr, "user 1000 cannot write to /(tmp|cache)")


@pytest.mark.parametrize(
    ("smi", "says"),
    [
        ("", "no GPU here. Run with --gpus all"),
        ("echo NVIDIA-SMI has failed; exit 9", "no GPU here. Run with --gpus all"),
        ("echo 535.129.03", "needs NVIDIA's driver 580 or newer, found 535.129.03"),
    ],
)
def test_a_gpu_image_without_gpu_or_with_an_old_driver_ends_at_once(
    boxes: Boxes, images: Images, cache: str, tmp_path: Path, smi: str, says: str
) -> None:
    flags = [f"--volume={cache}:/cache"]
    if smi:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{smi}\n")
        program.chmod(0o755)
        flags.append(f"--volume={program}:/usr/bin/nvidia-smi:ro")
    began_s = time.monotonic()
    done = boxes.run(
        images.train_cpu,
        *("recipes/demo.toml", "--run", "file:///tmp/run"),
        env={"BATON_NEEDS_DRIVER": "580"},  # which the image `train` sets
        flags=flags,
    )
    assert time.monotonic() - began_s < AT_ONCE_S
    assert done.returncode == ExitCode.NEEDS_PERSON
    assert one_line(done.stderr, re.escape(says))


def test_health_is_the_heartbeat(boxes: Boxes, images: Images, cache: str, bucket_server: StorageProcess) -> None:
    box = boxes.start(
        images.train_cpu,
        *("recipes/demo.toml", "--run", f"gs://{BUCKET}/runs/health"),
        env={"STORAGE_EMULATOR_HOST": bucket_server.url},
        flags=[f"--volume={cache}:/cache"],
    )
    check = ["exec", box.name, "healthcheck.sh"]
    assert "healthcheck.sh" in boxes.ask("image", "inspect", images.train_cpu)
    assert boxes.command(*check).returncode == 1, "nothing was told yet"
    wait_until(lambda: boxes.command(*check).returncode == 0, box.said)
    # The bucket had a heartbeat when the check said so.
    asked = [one for one in bucket_server.requests() if "health" in str(one) and "heartbeat.json" in str(one)]
    assert asked
    boxes.ask(
        "exec",
        box.name,
        "bash",
        "-c",
        "touch --date='-200 seconds' /tmp/baton-attempt-*/heartbeat; healthcheck.sh; echo $?",
    )
    box.stop()
    assert box.exit_code() == ExitCode.PREEMPTED


def test_a_signal_while_it_starts_ends_it_with_75(boxes: Boxes, images: Images, cache: str) -> None:
    box = boxes.start(
        images.train_cpu, "recipes/demo.toml", "--run", "file:///tmp/run", flags=[f"--volume={cache}:/cache"]
    )
    box.stop()
    assert box.exit_code() == ExitCode.PREEMPTED, box.said()
