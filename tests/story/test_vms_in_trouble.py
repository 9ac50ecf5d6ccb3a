"""Proves that a VM which is of no use any more is replaced, and the run ends as if nothing had happened: one that falls
silent, runs out of memory or has a sick GPU. One that is well stays, while its cloud answers nothing.
"""

import os
import signal
from pathlib import Path

import pytest
from attempts import wait_until
from cloud_runs import VmRun
from laptops import launch_and_go, watch_impatiently

FIVE_MINUTES_S = 300.0


def container_pid(run: VmRun, attempt: int) -> int:
    """Of the container's first process; -1 while there is none."""
    file = run.cloud.home / "vms" / run.vm(attempt) / "disk/var/lib/docker/containers/baton/pid"
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return -1


@pytest.mark.long
@pytest.mark.parametrize("what", ["no network", "frozen"])
def test_a_vm_that_falls_silent_is_replaced(vm_run: VmRun, reference: str, what: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launch_and_go(vm_run)
    vm_run.wait_at(1)
    vm_run.wait_for_step(3)
    if what == "frozen":
        os.kill(container_pid(vm_run, 1), signal.SIGSTOP)
    else:
        vm_run.cloud.order("partition", vm=vm_run.vm(1))
    watch_impatiently(vm_run)
    assert vm_run.wait_for_end(1) == "hung"
    vm_run.finish()
    vm_run.check(reference, "hung", "finished")
    assert vm_run.attempt_record(2)["resumed_from"]["step"] == 3


@pytest.mark.long
def test_a_trainer_that_hangs_is_started_again_on_its_vm(vm_run: VmRun, reference: str) -> None:
    vm_run.settings.append("attempt.hang_timeout_s=3")
    vm_run.stay_at("scoring", 1)
    launch_and_go(vm_run)
    vm_run.watch()
    vm_run.finish()
    vm_run.check(reference, "finished")
    assert len(vm_run.journal("trainer_crashed")) == 1


@pytest.mark.long
def test_a_vm_that_runs_out_of_memory_time_after_time_is_replaced(vm_run: VmRun, reference: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launch_and_go(vm_run)
    vm_run.watch()
    vm_run.wait_at(1)
    killed = set[int]()
    for _ in range(3):  # as often as the unit starts it
        vm_run.wait_until(lambda: container_pid(vm_run, 1) not in {-1, *killed}, "another start of the container")
        pid = container_pid(vm_run, 1)
        vm_run.cloud.order("out-of-memory", vm=vm_run.vm(1))
        vm_run.wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "the kernel")  # type: ignore[misc]
        killed.add(pid)
    assert vm_run.wait_for_end(1) == "out of memory"
    vm_run.finish()
    vm_run.check(reference, "out of memory", "finished")
    end = vm_run.claims().attempts[0].ended
    assert end is not None
    assert end.exit_code == 137
    assert "want of memory" in end.detail


@pytest.mark.long
def test_a_sick_gpu_is_replaced_in_another_zone(vm_run: VmRun, reference: str) -> None:
    vm_run.cloud.order("sick-gpu", vm=vm_run.vm(1))
    launch_and_go(vm_run)
    vm_run.watch()
    assert vm_run.wait_for_end(1) == "sick gpu"
    vm_run.finish()
    vm_run.check(reference, "sick gpu", "finished")
    first, second = vm_run.claims().attempts
    assert first.zone != second.zone
    assert first.ended is not None
    assert "Unable to determine the device handle" in first.ended.detail


@pytest.mark.long
def test_an_api_that_is_down_for_five_minutes_ends_no_healthy_vm(vm_run: VmRun, reference: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launch_and_go(vm_run)
    watchdog = watch_impatiently(vm_run)
    vm_run.wait_at(1)
    before = vm_run.vms()
    vm_run.cloud.order("api-down", seconds=FIVE_MINUTES_S / vm_run.cloud.running.scale)
    wait_until(lambda: "cannot be listed" in watchdog.said, "the watchdog's word")
    wait_until(lambda: vm_run.cloud.running.look()["faults"]["down_s"] == 0, "the end of the outage")
    vm_run.go_on(1)
    vm_run.finish()
    vm_run.check(reference, "finished")
    assert [str(vm["id"]) for vm in before] == vm_run.vm_ids()
    assert vm_run.claims().attempts[0].doubted_at_s is None
