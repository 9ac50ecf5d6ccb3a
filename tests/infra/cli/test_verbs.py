"""stop, resume, preempt, down, gc: asked before anything is deleted or costs, recorded before it is done; what makes
no sense is refused in one line."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from creating_cloud import CreatingCloud
from fake_cloud import NO_CLOUD, REFUSED, FakeCloud
from vm_runs import IMAGE, MACHINE, PREEMPTED, make, vm

import infra.cloud.access
from infra.cli.run import run
from infra.cloud.types import Disk, VmStatus
from infra.naming import OF_RUN, OWNER, bucket_of, hash8, vm_name, watchdog_labels, watchdog_name
from infra.watchdog import Watchdog
from job.run.claims import Claim, read_claims
from job.run.head import Status
from job.run.spec import read_spec
from job.storage import Bucket, open_bucket

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


def own(bucket: Bucket, number: int, **more: Any) -> Claim:
    """A claim whose VM has the name that it would have."""
    return vm(number, name=vm_name(bucket.uri, number), **more)


@pytest.fixture
def watched(run_bucket: Bucket, cloud: FakeCloud) -> FakeCloud:
    """With the bucket's watchdog VM."""
    bucket = bucket_of(run_bucket.uri)
    machine = cloud.add(run_bucket.uri, 99)
    del cloud.vms[machine.name]
    name = watchdog_name(bucket)
    cloud.vms[name] = replace(machine, name=name, labels=watchdog_labels(bucket))
    return cloud


def error(capsys: Captured) -> str:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") <= 2, shown.err
    return shown.err


@pytest.mark.parametrize("verb", ["ls", "logs", "attach", "stop", "resume", "preempt", "down", "gc", "get"])
def test_help_loads_neither_settings_nor_clients(verb: str) -> None:
    code = f"import sys; from infra.cli.run import run; run([{verb!r}, '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"baton {verb}" in done.stdout
    loaded = {module.split(".")[0] for module in done.stderr.split()}
    assert loaded & {"pydantic_settings", "google", "tenacity", "plotly"} == set()


@pytest.mark.parametrize("verb", ["stop", "resume", "preempt", "down", "gc", "get"])
def test_what_is_no_run_is_refused_by_every_verb(
    verb: str, run_bucket: Bucket, cloud: FakeCloud, capsys: Captured
) -> None:
    assert run([verb, run_bucket.uri]) == 2
    assert f"there is no run at {run_bucket.uri}" in error(capsys)
    assert cloud.asked == []


@pytest.mark.parametrize("verb", ["stop", "resume", "preempt"])
def test_a_finished_run_is_left_as_it_is(verb: str, run_bucket: Bucket, cloud: FakeCloud, capsys: Captured) -> None:
    make(run_bucket, own(run_bucket, 1), status=Status.FINISHED)
    assert run([verb, run_bucket.uri]) == 2
    assert "is finished" in error(capsys)
    assert cloud.asked == []


def test_stop_and_resume(run_bucket: Bucket, watched: FakeCloud, capsys: Captured) -> None:
    make(run_bucket, own(run_bucket, 1))
    assert run(["stop", run_bucket.uri, "--reason", "lunch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "lunch"
    assert (read_claims(run_bucket).want, read_claims(run_bucket).reason) == ("stop", "lunch")
    assert run(["stop", run_bucket.uri]) == 2
    assert "is stopped already: lunch" in error(capsys)

    assert run(["resume", run_bucket.uri, "--max-usd", "50"]) == 2, "nobody can be asked"
    assert "Nobody can be asked here" in error(capsys)
    assert read_claims(run_bucket).want == "stop"
    assert run(["resume", run_bucket.uri, "--max-usd", "50", "--yes"]) == 0
    assert f"{watchdog_name(bucket_of(run_bucket.uri))} watches it" in capsys.readouterr().err
    spec = read_spec(run_bucket)
    assert spec is not None
    assert (spec.revision, spec.machine) == (2, MACHINE.model_copy(update={"max_usd": 50.0}))
    assert read_claims(run_bucket).want == "run"
    assert run(["resume", run_bucket.uri]) == 2
    assert "is under way already" in error(capsys)


def test_a_run_is_wanted_again_once_somebody_watches_it(
    run_bucket: Bucket, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = CreatingCloud()
    monkeypatch.setattr(infra.cloud.access, "open_cloud", lambda project: cloud)
    monkeypatch.setattr("infra.watch.orders.boot_attributes", dict)
    monkeypatch.setattr(CreatingCloud, "starts_as", VmStatus.RUNNING)
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED))
    assert run(["stop", run_bucket.uri]) == 0
    assert run(["resume", run_bucket.uri]) == 2
    assert "$0.024/h for all runs together" in capsys.readouterr().err, "what it costs is in the question"
    assert cloud.orders == []
    cloud.refuses = REFUSED
    assert run(["resume", run_bucket.uri, "--yes"]) == 3
    assert read_claims(run_bucket).want == "stop", "nobody would look after it"
    cloud.refuses = None
    capsys.readouterr()
    assert run(["resume", run_bucket.uri, "--yes"]) == 0
    order = cloud.orders[-1]
    assert (order.name, order.attributes["baton-image"]) == (watchdog_name(bucket_of(run_bucket.uri)), IMAGE)
    assert f"{order.name}, which was started in {order.zone}, watches it" in capsys.readouterr().err
    assert read_claims(run_bucket).want == "run"


def test_a_run_that_is_resumed_can_be_watched_from_here(
    run_bucket: Bucket, cloud: FakeCloud, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED))
    assert run(["stop", run_bucket.uri]) == 0
    ticks: list[str] = []

    def tick(watchdog: Watchdog) -> bool:
        ticks.append(read_claims(run_bucket).want)
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    monkeypatch.setattr(Watchdog, "tick", tick)
    assert run(["resume", run_bucket.uri, "--watch-here", "--yes"]) == 0
    assert ticks == ["run"]
    assert cloud.asked == [], "no watchdog VM is looked for"
    assert f"nobody watches it from here any more: baton watchdog run {run_bucket.uri}" in capsys.readouterr().err


