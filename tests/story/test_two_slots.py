"""Proves that with two slots of memory a kill in the middle of a copy costs the steps of one upload, and no weights.

The copy goes over the newest snapshot, because the other slot is being uploaded (`checkpoint.slots = 2`; three are held
for LoRA unless that is set, two for full fine-tuning).
"""

import os
import signal

import pytest
from attempts import Process, Run, wait_until, weights_sha256

UPLOADED, TORN = "overwriting", "overwriting.torn"


def start_and_tear(run: Run) -> Process:
    """An attempt that uploads step 2, had step 3 in memory, and copies step 4 over it."""
    run.settings.append("checkpoint.slots=2")
    attempt = run.start_at(UPLOADED)
    run.wait_at(TORN, attempt)
    assert run.durable_step() in (0, 1)
    return attempt


def test_a_trainer_killed_in_the_copy_goes_on_from_the_snapshot_that_is_being_uploaded(
    run: Run, reference: str
) -> None:
    attempt = start_and_tear(run)
    trainer = attempt.trainer_pid()
    assert trainer is not None
    os.kill(trainer, signal.SIGKILL)
    wait_until(lambda: "starting it again from step 2" in attempt.err or not attempt.lives(), "the next trainer")
    run.go_on(UPLOADED)
    assert attempt.wait() == 0, attempt.err
    assert [event["step"] for event in run.events("trainer_crashed")] == [2]
    assert weights_sha256(run) == reference


@pytest.mark.long
def test_a_machine_gone_in_the_copy_goes_on_from_the_durable_step(run: Run, reference: str) -> None:
    attempt = start_and_tear(run)
    durable = run.durable_step()
    attempt.kill_group(signal.SIGKILL)
    assert attempt.wait() == -signal.SIGKILL
    assert run.finish() == reference
    assert run.json("attempts/0002/attempt.json")["resumed_from"]["step"] == durable


@pytest.mark.long
def test_a_notice_in_the_copy_makes_the_snapshot_that_is_being_uploaded_durable(run: Run, reference: str) -> None:
    attempt = start_and_tear(run)
    attempt.kill(signal.SIGTERM)
    run.go_on(UPLOADED)
    assert attempt.wait() == 75, attempt.err
    assert run.durable_step() == 2
    assert run.finish() == reference
