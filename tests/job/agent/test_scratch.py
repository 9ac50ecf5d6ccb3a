"""Proves that an attempt's temporary folder goes with it: removed at its end, swept by the next when it was killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from job.agent.scratch import MARK, Scratch
from job.errors import NeedsPerson

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from job.agent.scratch import Scratch
scratch = Scratch()
(scratch.path / "data").write_text("copy")
print(scratch.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hold(temporary: Path) -> tuple["subprocess.Popen[str]", Path]:
    env = {**os.environ, "TMPDIR": str(temporary)}
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_it_is_removed_with_what_is_in_it() -> None:
    scratch = Scratch()
    (scratch.path / "file").write_text("x")
    scratch.remove()
    assert not scratch.path.exists()


def test_what_a_killed_attempt_left_is_swept_by_the_next(temporary: Path) -> None:
    child, left = hold(temporary)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (left / "data").exists()
    scratch = Scratch()
    assert not left.exists()
    assert list(temporary.iterdir()) == [scratch.path]
    scratch.remove()


def test_that_of_an_attempt_that_lives_is_left_alone(temporary: Path) -> None:
    child, living = hold(temporary)
    Scratch().remove()
    assert (living / "data").read_text() == "copy"
    child.kill()
    child.wait()


@pytest.mark.parametrize("name", ["baton-mine", "baton-attempt-mine", "baton-benchmark-1"])
def test_a_folder_of_somebody_else_is_never_touched_whatever_its_name(temporary: Path, name: str) -> None:
    run = temporary / name / "runs" / "x"
    run.mkdir(parents=True)
    (run / "head.json").write_text("{}")
    Scratch().remove()
    assert (run / "head.json").read_text() == "{}"


def test_a_link_to_a_folder_is_not_followed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / MARK).touch()
    (temporary / "baton-attempt-link").symlink_to(elsewhere)
    Scratch().remove()
    assert (elsewhere / MARK).exists()


def test_a_place_that_cannot_be_written_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(NeedsPerson, match="no temporary folder") as refusal:
        Scratch()
    assert "TMPDIR" in refusal.value.fix
