"""Proves that a trainer that hangs while it checks or loads is found out like one that hangs in training: it tells
where it stands, is started again, and the attempt ends when the next one hangs there too.

A download that is slow but moves is left in peace, however long it takes; huggingface_hub is the real client.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from attempts import ROOT, Run, tree, weights_sha256
from refusals import own_workplace

sys.path.append(str(ROOT / "tests/job"))
from loopback_hub import Hub, serving

HANG_S = 6
REPO = "acme/micro"
FILLER_BYTES = 41 << 20
SLOW_BLOCK_S = 0.2  # a MiB: huggingface_hub hands over 10 of them at a time


@pytest.mark.parametrize(
    "place",
    ["tests.story.stalls:first_check", pytest.param("tests.story.places:model_loading", marks=pytest.mark.long)],
)
def test_a_trainer_that_hangs_before_it_trains_is_started_again(run: Run, reference: str, place: str) -> None:
    run.settings.append(f"attempt.hang_timeout_s={HANG_S}")
    marker = run.folder / "here"
    attempt = run.start(patches=[place], env={"BATON_TEST_PLACE": str(marker)})
    assert attempt.wait() == 0, attempt.err
    assert marker.exists()
    assert f"the trainer crashed (no progress for {HANG_S} s: the trainer hangs.); starting it again" in attempt.err
    assert 'places.py", line' in attempt.err, "the stack says where"
    assert len(run.events("trainer_crashed")) == 1
    assert weights_sha256(run) == reference


@pytest.mark.long
def test_a_task_that_loops_at_import_ends_the_attempt_and_nothing_is_changed(run: Run) -> None:
    run = own_workplace(run)
    run.settings.append(f"attempt.hang_timeout_s={HANG_S}")
    (run.workplace / "story_task.py").write_text("while True:\n    pass\n")
    attempt = run.start()
    assert attempt.wait() == 1, attempt.err
    assert attempt.err.count('story_task.py", line') == 2, "each trainer's stack says where"
    assert (
        f"error: the trainer failed twice while it checked model, task and data: no progress for {HANG_S} s: "
        "the trainer hangs." in attempt.err
    )
    assert not run.bucket.exists()


@pytest.mark.long
def test_a_model_that_never_loads_ends_the_attempt_which_leaves_the_run_as_it_was(run: Run, reference: str) -> None:
    run.settings.append(f"attempt.hang_timeout_s={HANG_S}")
    attempt = run.start(patches=["tests.story.stalls:every_load"])
    assert attempt.wait() == 1, attempt.err
    assert "error: the trainer failed twice before the first step: no progress" in attempt.err
    assert run.durable_step() == -1
    assert not [name for name in tree(run.bucket) if name.startswith("checkpoints/")]
    assert run.finish() == reference


@pytest.fixture
def hub(run: Run) -> Iterator[Hub]:
    """The story's model on a Hub, with a file that is no model's, to make it large."""
    own = own_workplace(run)
    (own.workplace / "micro/filler.txt").write_bytes(bytes(FILLER_BYTES))
    with serving(REPO) as hub:
        hub.move("main", own.workplace / "micro")
        yield hub


def from_hub(run: Run, hub: Hub) -> tuple[Run, dict[str, str]]:
    """The run with its model from there, and the environment that it needs."""
    settings = [f"attempt.hang_timeout_s={HANG_S}", f"model.name={REPO}"]
    return replace(run, settings=settings), {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(run.folder / "hf"),
        "HF_HUB_OFFLINE": "0",
    }


def test_a_slow_download_takes_longer_than_a_hang_and_is_left_in_peace(run: Run, reference: str, hub: Hub) -> None:
    began_s: list[float] = []
    run, env = from_hub(run, hub)

    def slow(name: str) -> None:
        if name == "filler.txt":
            began_s.append(time.monotonic())
            time.sleep(SLOW_BLOCK_S)  # what a slow network is

    hub.before_block = slow
    attempt = run.start_cold(env=env)
    assert attempt.wait() == 0, attempt.err
    assert began_s[-1] - began_s[0] > HANG_S, "or nothing is shown"
    assert "hangs" not in attempt.err
    assert weights_sha256(run) == reference


@pytest.mark.long
def test_a_download_that_stalls_is_tried_again(run: Run, reference: str, hub: Hub) -> None:
    over = threading.Event()
    run, env = from_hub(run, hub)
    hub.before_block = stall_first("filler.txt", over)
    attempt = run.start_cold(env={**env, "HF_HUB_DOWNLOAD_TIMEOUT": "600"})
    try:
        assert attempt.wait() == 0, attempt.err
    finally:
        over.set()
    assert "the trainer hangs.); starting it again from the beginning" in attempt.err
    assert "snapshot_download" in attempt.err, "the stack says where"
    assert weights_sha256(run) == reference


def stall_first(file: str, over: threading.Event) -> Callable[[str], None]:
    """Stops in the middle of the file when it is first asked for, until `over`."""
    blocks = 0

    def stall(name: str) -> None:
        nonlocal blocks
        blocks += name == file
        if name == file and blocks == 15:
            over.wait()

    return stall
