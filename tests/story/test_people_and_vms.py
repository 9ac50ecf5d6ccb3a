"""Proves what a person does to a run on VMs: stops it and lets it go on later, drills its VM as the platform would."""

import pytest
from cloud_runs import VmRun
from laptops import launch_and_go

from job.run.head import Status


@pytest.mark.long
def test_a_run_is_stopped_leaves_nothing_and_is_resumed(vm_run: VmRun, reference: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launch_and_go(vm_run)
    watchdog = vm_run.watch()
    vm_run.wait_at(1)
    vm_run.cloud.baton("stop", vm_run.name, "--reason", "lunch", "--wait")
    assert watchdog.wait() == 0, watchdog.said
    assert vm_run.hows() == ["stopped"]
    claims, head = vm_run.claims(), vm_run.head()
    assert (claims.want, claims.reason) == ("stop", "lunch")
    assert head is not None
    assert head.checkpoint is not None
    assert (head.status, head.checkpoint.step) == (Status.RELEASED, 3)
    vm_run.check_nothing_left()

    refused = vm_run.cloud.baton("preempt", vm_run.name, "--yes", code=2)
    assert "there is nothing to preempt" in refused.stderr
    resumed = vm_run.cloud.baton("resume", vm_run.name, "--yes")
    (watching,) = [vm for vm in vm_run.cloud.vms() if vm["labels"]["baton"] == "watchdog"]
    assert f"{watching['name']}, which was started in {watching['zone']}, watches it" in resumed.stderr
    vm_run.finish()
    vm_run.check(reference, "stopped", "finished")
    assert vm_run.attempt_record(2)["resumed_from"]["step"] == 3


@pytest.mark.long
def test_a_drill_is_a_preemption_that_is_known_to_be_one(vm_run: VmRun, reference: str) -> None:
    vm_run.stay_at("mid_accumulation", 1)
    launch_and_go(vm_run)
    vm_run.watch()
    vm_run.wait_at(1)
    vm_run.cloud.baton("preempt", vm_run.name, "--yes")
    assert vm_run.wait_for_end(1) == "preempted"
    vm_run.finish()
    vm_run.check(reference, "preempted", "finished")
    drilled, after = vm_run.claims().attempts
    assert drilled.drill
    assert drilled.ended is not None
    assert (drilled.ended.vouched, drilled.ended.durable_step) == (True, 3), "nothing is lost with a notice"
    assert after.drill is None
    assert vm_run.attempt_record(2)["resumed_from"]["step"] == 3
    assert "is finished" in vm_run.cloud.baton("preempt", vm_run.name, "--yes", code=2).stderr
