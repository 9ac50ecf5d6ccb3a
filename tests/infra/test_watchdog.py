"""The loop around decide: one list for all runs, claims before VMs, one run's trouble is its own, and no plan that is
old is carried out. tests/recovery has it live histories; here are its edges."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from creating_cloud import CreatingCloud
from fake_cloud import NO_CLOUD
from seen import MACHINE, claim

from infra.cloud.types import Operation, OperationKind, Trouble, TroubleKind, Vm, VmStatus
from infra.naming import OF_BUCKET, hash8, run_labels, vm_name
from infra.watch.acting import PLAN_S
from infra.watch.watched import FINAL_S, LOOK_S
from infra.watchdog import Watchdog
from job.errors import Transient
from job.run.claims import Claim, Claims, read_claims, update_claims
from job.run.head import Head, Status
from job.run.heartbeat import Heartbeat
from job.run.layout import CLAIMS, EVENTS, HEAD, heartbeat_name
from job.run.looked import read_looked
from job.run.spec import Spec, SpecModel, write_spec
from job.storage import Bucket, open_bucket

BUCKET = "gs://bucket"
URI = f"{BUCKET}/runs/one"
OTHER = f"{BUCKET}/runs/two"


class World:
    """Buckets in folders at their gs:// URIs, a cloud in memory, a clock that is turned by hand."""

    def __init__(self, root: Path) -> None:
        self.root, self.cloud, self.said, self.called = root, CreatingCloud(), [], []  # type: Path, CreatingCloud, list[str], list[str]
        self.uris: list[str] = [URI]
        self.ahead_s = 0.0

    def bucket(self, uri: str) -> Bucket:
        return open_bucket((self.root / uri.rpartition("/")[2]).as_uri())

    def now(self) -> float:
        self.cloud.now_s = time.time()
        return time.time() + self.ahead_s

    def watchdog(self, **more: Any) -> Watchdog:
        return Watchdog(
            lambda: tuple(self.uris),
            open_bucket=self.bucket,
            open_cloud=lambda project: self.cloud,
            watcher="w",
            say=self.said.append,
            call=self.called.append,
            now=self.now,
            **more,
        )

    def run(self, uri: str, *claims: Claim, status: Status = Status.RUNNING, vms: bool = True) -> Bucket:
        """A run whose attempts these are, whose newest beats."""
        bucket = self.bucket(uri)
        spec = Spec(
            revision=1,
            recipe={},
            model=SpecModel(name="m"),
            machine=MACHINE,
            fingerprint="f",
            started_by="s",
            created_at=1.0,
        )
        write_spec(bucket, spec)
        update_claims(bucket, lambda before: Claims(attempts=claims))
        number = len(claims) or 1
        bucket.write(HEAD, Head(attempt=number, incarnation=0, status=status, write_id="w").to_bytes())
        beat = Heartbeat(attempt=number, incarnation=0, phase="train", progress_s=0, beat_s=0, number=1)
        bucket.write(heartbeat_name(number), beat.to_bytes())
        if vms:
            self.show(uri, number)
        return bucket

    def show(self, uri: str, number: int, status: VmStatus = VmStatus.RUNNING, zone: str = "us-central1-a") -> Vm:
        """Its VM, as the cloud lists it."""
        now_s = self.now() - self.ahead_s
        name = vm_name(uri, number)
        vm = Vm(name, zone, status, "9", "g2-standard-4", True, run_labels(uri, number), now_s - 50, now_s - 40)
        self.cloud.vms[name] = vm
        return vm


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with mock.patch("infra.watch.orders.boot_attributes", return_value={}):
        yield World(tmp_path)


def begun(number: int = 1, uri: str = URI, **changes: Any) -> Claim:
    made = claim(number, vm=vm_name(uri, number), claimed_at_s=time.time() - 60, instance_id=None)
    return made.model_copy(update=changes)


def test_a_run_that_is_well_is_told_to_be_looked_at_and_left_alone(world: World) -> None:
    bucket = world.run(URI, begun())
    watchdog = world.watchdog()
    watchdog.tick()
    assert not watchdog.tick()
    newest = read_claims(bucket).newest
    assert newest is not None
    assert (newest.instance_id, newest.ended) == ("9", None)
    looked = read_looked(bucket)
    assert looked is not None
    assert (looked.watcher, looked.note) == ("w", "")
    assert looked.next_at_s is not None
    assert looked.next_at_s > looked.at_s
    assert not watchdog.is_over()
    assert world.cloud.count("insert") == 0
    names = [info.name for info in bucket.list(EVENTS)]
    assert names == [f"{EVENTS}0001-claimed.json", f"{EVENTS}0001-created.json"]


