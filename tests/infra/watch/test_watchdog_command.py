"""`baton watchdog`: run looks after runs until they are over; up, down and status are about the bucket's own VM."""

import json
import time
from dataclasses import replace

import pytest
from creating_cloud import CreatingCloud
from vm_runs import make, vm

import infra.cloud.access
import infra.watch.watchdog_vm
from infra.cli.run import run
from infra.cloud.types import Operation, Trouble, TroubleKind, VmOrder, VmStatus
from infra.localcloud.storage.process import BUCKET
from infra.naming import vm_name, watchdog_labels, watchdog_name
from job.run.claims import read_claims
from job.run.head import Status
from job.run.looked import Looked, read_looked, write_looked
from job.storage import Bucket, open_bucket

URI = f"gs://{BUCKET}"
IMAGE = f"localhost:1/p/r/baton@sha256:{'a' * 64}"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> CreatingCloud:
    fake = CreatingCloud()
    monkeypatch.setattr(infra.cloud.access, "open_cloud", lambda project: fake)
    monkeypatch.setattr("infra.watch.orders.boot_attributes", dict)
    monkeypatch.setattr(infra.watch.watchdog_vm, "LOOK_EVERY_S", 0.01)
    monkeypatch.setenv("BATON_PROJECT", "p")
    monkeypatch.setenv("BATON_BUCKET", URI)
    return fake


def test_it_ends_when_the_runs_are_over_and_nothing_of_them_is_left(run_bucket: Bucket, cloud: CreatingCloud) -> None:
    claimed = vm_name(run_bucket.uri, 1)
    make(run_bucket, vm(1, name=claimed), status=Status.FINISHED)
    cloud.add(run_bucket.uri, 1, VmStatus.STOPPED)
    assert run(["watchdog", "run", run_bucket.uri, "--interval", "0.1"]) == 0
    newest = read_claims(run_bucket).newest
    assert newest is not None
    assert newest.ended is not None
    assert newest.ended.how == "finished"
    assert cloud.vms == {}


def test_one_look_says_what_fails(run_bucket: Bucket, cloud: CreatingCloud, capsys: pytest.CaptureFixture[str]) -> None:
    make(run_bucket, vm(1))
    cloud.refuses = Trouble(TroubleKind.CREDENTIALS, "RefreshError", "expired")
    assert run(["watchdog", "run", run_bucket.uri, "--once"]) == 0
    looked = read_looked(run_bucket)
    assert looked is not None
    assert abs(looked.at_s - time.time()) < 60
    assert "watching" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run"], "Name runs, or give --all"),
        (["run", "--all", "x"], "Name runs, or give --all"),
        (["run", f"{URI}/runs/nobody"], "there is no run at"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    run_bucket: Bucket, cloud: CreatingCloud, arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["watchdog", *arguments]) == 2
    assert what in capsys.readouterr().err


