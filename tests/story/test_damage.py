"""Proves that a damaged checkpoint is never used: the run goes on from the one before, says so, and ends with the same
weights; with no good one left it ends with exit 3 and changes nothing.
"""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import Run, tree


def flip(path: Path) -> None:
    """Turns one bit in the middle over."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def tear(path: Path) -> None:
    """Keeps the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("state.safetensors", flip, "state.safetensors has other bytes (crc32c)"),
    ("state.safetensors", tear, "state.safetensors does not have"),
    ("state.safetensors", Path.unlink, "state.safetensors is missing"),
    ("extra.safetensors", flip, "extra.safetensors has other bytes (crc32c)"),
    ("meta.json", empty, "meta.json does not have"),
    ("MANIFEST.json", flip, "MANIFEST.json is not the one that head names (crc32c)"),
    ("MANIFEST.json", Path.unlink, "MANIFEST.json is missing"),
]


def newest(run: Run) -> dict[str, object]:
    """The checkpoint that head names."""
    head = run.head()
    assert head is not None
    checkpoint: dict[str, object] = head["checkpoint"]
    return checkpoint


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_quarantined_and_the_one_before_is_used(
    run: Run, reference: str, name: str, damage: Callable[[Path], None], reason: str
) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    bad = newest(run)
    damage(run.bucket / str(bad["folder"]) / name)
    before = run.json("head.json")["kept"][1]
    attempt = run.start()
    assert attempt.wait() == 0, attempt.err
    (event,) = run.events("quarantine")
    assert (event["folder"], event["step"]) == (bad["folder"], bad["step"])
    assert reason in event["reason"]
    assert f"warning: {bad['folder']} is bad and was left out: {event['reason']}" in attempt.err
    assert run.json("attempts/0002/attempt.json")["resumed_from"]["folder"] == before["folder"]
    assert run.finish() == reference


def test_a_damaged_addition_is_left_out_and_its_batch_is_made_again(run: Run, reference: str) -> None:
    bill = run.folder / "bill"
    assert run.kill_at("scored", signal.SIGTERM, env={"STORY_BILL": str(bill)}) == 75
    checkpoint = newest(run)
    assert checkpoint["addition"] is not None
    folder = f"{checkpoint['folder']}/{checkpoint['addition']}"
    flip(run.bucket / folder / "scored.safetensors")
    attempt = run.start(env={"STORY_BILL": str(bill)})
    assert attempt.wait() == 0, attempt.err
    (event,) = run.events("quarantine")
    assert event["folder"] == folder
    assert f"warning: {folder} is bad" in attempt.err
    assert run.json("attempts/0002/attempt.json")["resumed_from"]["step"] == checkpoint["step"] == 4
    assert len(bill.read_text().splitlines()) == 3
    assert run.finish() == reference


def test_a_good_addition_is_used_and_its_batch_is_not_bought_again(run: Run, reference: str) -> None:
    bill = run.folder / "bill"
    assert run.kill_at("scored", signal.SIGTERM, env={"STORY_BILL": str(bill)}) == 75
    attempt = run.start(env={"STORY_BILL": str(bill)})
    assert attempt.wait() == 0, attempt.err
    assert len(bill.read_text().splitlines()) == 2
    assert run.finish() == reference


def test_without_a_good_checkpoint_it_ends_with_3_and_changes_nothing(run: Run, reference: str) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    states = [run.bucket / ref["folder"] / "state.safetensors" for ref in run.json("head.json")["kept"]]
    assert len(states) == 2
    for state in states:
        flip(state)
    before = tree(run.bucket)
    attempt = run.start()
    assert attempt.wait() == 3, attempt.err
    errors = [line for line in attempt.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, attempt.err
    assert errors[0].startswith(f"error: no checkpoint of {run.uri} is good")
    assert "Traceback" not in attempt.err
    assert tree(run.bucket) == before
    for state in states:  # "put the right bytes back"
        flip(state)
    assert run.finish() == reference