def test_resume_changes_the_image_to_one_that_is_named_by_its_digest(
    run_bucket: Bucket, watched: FakeCloud, capsys: Captured
) -> None:
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED))
    assert run(["resume", run_bucket.uri, "--image", "baton:latest", "--yes"]) == 2
    assert "--image: 'baton:latest' is not the name of a container" in error(capsys)
    other = IMAGE.replace("a" * 64, "b" * 64)
    assert run(["resume", run_bucket.uri, "--image", other, "--yes", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["revision"], shown["changed"]) == (2, ["machine.image"])


def test_resume_goes_only_where_the_gpu_is(run_bucket: Bucket, watched: FakeCloud, capsys: Captured) -> None:
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED))
    assert run(["resume", run_bucket.uri, "--zone", "mars-west1-a", "--yes"]) == 2
    assert "is not rented there" in error(capsys)
    assert run(["resume", run_bucket.uri, "--region", "us-central1", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == ["machine.regions"]


def test_a_run_of_processes_resumes_without_a_cloud(tmp_path: Any, capsys: Captured) -> None:
    bucket = open_bucket(f"file://{tmp_path}/runs/x")
    make(bucket, Claim(number=1, kind="process", claimed_at_s=0, host="box", pid=3), machine=None)
    assert run(["stop", bucket.uri]) == 0
    assert run(["down", bucket.uri, "--yes"]) == 0
    assert run(["resume", bucket.uri]) == 0
    assert f"baton train --run {bucket.uri}" in capsys.readouterr().err
    assert run(["preempt", bucket.uri, "--yes"]) == 2
    assert "kill -TERM 3" in error(capsys)


def test_a_drill_is_in_the_claims_before_the_vm_is_told(run_bucket: Bucket, cloud: FakeCloud, capsys: Captured) -> None:
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED), own(run_bucket, 2))
    machine = cloud.add(run_bucket.uri, 2)
    assert run(["preempt", run_bucket.uri]) == 2, "nobody can be asked"
    assert "Nobody can be asked here" in error(capsys)
    cloud.troubles["preempt"] = REFUSED
    assert run(["preempt", run_bucket.uri, "--yes"]) == 3
    assert "roles/compute.instanceAdmin.v1" in error(capsys)
    assert read_claims(run_bucket).attempts[-1].drill is not None
    cloud.troubles.clear()
    assert run(["preempt", run_bucket.uri, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vm"] == machine.name
    assert cloud.asked[-1] == ("preempt", machine.name)
    assert run(["preempt", run_bucket.uri, "--yes"]) == 2
    assert "is stopping: there is nothing to preempt" in error(capsys)


def test_the_local_cloud_that_is_not_up_is_named(
    run_bucket: Bucket, cloud: FakeCloud, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(run_bucket, own(run_bucket, 1))
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", "http://127.0.0.1:9/")
    cloud.troubles["get_vm"] = cloud.troubles["list_vms"] = NO_CLOUD
    for verb in ("preempt", "down", "gc"):
        assert run([verb, run_bucket.uri, "--yes"]) == 76
        assert "baton local up" in error(capsys)


def test_down_deletes_the_runs_vms_and_writes_what_they_cost(
    run_bucket: Bucket, cloud: FakeCloud, capsys: Captured
) -> None:
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED), own(run_bucket, 2))
    machine, other = cloud.add(run_bucket.uri, 2), cloud.add(f"{run_bucket.uri}-other", 2)
    assert run(["down", run_bucket.uri]) == 2
    assert machine.name in capsys.readouterr().err
    assert read_claims(run_bucket).want == "run"
    assert run(["down", run_bucket.uri, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == [machine.name]
    assert [*cloud.vms] == [other.name]
    claims = read_claims(run_bucket)
    assert claims.want == "stop"
    ended = claims.attempts[-1].ended
    assert ended is not None
    assert (ended.how, ended.ran_from_s, ended.durable_step) == ("stopped", machine.started_s, 10)
    assert claims.attempts[0].ended == PREEMPTED


def test_down_says_where_it_could_not_look(run_bucket: Bucket, cloud: FakeCloud, capsys: Captured) -> None:
    make(run_bucket, own(run_bucket, 1))
    cloud.unreachable = frozenset({"us-east1-b"})
    assert run(["down", run_bucket.uri, "--yes"]) == 76
    assert "us-east1-b did not answer" in capsys.readouterr().err


def leave_waste(bucket: Bucket, cloud: FakeCloud) -> None:
    """A VM of an attempt that is over, a disk, a checkpoint that nobody keeps."""
    cloud.add(bucket.uri, 1)
    cloud.add(bucket.uri, 2)
    labels = {OWNER: "run", OF_RUN: hash8(bucket.uri)}
    cloud.disks["left"] = Disk(name="left", zone="z", labels=labels, size_gb=50, created_s=0.0)
    for name in ("MANIFEST.json", "a.safetensors"):
        bucket.write(f"checkpoints/000003-0001-ab/{name}", b"x")
        bucket.write(f"checkpoints/000003-0002-ab/{name}", b"of the attempt at work")


def test_gc_lists_first_and_deletes_what_is_left_over(run_bucket: Bucket, cloud: FakeCloud, capsys: Captured) -> None:
    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED), own(run_bucket, 2))
    leave_waste(run_bucket, cloud)
    assert run(["gc", run_bucket.uri, "--dry-run"]) == 0
    assert run(["gc", run_bucket.uri]) == 2
    shown = capsys.readouterr()
    assert shown.out.count("000003-0001-ab") == 4
    assert "Delete 1 VM, 1 disk, 2 objects?" in shown.err
    assert {method for method, _ in cloud.asked} == {"list_vms", "list_disks"}
    assert run(["gc", run_bucket.uri, "--yes", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["deleted"]) == 4
    assert [*cloud.vms] == [vm_name(run_bucket.uri, 2)]
    assert cloud.disks == {}
    assert {info.name.split("/")[1] for info in run_bucket.list("checkpoints/")} == {"000003-0002-ab"}
    assert run(["gc", run_bucket.uri, "--yes"]) == 0
    assert "Nothing is left over." in capsys.readouterr().err


def test_gc_of_a_bucket_takes_vms_whose_run_is_gone(
    run_bucket: Bucket, cloud: FakeCloud, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(run_bucket, own(run_bucket, 1))
    running = cloud.add(run_bucket.uri, 1)
    gone = cloud.add(f"{run_bucket.uri}-gone", 1, VmStatus.STOPPED)
    monkeypatch.setenv("BATON_BUCKET", run_bucket.uri.removesuffix("/runs/mine"))
    assert run(["gc", "--yes"]) == 0
    assert "no project is known" in capsys.readouterr().err
    monkeypatch.setenv("BATON_PROJECT", "p")
    assert run(["gc", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == [gone.name]
    assert [*cloud.vms] == [running.name]


def test_an_object_that_was_written_again_after_the_listing_stays(
    run_bucket: Bucket, cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.gc import waste

    make(run_bucket, own(run_bucket, 1, ended=PREEMPTED), own(run_bucket, 2))
    leave_waste(run_bucket, cloud)
    found = waste.find_waste([run_bucket.uri], None, {}, 0.0)
    run_bucket.write("checkpoints/000003-0001-ab/a.safetensors", b"new")
    assert [one.name for one in waste.remove(found, None)] == ["checkpoints/000003-0001-ab/MANIFEST.json"]
    assert run_bucket.read("checkpoints/000003-0001-ab/a.safetensors")[0] == b"new"
