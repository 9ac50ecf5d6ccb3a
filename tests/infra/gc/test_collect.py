"""gc takes what is certainly left over and nothing else: for each thing that stays there is a reason to keep it."""

import pytest
from fake_cloud import FakeCloud
from vm_runs import PREEMPTED, head, vm

from infra.cloud.types import Disk, Vm, VmStatus
from infra.gc.collect import GRACE_S, PART_S, Facts, unwanted_disks, unwanted_objects, unwanted_vms
from infra.naming import OF_ATTEMPT, OWNER, hash8
from job.run.claims import Claims
from job.run.head import CheckpointRef, Head, Status
from job.storage import ObjectInfo

NOW_S = 1_790_100_000.0
URI = "gs://b/runs/x"
CLAIMED = (vm(1, PREEMPTED), vm(2))


def machine(attempt: int, status: VmStatus = VmStatus.RUNNING, **labels: str) -> Vm:
    found = FakeCloud().add(URI, attempt, status)
    return Vm(**{**vars(found), "labels": {**found.labels, **labels}})


def why(one: Vm, claims: Claims, owner: Head | None = None, *, age_s: float = 0.0) -> str | None:
    facts = Facts(uri=URI, claims=claims, head=owner, changed_s=NOW_S - age_s)
    found = unwanted_vms([one], {hash8(URI): facts}, NOW_S)
    return found[0].why if found else None


@pytest.mark.parametrize("status", [VmStatus.STARTING, VmStatus.RUNNING, VmStatus.STOPPED])
def test_the_vm_of_the_open_attempt_of_a_wanted_run_stays_whatever_its_state(status: VmStatus) -> None:
    assert why(machine(2, status), Claims(attempts=CLAIMED), age_s=9 * GRACE_S) is None


def test_vms_of_attempts_that_are_over_or_never_were_go() -> None:
    assert why(machine(1), Claims(attempts=CLAIMED)) == f"attempt 1 of {URI} is over: preempted"
    assert why(machine(3), Claims(attempts=CLAIMED)) == f"attempt 3 of {URI} was never claimed"
    assert why(machine(1), Claims(attempts=(vm(1), vm(2)))) == f"attempt 1 of {URI} was followed by another"
    assert why(machine(2, **{OF_ATTEMPT: "²"}), Claims(attempts=CLAIMED)) == f"attempt ² of {URI} was never claimed"


def test_a_vm_that_stops_already_is_left_to_do_so() -> None:
    assert why(machine(1, VmStatus.STOPPING), Claims(attempts=CLAIMED)) is None


def test_what_is_no_attempts_vm_is_never_touched() -> None:
    assert why(machine(1, **{OWNER: "watchdog"}), Claims(attempts=CLAIMED)) is None


def test_the_vm_of_a_stopped_or_finished_run_has_its_time_to_leave() -> None:
    not_wanted = Claims(want="stop", attempts=CLAIMED)
    assert why(machine(2), not_wanted, age_s=GRACE_S / 2) is None
    assert why(machine(2, VmStatus.STOPPED), not_wanted) == f"{URI} is stopped"
    assert why(machine(2), not_wanted, age_s=2 * GRACE_S) == f"{URI} is stopped"
    done = head(Status.FINISHED)
    assert why(machine(2), Claims(attempts=CLAIMED), done) is None
    assert why(machine(2), Claims(attempts=CLAIMED), done, age_s=2 * GRACE_S) == f"{URI} is finished"
    assert why(machine(2, VmStatus.STOPPED), Claims(want="failed", attempts=CLAIMED)) == f"{URI} is failed"


def test_a_vm_whose_run_is_gone_goes_once_it_is_not_new_any_more() -> None:
    one = machine(1)
    assert unwanted_vms([one], {}, one.created_s + GRACE_S / 2) == []
    assert [waste.why for waste in unwanted_vms([one], {}, NOW_S)] == ["its run is not in the bucket"]


def test_disks_go_that_nothing_holds() -> None:
    old = {"zone": "z", "labels": {OWNER: "run"}, "size_gb": 1, "created_s": NOW_S - 2 * GRACE_S}
    disks = [
        Disk(name="left", **old),
        Disk(name="held", users=("vm",), **old),
        Disk(name="foreign", **{**old, "labels": {}}),
        Disk(name="watchdog", **{**old, "labels": {OWNER: "watchdog"}}),
        Disk(name="new", **{**old, "created_s": NOW_S}),
    ]
    assert [(waste.name, waste.size_bytes) for waste in unwanted_disks(disks, NOW_S)] == [("left", 1 << 30)]


def info(name: str, age_s: float = 0.0, generation: int = 7) -> ObjectInfo:
    return ObjectInfo(name, generation, 10, None, NOW_S - age_s)


def test_objects_that_nobody_refers_to_go_manifests_first() -> None:
    kept = CheckpointRef(folder="checkpoints/000010-0001-aa", step=10, attempt=1, manifest_crc32c=0)
    owner = Head(attempt=3, incarnation=0, status=Status.RUNNING, checkpoint=kept, kept=(kept,), write_id="w")
    part = ".0123456789abcdef-0001.part"
    objects = [
        info("checkpoints/000009-0001-bb/MANIFEST.json", generation=3),
        info("checkpoints/000009-0001-bb/a.safetensors"),
        info("checkpoints/000010-0001-aa/MANIFEST.json"),
        info("checkpoints/000010-0001-aa/a.safetensors"),
        info(f"checkpoints/000010-0001-aa/a.safetensors{part}", PART_S + 1),
        info(f"checkpoints/000011-0003-cc/a.safetensors{part}", 60),
        info("checkpoints/000011-0003-cc/b.safetensors"),
        info("checkpoints/notes.txt"),
        info("result/report.part"),
        info("attempts/0001/attempt.json", 9 * PART_S),
    ]
    found = unwanted_objects(URI, owner, objects, NOW_S)
    assert [(waste.name, waste.generation) for waste in found] == [
        ("checkpoints/000009-0001-bb/MANIFEST.json", 3),
        ("checkpoints/000009-0001-bb/a.safetensors", 7),
        (f"checkpoints/000010-0001-aa/a.safetensors{part}", 7),
    ]
    finished = owner.model_copy(update={"status": Status.FINISHED})
    assert f"checkpoints/000011-0003-cc/a.safetensors{part}" in [
        waste.name for waste in unwanted_objects(URI, finished, objects, NOW_S)
    ]
    assert unwanted_objects(URI, None, objects[:4], NOW_S) == []
