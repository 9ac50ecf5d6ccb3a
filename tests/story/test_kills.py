"""Proves that a run that is killed anywhere ends with the weights of one that nobody touched, bit for bit.

Real processes, killed from outside: at places that the process tells of, and at random moments (the seed is printed).
"""

import os
import random
import signal
from pathlib import Path

import pytest
from attempts import Run, adapter_sha256, wait_until

PLACES = [
    "model_loading",
    "generation",
    "scoring",
    "mid_accumulation",
    "staging",
    "upload",
    "head_write",
    "evaluation",
    "result_files",
    "finishing",
]


def kill_at(run: Run, place: str, number: signal.Signals) -> int:
    """Lets an attempt go to `place` and kills its agent there; its exit code."""
    marker = run.folder / f"at-{place}"
    attempt = run.start(patches=[f"tests.story.places:{place}"], env={"BATON_TEST_PLACE": str(marker)})
    wait_until(lambda: marker.exists() or not Path(f"/proc/{attempt.pid}").exists(), f"{place}\n{attempt.err}")
    assert marker.exists(), attempt.err
    attempt.kill(number)
    marker.with_name(f"{marker.name}.go").touch()
    return attempt.wait()


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_at_a_place_gives_75_and_the_run_ends_with_the_same_weights(
    run: Run, reference: str, place: str
) -> None:
    assert kill_at(run, place, signal.SIGTERM) == 75
    assert run.finish() == reference
    head = run.head()
    assert head is not None
    assert (head["status"], head["checkpoint"]["step"]) == ("finished", 6)


@pytest.mark.parametrize("place", ["scoring", "staging", "upload", "head_write", "finishing"])
def test_sigkill_at_a_place_loses_no_weights(run: Run, reference: str, place: str) -> None:
    assert kill_at(run, place, signal.SIGKILL) == -signal.SIGKILL
    assert run.finish() == reference


def test_sigterm_while_restoring_gives_75_and_changes_nothing(run: Run, reference: str) -> None:
    assert kill_at(run, "mid_accumulation", signal.SIGTERM) == 75
    before = run.head()
    assert kill_at(run, "restore", signal.SIGTERM) == 75
    assert run.head() == before
    assert run.finish() == reference


def test_random_sigkills_and_sigterms_until_it_is_finished(run: Run, reference: str) -> None:
    seed = int(os.environ.get("BATON_TEST_SEED", random.randrange(1 << 32)))
    print(f"BATON_TEST_SEED={seed}")
    moments = random.Random(seed)
    codes = []
    while run.head() is None or run.json("head.json")["status"] != "finished":
        attempt = run.start()
        before = run.durable_step()
        target = before + moments.randrange(0, 3)
        wait_until(lambda: run.durable_step() >= target or not _lives(attempt.pid), "progress")
        for _ in range(moments.randrange(200_000)):
            pass
        if _lives(attempt.pid) and len(codes) < 6:
            attempt.kill(moments.choice([signal.SIGTERM, signal.SIGKILL]))
        codes.append(attempt.wait())
        assert codes[-1] in (0, 75, -signal.SIGKILL), attempt.err
    assert codes[-1] == 0
    assert adapter_sha256(run) == reference


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