def test_a_run_of_processes_has_nothing_to_watch(
    run_bucket: Bucket, cloud: CreatingCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    make(run_bucket, machine=None)
    assert run(["watchdog", "run", run_bucket.uri]) == 2
    assert "processes that people start" in capsys.readouterr().err


def test_the_buckets_watchdog_comes_is_found_and_goes(
    run_bucket: Bucket, cloud: CreatingCloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_IMAGE", IMAGE)
    monkeypatch.setattr(CreatingCloud, "starts_as", VmStatus.RUNNING)
    assert run(["watchdog", "status"]) == 0
    assert capsys.readouterr().out == f"{URI}: no watchdog VM\n"
    assert run(["watchdog", "up", "--zone", "us-central1-a"]) == 2  # nobody to ask, and no --yes
    assert run(["watchdog", "up", "--zone", "us-central1-a", "--yes", "--json"]) == 0
    (order,) = cloud.orders
    assert (order.name, order.spot, order.max_run_s) == (watchdog_name(URI), False, None)
    assert order.labels == watchdog_labels(URI)
    assert order.service_account == "baton-watchdog@p.iam.gserviceaccount.com"
    roles = {key: order.attributes[key] for key in ("baton-role", "baton-bucket", "baton-project", "baton-image")}
    assert roles == {"baton-role": "watchdog", "baton-bucket": URI, "baton-project": "p", "baton-image": IMAGE}
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"bucket": URI, "vm": order.name, "zone": "us-central1-a", "status": "running"}
    assert run(["watchdog", "up", "--yes"]) == 0
    assert len(cloud.orders) == 1
    capsys.readouterr()
    assert run(["watchdog", "status"]) == 0
    assert "in us-central1-a, running" in capsys.readouterr().out
    monkeypatch.setattr(CreatingCloud, "delete", slowly)
    assert run(["watchdog", "down", "--yes"]) == 0
    assert "is deleted" in capsys.readouterr().err
    assert cloud.vms == {}, "deleted is gone, and nothing less"
    assert cloud.count("delete") == 1
    assert run(["watchdog", "down", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] is None


def slowly(cloud: CreatingCloud, zone: str, name: str) -> None:
    """As the real one deletes: it is stopping for some looks, then gone."""
    cloud.asked.append(("delete", name))
    cloud.vms[name] = replace(cloud.vms[name], status=VmStatus.STOPPING)
    cloud.going[name] = 3


@pytest.mark.parametrize("state", [VmStatus.STOPPING, VmStatus.STOPPED])
def test_a_watchdog_that_watches_no_more_makes_way_for_another(
    run_bucket: Bucket, cloud: CreatingCloud, monkeypatch: pytest.MonkeyPatch, state: VmStatus
) -> None:
    monkeypatch.setattr(CreatingCloud, "starts_as", VmStatus.RUNNING)
    monkeypatch.setattr(CreatingCloud, "delete", slowly)
    up = ["watchdog", "up", "--yes", "--image", IMAGE]
    assert run(up) == 0
    (name,) = cloud.vms
    cloud.vms[name] = replace(cloud.vms[name], status=state)
    if state is VmStatus.STOPPING:
        cloud.going[name] = 3
    assert run(up) == 0
    assert cloud.vms[name].status is VmStatus.RUNNING
    assert len(cloud.orders) == 2
    assert cloud.count("delete") == (state is VmStatus.STOPPED)


def test_status_tells_when_somebody_last_looked(
    run_bucket: Bucket, cloud: CreatingCloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"{URI}/watched"
    bucket = open_bucket(f"{own}/runs/one")
    make(bucket)
    write_looked(bucket, Looked(watcher="vm:1", at_s=time.time() - 5, note="no capacity"))
    assert run(["watchdog", "status", "--bucket", own]) == 0
    out = capsys.readouterr().out
    assert f"{own}/runs/one  vm:1 5 s ago: no capacity" in out
    assert run(["watchdog", "status", "--bucket", own, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["watchdog"] is None
    assert told["runs"][f"{own}/runs/one"]["watcher"] == "vm:1"


def test_a_watchdog_that_is_refused_says_why(
    run_bucket: Bucket, cloud: CreatingCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    up = ["watchdog", "up", "--zone", "us-central1-a", "--yes", "--image"]
    assert run([*up, "baton:latest"]) == 2
    assert "--image: 'baton:latest' is not the name of a container" in capsys.readouterr().err
    assert run([*up, "localhost:1/p/r/baton:v1"]) == 2  # nothing says who may have built it
    assert "BATON_IMAGE_SIGNER=OWNER/REPO" in capsys.readouterr().err
    cloud.refuses = Trouble(TroubleKind.FORBIDDEN, "forbidden", "compute.instances.create")
    assert run([*up, IMAGE]) == 3
    assert "no permission in the project p" in capsys.readouterr().err
    assert run(["watchdog", "up", "--yes"]) == 2
    assert "No image is named" in capsys.readouterr().err


def test_a_watchdog_goes_to_the_next_zone_where_one_has_no_room(
    run_bucket: Bucket, cloud: CreatingCloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sold_out = Trouble(TroubleKind.STOCKOUT, "ZONE_RESOURCE_POOL_EXHAUSTED", "no room")
    tried: list[str] = []

    def insert(self: CreatingCloud, order: VmOrder) -> Operation:
        tried.append(order.zone)
        self.inside = sold_out if len(tried) < len(room_after) else None
        return asked(self, order)

    asked = CreatingCloud.insert
    monkeypatch.setattr(CreatingCloud, "insert", insert)
    monkeypatch.setattr(CreatingCloud, "starts_as", VmStatus.RUNNING)
    up = ["watchdog", "up", "--yes", "--image", IMAGE]
    room_after = ("a", "b")
    assert run(up) == 0
    assert len(set(tried)) == 2
    assert {zone.rpartition("-")[0] for zone in tried} == {"us-central1"}, "the bucket's region"
    assert f"in {tried[1]} watches" in capsys.readouterr().err
    assert run(["watchdog", "down", "--yes"]) == 0
    tried.clear()
    room_after = ("nowhere",) * 100
    assert run(up) == 76
    assert len(set(tried)) == len(tried) > 2
    assert "no capacity (ZONE_RESOURCE_POOL_EXHAUSTED): no room" in capsys.readouterr().err
