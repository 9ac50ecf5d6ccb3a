"""Proves that it does not matter who watches, how many do, and how often they are killed: the run is finished, each
claim gets one VM, and nothing is left.
"""

import contextlib
import random
import signal
import subprocess
from collections.abc import Callable

import pytest
from attempts import random_moments
from cloud_runs import VmRun
from laptops import launch_and_go

LIVES_S = 0.3, 4.0
"""How long a watchdog lives before it is killed: from its imports to some looks after what it did."""


def under_fire(run: VmRun, moments: random.Random, condition: Callable[[], bool]) -> int:
    """One watchdog after the other, each killed at some moment, until the condition holds; how many died."""
    deaths = 0
    while not condition():
        watchdog = run.watch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watchdog.process.wait(moments.uniform(*LIVES_S))
        deaths += watchdog.lives()
        watchdog.kill()
    return deaths


@pytest.mark.long
def test_watchdogs_that_are_killed_anywhere_leave_nothing_undone(vm_run: VmRun, reference: str) -> None:
    moments = random_moments()
    for attempt in (1, 2):
        vm_run.stay_at("generation", attempt)
    launch_and_go(vm_run)
    deaths = 0
    for attempt, notice_s in ((1, 0), (2, 30)):
        deaths += under_fire(vm_run, moments, lambda attempt=attempt: vm_run.is_at(attempt))  # type: ignore[misc]
        vm_run.cloud.order("preempt", vm=vm_run.vm(attempt), notice_s=notice_s)
    deaths += under_fire(vm_run, moments, vm_run.is_finished)
    print(f"{deaths} watchdogs were killed")
    vm_run.finish()
    vm_run.check(reference, "preempted", "preempted", "finished")
    assert len(vm_run.vm_ids()) == 3
    assert deaths >= 3


@pytest.mark.long
def test_two_watchdogs_at_once_make_one_vm_for_each_claim(vm_run: VmRun, reference: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launch_and_go(vm_run)
    watchdogs = [vm_run.watch(), vm_run.watch()]
    vm_run.wait_at(1)
    vm_run.cloud.order("preempt", vm=vm_run.vm(1), notice_s=0)
    vm_run.finish()
    for watchdog in watchdogs:
        assert watchdog.wait() == 0, watchdog.said
    vm_run.check(reference, "preempted", "finished")
    assert len(vm_run.vm_ids()) == 2


def test_a_laptop_that_goes_right_after_the_claim_is_not_missed(vm_run: VmRun, reference: str) -> None:
    vm_run.cloud.order("fault", kind="503", call="insert", count=None)  # what it asks for does not arrive
    launch_and_go(vm_run, gone=lambda: vm_run.claim(1) is not None)
    assert vm_run.vms() == []
    vm_run.cloud.order("clear")
    vm_run.watch()
    vm_run.finish()
    vm_run.check(reference, "finished")
    assert len(vm_run.vm_ids()) == 1


@pytest.mark.long
def test_the_bucket_s_watchdog_vm_alone_finishes_what_a_laptop_began(vm_run: VmRun, reference: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launcher = vm_run.cloud.start(*vm_run.launch_words("--detach"), name="laptop")
    vm_run.wait_until(lambda: vm_run.claim(1) is not None or not launcher.lives(), "the claim")
    launcher.process.send_signal(signal.SIGKILL)
    assert launcher.wait() == -signal.SIGKILL, launcher.said
    vm_run.wait_at(1)
    vm_run.cloud.order("preempt", vm=vm_run.vm(1), notice_s=0)
    vm_run.wait_until(lambda: vm_run.hows() == ["preempted", "finished"] and not vm_run.vms(), "the watchdog VM")
    vm_run.check(reference, "preempted", "finished")
    assert len(vm_run.vm_ids()) == 2
    vm_run.cloud.baton("watchdog", "down", "--yes")
    vm_run.wait_until(lambda: vm_run.cloud.vms() == [], "the end of the watchdog VM")
