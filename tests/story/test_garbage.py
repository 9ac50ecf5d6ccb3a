"""Proves that what a killed upload leaves behind is collected by the next attempt, and nothing that head lists is."""

import signal

from attempts import Run, weights_sha256


def folders(run: Run) -> set[str]:
    return {f"checkpoints/{path.name}" for path in (run.bucket / "checkpoints").iterdir() if any(path.iterdir())}


def test_a_checkpoint_that_was_killed_before_its_manifest_is_deleted_by_the_next_attempt(
    run: Run, reference: str
) -> None:
    assert run.kill_at("upload", signal.SIGKILL) == -signal.SIGKILL
    head = run.json("head.json")
    orphans = folders(run) - {ref["folder"] for ref in head["kept"]}
    assert orphans, "the kill left a folder that head does not list"
    assert run.start().wait() == 0
    assert weights_sha256(run) == reference
    assert {event["folder"] for event in run.events("garbage_deleted")} >= orphans
    assert folders(run) == {ref["folder"] for ref in run.json("head.json")["kept"]}