def test_one_list_serves_all_runs_and_close_looks_are_few(world: World) -> None:
    world.uris.append(OTHER)
    world.run(URI, begun())
    world.run(OTHER, begun(uri=OTHER))
    watchdog = world.watchdog(bucket_uri=BUCKET)
    for _ in range(3):
        watchdog.tick()
    assert world.cloud.asked == [("list_vms", "")] * 3
    reads = []
    real = Claims.read
    with mock.patch.object(Claims, "read", lambda *args: reads.append(args) or real(*args)):
        watchdog.tick()
        assert reads == []
        world.ahead_s += LOOK_S
        watchdog.tick()
    assert len(reads) == 2


def test_a_vm_that_changes_is_looked_at_at_once_and_replaced_in_the_same_tick(world: World) -> None:
    bucket = world.run(URI, begun())
    watchdog = world.watchdog()
    watchdog.tick()
    watchdog.tick()
    world.show(URI, 1, VmStatus.STOPPING)
    preempted = Operation("op", OperationKind.PREEMPTED, True, "system", "9", world.now())
    with mock.patch.object(CreatingCloud, "operations", return_value=(preempted,)):
        assert watchdog.tick()
    first, second = read_claims(bucket).attempts
    assert first.ended is not None
    assert first.ended.how == "preempted"
    (order,) = world.cloud.orders
    assert (order.name, order.request_id, order.zone) == (second.vm, second.request_id, second.zone)
    assert order.max_run_s is not None
    assert order.labels == run_labels(URI, 2)
    assert any("preempted" in line for line in world.called)


def test_a_refusal_is_recorded_and_the_next_zone_asked(world: World) -> None:
    bucket = world.run(URI, begun(), vms=False)
    bucket.delete(heartbeat_name(1))
    world.cloud.refuses = Trouble(TroubleKind.STOCKOUT, "ZONE_RESOURCE_POOL_EXHAUSTED", "full")
    watchdog = world.watchdog()
    while watchdog.tick():
        if len(read_claims(bucket).attempts) == 3:
            world.cloud.refuses, world.cloud.inside = None, Trouble(TroubleKind.STOCKOUT, "C", "full")
        if len(read_claims(bucket).attempts) == 5:
            world.cloud.inside = None
    claims = read_claims(bucket).attempts
    assert [one.ended.how for one in claims if one.ended is not None] == ["stockout"] * (len(claims) - 1)
    assert len({one.zone for one in claims}) == len(claims) == 6
    assert [order.name for order in world.cloud.orders] == [one.vm for one in claims]


def test_a_refusal_that_passes_is_left_alone_for_a_while_and_said_once(world: World) -> None:
    bucket = world.run(URI, begun(), vms=False)
    bucket.delete(heartbeat_name(1))
    world.cloud.refuses = Trouble(TroubleKind.CREDENTIALS, "RefreshError", "expired")
    watchdog = world.watchdog()
    for _ in range(4):
        watchdog.tick()
    assert len(world.cloud.orders) == 1
    world.ahead_s += 6
    watchdog.tick()
    assert len(world.cloud.orders) == 2
    assert len(read_claims(bucket).attempts) == 1
    assert "gcloud auth application-default login" in "".join(world.said)


def test_what_the_allow_list_does_not_have_is_never_created(world: World) -> None:
    bucket = world.run(URI, begun(machine_type="a3-ultragpu-8g"), vms=False)
    bucket.delete(heartbeat_name(1))
    watchdog = world.watchdog()
    while watchdog.tick():
        pass
    claims = read_claims(bucket)
    assert world.cloud.orders == []
    assert (claims.want, claims.attempts[0].ended is not None) == ("failed", True)
    assert "a3-ultragpu-8g" in (claims.reason or "")


def test_a_cloud_that_does_not_answer_changes_nothing(world: World) -> None:
    bucket = world.run(URI, begun())
    watchdog = world.watchdog()
    watchdog.tick()
    before = read_claims(bucket)
    world.cloud.troubles["list_vms"] = NO_CLOUD
    world.ahead_s += LOOK_S
    for _ in range(3):
        watchdog.tick()
    assert read_claims(bucket) == before
    assert len([line for line in world.said if "cannot be listed" in line]) == 1
    assert world.cloud.count("delete") == 0


def test_a_run_that_cannot_be_read_leaves_the_others_watched(world: World) -> None:
    world.uris.append(OTHER)
    world.run(URI, begun()).write(CLAIMS, b"nonsense")
    bucket = world.run(OTHER, begun(uri=OTHER))
    watchdog = world.watchdog()
    for _ in range(3):
        watchdog.tick()
    assert read_looked(bucket) is not None
    assert len([line for line in world.said if line.startswith(URI)]) == 1
    assert "cannot be read" in watchdog.watched[URI].trouble


def test_a_bug_with_one_run_leaves_the_others_watched(world: World) -> None:
    world.uris.append(OTHER)
    world.run(URI, begun())
    bucket = world.run(OTHER, begun(uri=OTHER))
    watchdog = world.watchdog()
    watchdog.tick()
    looks = watchdog.watched[URI].looks
    world.ahead_s += LOOK_S + 60
    with mock.patch.object(looks, "look", side_effect=ZeroDivisionError("a bug")):
        watchdog.tick()
    assert "ZeroDivisionError" in watchdog.watched[URI].trouble
    assert watchdog.watched[OTHER].trouble == ""
    assert read_looked(bucket) is not None


