"""Proves that a run which nobody watches heeds its cap: the attempt saves what it has and leaves before the platform
ends the VM, and a watchdog that comes back later starts no other.
"""

import pytest
from cloud_runs import VmRun

from infra.plan import offers
from job.agent.budget import STOP_S

ZONE = "us-central1-a"
AT_WORK_S = 110.0
"""After the claim, until the attempt stops itself: the share is a little more than what a watchdog stops a run for."""


@pytest.mark.long
def test_an_attempt_that_nobody_watches_stops_itself_when_its_share_is_spent(vm_run: VmRun) -> None:
    price = offers("l4", True, zones=[ZONE], machine_types=["g2-standard-4"])[0].usd_per_hour
    cap = ["--max-usd", f"{price * (STOP_S + AT_WORK_S) / 3600:.5f}"]
    vm_run.stay_at("mid_accumulation", 1)
    launcher = vm_run.cloud.start(*vm_run.launch_words("--watch-here", "--zone", ZONE, *cap), name="capped-laptop")
    vm_run.wait_until(lambda: bool(vm_run.vms()) or not launcher.lives(), "a VM")
    assert launcher.lives(), launcher.said
    launcher.kill()
    vm_run.wait_at(1)
    vm_run.wait_until(lambda: not any(vm["status"] == "RUNNING" for vm in vm_run.vms()), "the end of the VM")
    ended = vm_run.attempt_record(1)["ended"]
    assert ended["exit_code"] == 75
    assert "the cap of $" in ended["reason"]
    claim = vm_run.claim(1)
    assert claim is not None
    assert claim.ended is None, "nobody watched"
    assert ended["at_s"] - claim.claimed_at_s < STOP_S + AT_WORK_S
    vm_run.watch()
    vm_run.wait_until(lambda: vm_run.claims().want == "stop", "the watchdog's word")
    claims = vm_run.claims()
    assert claims.reason is not None
    assert "the cap of" in claims.reason
    vm_run.wait_until(lambda: vm_run.vms() == [], "nothing left")
    assert len(vm_run.claims().attempts) == 1
