"""Proves that a run on spot VMs ends with the weights of one that nobody touched, whatever its VMs die of and when:
preempted in every phase with whatever notice.

Real launches, watchdogs, VMs (infra/localcloud) and attempts; what happens to the VMs goes over the wire.
"""

import random
from dataclasses import dataclass

import pytest
from attempts import random_moments
from cloud_runs import VmRun

NOTICES_S = (120, 30, 0)


@dataclass(frozen=True)
class Phase:
    """Where in its life a VM is preempted."""

    name: str
    event: str = ""
    """Of the cloud, for a VM that has not booted."""
    boot_phase: str = ""
    """Of the startup script."""
    place: str = ""
    """Of the attempt (tests/story/places.py)."""
    of_agent: bool = False
    """The agent itself stays at that place: it has to go on to hear of anything."""
    notices_s: tuple[int, ...] = NOTICES_S


BEFORE_BOOT = Phase("before boot", event="STAGING")
PULL = Phase("pull", boot_phase="pull")
LOADING = Phase("model loading", place="model_loading")
# A second end in a row that only the VM vouches for (its agent leaves before the platform takes the machine), without a
# step in between, is waited after for a minute: here the platform comes first.
RESTORE = Phase("restore", place="restore", of_agent=True, notices_s=(30, 0))
TRAINING = Phase("between two steps", place="scored")
UPLOAD = Phase("upload", place="upload", of_agent=True, notices_s=(30, 0))  # with 120 it would train on to the end


def preempt_in(run: VmRun, phases: list[Phase], moments: random.Random) -> int:
    """Launches the run and preempts its attempts, each in its phase; how many attempts there are in the end.

    With a notice an attempt in its last phases finishes the run.
    """
    for attempt, phase in enumerate(phases, 1):
        if phase.place:
            run.stay_at(phase.place, attempt)
    run.launch()
    for attempt, phase in enumerate(phases, 1):
        notice_s = moments.choice(phase.notices_s)
        if phase.event:
            run.wait_for_event(attempt, phase.event)
        elif phase.boot_phase:
            run.wait_for_phase(attempt, phase.boot_phase)
        else:
            run.wait_at(attempt)
        run.cloud.order("preempt", vm=run.vm(attempt), notice_s=notice_s)
        print(f"attempt {attempt}: {phase.name}, notice {notice_s} s")
        if phase.of_agent and notice_s:
            run.go_on(attempt)
        how = run.wait_for_end(attempt)
        if how == "finished":
            return attempt
        assert how == "preempted", run.all_that_is_known()
    return len(phases) + 1


def check_preempted(run: VmRun, reference: str, attempts: int) -> None:
    run.finish()
    run.check(reference, *["preempted"] * (attempts - 1), "finished")
    assert len(run.vm_ids()) == attempts, "a superfluous VM"


def test_a_vm_preempted_before_it_boots_and_one_that_uploads_are_replaced(vm_run: VmRun, reference: str) -> None:
    attempts = preempt_in(vm_run, [BEFORE_BOOT, UPLOAD], random_moments())
    check_preempted(vm_run, reference, attempts)


@pytest.mark.long
@pytest.mark.parametrize(
    "phases",
    [
        pytest.param([PULL, LOADING, TRAINING, RESTORE], id="on the way to its first step"),
    ],
)
def test_vms_preempted_in_every_phase_are_replaced(vm_run: VmRun, reference: str, phases: list[Phase]) -> None:
    attempts = preempt_in(vm_run, phases, random_moments())
    check_preempted(vm_run, reference, attempts)
