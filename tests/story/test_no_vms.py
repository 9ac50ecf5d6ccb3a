"""Proves what becomes of a run that gets no VM: no capacity but in one zone, no quota, two launches at once.

Real launches, watchdogs and VMs (infra/localcloud); what the cloud refuses is asked of it over the wire.
"""

import pytest
from cloud_runs import CLI_S, VmRun

from infra.plan import offers

REGIONS = ("us-central1", "us-east4")
QUOTA = "PREEMPTIBLE_NVIDIA_L4_GPUS"


def in_regions() -> list[str]:
    """The words of a launch that limit it to those."""
    return [word for region in REGIONS for word in ("--region", region)]


def zones() -> list[str]:
    """Where an L4 may be, in those."""
    return sorted({offer.zone for offer in offers("l4", True, regions=REGIONS)})


def test_a_run_goes_where_the_only_capacity_is(vm_run: VmRun, reference: str) -> None:
    run = vm_run
    best, *_, worst = offers("l4", True, regions=REGIONS, bucket_region=REGIONS[0], machine_types=("g2-standard-4",))
    assert best.zone != worst.zone
    run.cloud.order("stockout", zone="*", machine_type="g2-*")
    run.cloud.order("stockout", zone=worst.zone, over=True)
    run.cloud.order("stockout", zone=zones()[0], machine_type="e2-*")
    run.cloud.order("fault", kind="503", call="advice_capacity", count=None)  # or it would go there at once
    run.launch(*in_regions())
    run.finish()
    claims = run.claims().attempts
    run.check(reference, *["stockout"] * (len(claims) - 1), "finished")
    asked = [claim.zone for claim in claims]
    assert asked[-1] == worst.zone
    assert sorted(zone for zone in asked if zone) == zones(), "every zone once, those near the bucket first"
    near = [zone.startswith(REGIONS[0]) for zone in asked if zone]
    assert near == sorted(near, reverse=True)
    assert len(run.vm_ids()) == len(zones())
    (watchdog,) = [vm for vm in run.cloud.vms() if vm["labels"]["baton"] == "watchdog"]
    assert watchdog["zone"] == zones()[1], "it found no room in the first"


@pytest.mark.long
def test_a_run_without_quota_stops_says_which_and_goes_on_when_told(vm_run: VmRun, reference: str) -> None:
    run = vm_run
    for region in REGIONS:
        run.cloud.order("quota", metric=QUOTA, region=region, limit=0)
    launch = run.cloud.start(*run.launch_words("--detach", *in_regions()), name=f"{run.name}-launch")
    code = launch.wait()
    assert code in (0, 3), launch.said  # it may have left before the verdict
    assert code == 0 or "Ask for more: " in launch.said
    watchdog = run.watch()
    run.wait_until(lambda: run.claims().want == "failed", "the verdict")
    claims = run.claims()
    assert run.hows() == ["quota", "quota"], "one VM for each region was asked for"
    assert claims.reason is not None
    assert QUOTA in claims.reason
    assert not [claim for claim in claims.attempts if claim.ended and claim.ended.ran_from_s], "nothing was paid for"
    run.wait_until(lambda: not watchdog.lives(), "the watchdog's end")

    run.cloud.order("quota", metric=QUOTA, region=REGIONS[1], over=True)
    run.cloud.baton("resume", run.name, "--yes")
    run.watch()
    run.finish()
    run.check(reference, "quota", "quota", "quota", "finished")
    assert (run.claims().attempts[-1].zone or "").startswith(REGIONS[1])


@pytest.mark.long
def test_of_two_launches_at_once_one_wins_and_the_other_says_so(vm_run: VmRun, reference: str) -> None:
    run = vm_run
    launches = [run.cloud.start(*run.launch_words("--detach"), name=f"{run.name}-{n}") for n in range(2)]
    codes = [launch.wait(CLI_S) for launch in launches]
    said = "\n".join(launch.said for launch in launches)
    assert sorted(codes) == [0, 2], said
    (loser,) = [launch for launch, code in zip(launches, codes, strict=True) if code == 2]
    assert "another launch" in loser.said or "is in use" in loser.said, said
    assert "Traceback" not in said
    run.finish()
    run.check(reference, "finished")
    assert len(run.vm_ids()) == 1
    assert len(run.status().attempts) == 1
