"""Proves that a full disk ends an attempt with one clear line and exit 3, and that the run goes on once there is space.

The run's folder is a tmpfs too small for it, which only root can mount.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attempts import Run, random_moments

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def mount(folder: Path, size_bytes: int, *, again: bool = False) -> None:
    """Mounts a tmpfs there, or gives the one that is there another size."""
    options = f"size={size_bytes}" + (",remount" if again else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


@pytest.fixture
def small_disk(run: Run) -> Iterator[Path]:
    """The run's folder as a file system of its own, unmounted at the end."""
    run.bucket.mkdir()
    mount(run.bucket, 1 << 20)
    yield run.bucket
    subprocess.run(["umount", "--lazy", run.bucket], check=True)


def used_bytes(folder: Path) -> int:
    """What a file system's blocks hold."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.needs_system("mount", "umount", "the right to mount")
def test_a_full_disk_ends_with_3_and_one_line_and_the_run_goes_on_when_there_is_space(
    run: Run, reference: str, small_disk: Path
) -> None:
    moments = random_moments()
    mount(small_disk, 64 << 20, again=True)
    attempt = run.start_at("mid_accumulation")
    attempt.kill(signal.SIGKILL)
    attempt.wait()
    durable = run.durable_step()
    folder = small_disk / run.json("head.json")["checkpoint"]["folder"]
    another_pages = sum(-(-path.stat().st_size // PAGE_BYTES) for path in folder.iterdir())
    # Anything from no space at all, so that not even a claim can be written, to nearly a checkpoint's.
    mount(small_disk, used_bytes(small_disk) + moments.randrange(another_pages) * PAGE_BYTES, again=True)

    full = run.start()
    assert full.wait() == 3, full.err
    errors = [line for line in full.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, full.err
    assert errors[0].startswith(f"error: disk full: {small_disk}/")
    assert "Traceback" not in full.err
    assert run.durable_step() >= durable

    mount(small_disk, 64 << 20, again=True)
    assert run.finish() == reference