def test_a_plan_that_others_have_overtaken_is_dropped(world: World) -> None:
    bucket = world.run(URI, begun())
    watchdog = world.watchdog()
    watchdog.tick()
    looks = watchdog.watched[URI].looks
    real = looks.look
    world.show(URI, 1, VmStatus.STOPPED)

    def overtaken(*args: Any) -> Any:
        seen = real(*args)
        update_claims(bucket, lambda now: now.model_copy(update={"want": "stop", "reason": "by me"}))
        return seen

    gone = Operation("op", OperationKind.PREEMPTED, True, "system", "9", world.now())
    with (
        mock.patch.object(looks, "look", overtaken),
        mock.patch.object(CreatingCloud, "operations", return_value=(gone,)),
    ):
        assert watchdog.tick()
    claims = read_claims(bucket)
    assert (claims.want, len(claims.attempts), claims.attempts[0].ended) == ("stop", 1, None)
    assert world.cloud.orders == []


def test_a_watchdog_that_slept_does_nothing_of_what_it_had_planned(world: World) -> None:
    bucket = world.run(URI, begun())
    watchdog = world.watchdog()
    watchdog.tick()
    looks = watchdog.watched[URI].looks
    real = looks.look
    world.show(URI, 1, VmStatus.STOPPED)

    def asleep(*args: Any) -> Any:
        seen = real(*args)
        world.ahead_s += PLAN_S + 1
        return seen

    gone = Operation("op", OperationKind.PREEMPTED, True, "system", "9", world.now())
    with mock.patch.object(looks, "look", asleep), mock.patch.object(CreatingCloud, "operations", return_value=(gone,)):
        watchdog.tick()
    assert read_claims(bucket).attempts[0].ended is None
    assert (world.cloud.orders, world.cloud.count("delete")) == ([], 0)


def test_a_wrong_clock_of_this_machine_kills_nothing(world: World) -> None:
    bucket = world.run(URI, begun())
    world.ahead_s = 3600.0
    watchdog = world.watchdog()
    for _ in range(3):
        watchdog.tick()
        world.ahead_s += LOOK_S
    newest = read_claims(bucket).newest
    assert newest is not None
    assert (newest.ended, newest.doubted_at_s) == (None, None)


def test_a_finished_run_is_over_when_its_vm_is_gone(world: World) -> None:
    bucket = world.run(URI, begun(), status=Status.FINISHED)
    world.show(URI, 1, VmStatus.STOPPED)
    watchdog = world.watchdog()
    watchdog.tick()
    assert not watchdog.is_over()
    watchdog.tick()
    world.ahead_s += FINAL_S
    watchdog.tick()
    assert watchdog.is_over()
    newest = read_claims(bucket).newest
    assert newest is not None
    assert newest.ended is not None
    assert newest.ended.how == "finished"
    assert world.cloud.vms == {}


def test_a_run_of_processes_is_left_alone(world: World) -> None:
    process = Claim(number=1, kind="process", claimed_at_s=1.0, host="h", pid=1)
    world.run(URI, process, vms=False)
    spec = Spec(revision=2, recipe={}, model=SpecModel(name="m"), fingerprint="f", started_by="s", created_at=1.0)
    write_spec(world.bucket(URI), spec)
    watchdog = world.watchdog()
    watchdog.tick()
    assert world.cloud.asked == []
    assert read_looked(world.bucket(URI)) is None


def test_vms_of_runs_that_are_not_in_the_bucket_any_more_are_deleted_after_a_boot(world: World) -> None:
    world.run(URI, begun())
    gone = world.show(f"{BUCKET}/runs/gone", 1)
    elsewhere = replace(gone, name="elsewhere", labels={**gone.labels, OF_BUCKET: hash8("gs://other")})
    watchdog = world.watchdog(bucket_uri=BUCKET)
    watchdog.tick()
    watchdog.tick()
    assert world.cloud.count("delete") == 0
    old_s = world.now() - 601
    world.cloud.vms[gone.name] = replace(gone, created_s=old_s)
    world.cloud.vms["elsewhere"] = replace(elsewhere, created_s=old_s)
    watchdog.tick()
    assert [name for method, name in world.cloud.asked if method == "delete"] == [gone.name]


def test_while_the_runs_cannot_be_listed_nothing_is_called_a_stranger(world: World) -> None:
    world.run(URI, begun())
    stranger = world.show(f"{BUCKET}/runs/new", 1)
    watchdog = world.watchdog(bucket_uri=BUCKET)
    watchdog.tick()
    world.cloud.vms[stranger.name] = replace(stranger, created_s=world.now() - 601)
    world.ahead_s += 31
    with mock.patch.object(watchdog, "_runs", side_effect=Transient("no answer")):
        watchdog.tick()
    assert world.cloud.count("delete") == 0
