"""Proves that a run has one owner at any time: an attempt that was frozen and wakes late changes nothing, and of two
that start at once one finishes.
"""

import signal

import pytest
from attempts import Process, Run, random_moments, stop_group, tree, weights_sha256


def outside(objects: dict[str, str], attempt: int) -> dict[str, str]:
    """Objects but for the attempt's own: its folder, and what it saved and no head names."""
    own = f"-{attempt:04d}-"
    return {
        name: digest
        for name, digest in objects.items()
        if not name.startswith(f"attempts/{attempt:04d}/") and not (name.startswith("checkpoints/") and own in name)
    }


@pytest.mark.parametrize("place", ["mid_accumulation", "upload", "head_write", "finishing"])
def test_a_zombie_that_wakes_late_is_fenced_and_changes_nothing(run: Run, reference: str, place: str) -> None:
    zombie = run.start_at(place)
    stop_group(run, zombie)
    assert run.finish() == reference
    before = tree(run.bucket)
    zombie.kill_group(signal.SIGCONT)
    run.go_on(place)
    assert zombie.wait() == 4, zombie.err
    errors = [line for line in zombie.err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: attempt 2.0 owns {run.uri}; this is attempt 1.0."]
    after = tree(run.bucket)
    assert outside(after, 1) == outside(before, 1)
    assert {name: after.get(name) for name in before if name.startswith("checkpoints/")} == {
        name: digest for name, digest in before.items() if name.startswith("checkpoints/")
    }
    assert weights_sha256(run) == reference


def test_a_zombie_that_wakes_in_the_middle_does_not_disturb_its_successor(run: Run, reference: str) -> None:
    zombie = run.start_at("upload")
    stop_group(run, zombie)
    successor = run.start_at("mid_accumulation")
    zombie.kill_group(signal.SIGCONT)
    run.go_on("upload")
    assert zombie.wait() == 4, zombie.err
    assert successor.lives()
    run.go_on("mid_accumulation")
    assert successor.wait() == 0, successor.err
    assert weights_sha256(run) == reference


@pytest.mark.parametrize("begun", [False, True])
def test_of_two_attempts_at_once_one_finishes(run: Run, reference: str, begun: bool) -> None:
    moments = random_moments()
    if begun:
        assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    first = run.start()
    for _ in range(moments.randrange(3_000_000)):
        pass
    second = run.start()
    check_that_one_finished(run, first, second)
    assert weights_sha256(run) == reference


def check_that_one_finished(run: Run, first: Process, second: Process) -> None:
    codes = [first.wait(), second.wait()]
    said = f"{codes}\n{first.err}\n{second.err}"
    assert sorted(codes) in ([0, 4], [0, 0]), said
    if codes == [0, 0]:
        assert "is finished" in first.err + second.err, said  # the other came when all was done
    assert run.json("head.json")["status"] == "finished"
