"""`baton launch` against the Cloud Storage and the Compute Engine on loopback: what it checks, asks, writes, tells."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

import infra.cli.launching
import infra.watch.watched
from infra.cli.run import run
from infra.cloud.types import CloudError, TroubleKind, VmStatus
from infra.compute import NO_CREDENTIALS, OVERRIDE, ComputeEngine
from infra.control import ended_by_hand
from infra.localcloud.compute import ComputeServer, start
from infra.localcloud.compute.timers import Timings
from infra.localcloud.storage.process import BUCKET, StorageProcess
from infra.naming import OF_RUN, hash8, run_labels, vm_name, watchdog_name
from infra.watch.orders import watchdog_order
from job.run.blobs import blob_name
from job.run.claims import Claims, SeenEnd, claim_process, read_claims, update_claims
from job.run.head import Head, Status
from job.run.layout import HEAD
from job.run.revise import make_revision
from job.run.spec import SpecModel, read_spec, write_spec
from job.settings import load_settings
from job.storage import Bucket, open_bucket
from tests.infra.localcloud.compute_world import FakeMachines
from tests.infra.registry.own_registry import OwnRegistry, own_registry
from tests.infra.registry.own_sigstore import Identity, OwnSigstore
from tests.infra.registry.pushing import ARM64, Pusher

ROOT = Path(__file__).parents[3]
IMAGE = f"localhost:1/p/r/baton@sha256:{'a' * 64}"
"""No registry is there: what is given by its digest needs none."""
SIGSTORE = OwnSigstore()
ROWS = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(16)]
RECIPE = """
task = "math_qa"
[data]
train = "rows.jsonl"
[train]
max_steps = 10
"""
OWN_TASK = """
from job.tasks import read_jsonl
class Short:
    weights = {"short": 1.0}
    def read(self, path):
        return read_jsonl(path, required=["question"])
    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]
    def score(self, completions, rows):
        return {"short": [float(len(text) < 9) for text in completions]}
"""
HERE = ("launch", "recipe.toml", "--run", "sums", "--gpu", "l4", "--spot", "--region", "us-central1", "--yes")
NOW = (*HERE, "--watch-here")
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""Where the tests run in the background of a shell (`.ci/run &`), it is ignored, and by what they start too."""


class Place:
    """A folder with a recipe, a bucket of its own, a cloud with troubles on demand."""

    def __init__(self, name: str, compute: ComputeServer, machines: FakeMachines) -> None:
        self.bucket_uri = f"gs://{BUCKET}/{name}"
        self.uri = f"{self.bucket_uri}/runs/sums"
        self.faults, self.machines = compute.service.faults, machines
        self.cloud = ComputeEngine("p")

    @property
    def run(self) -> Bucket:
        """The run `sums`."""
        return open_bucket(self.uri)

    def vms(self) -> dict[str, VmStatus]:
        """Of that run."""
        return {vm.name: vm.status for vm in self.cloud.list_vms({OF_RUN: hash8(self.uri)}).vms}

    def is_untouched(self) -> bool:
        """Whether neither bucket nor cloud was changed."""
        return not list(self.run.list("")) and self.machines.calls == []

    def claims(self) -> Claims:
        """Of the run."""
        return read_claims(self.run)


@pytest.fixture
def place(
    tmp_path: Path, storage: StorageProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(infra.cli.launching, "INTERVAL_S", 0.05)
    monkeypatch.setattr(infra.watch.watched, "LOOK_S", 0.2)
    monkeypatch.setattr(infra.watch.watched, "FINAL_S", 0.2)
    storage.clear()
    machines = FakeMachines()
    with start(tmp_path / "cloud", machines, project="p", timings=Timings().scaled(100)) as compute:
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
        for variable, value in {
            "STORAGE_EMULATOR_HOST": storage.url,
            OVERRIDE: f"{compute.url}/compute/v1/",
            NO_CREDENTIALS: "true",
            "BATON_BUCKET": f"gs://{BUCKET}/{name}",
            "BATON_PROJECT": "p",
            "BATON_IMAGE": IMAGE,
        }.items():
            monkeypatch.setenv(variable, value)
        yield Place(name, compute, machines)


def until(what: Callable[[], bool], why: str) -> None:
    """Waits for a condition."""
    waiting = threading.Event()
    for _ in range(600):
        if what():
            return
        waiting.wait(0.05)
    raise AssertionError(why)


# --- it comes --------------------------------------------------------------------------------------------------------


def test_files_and_spec_are_pinned_then_the_vm_is_claimed_and_asked_for(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*HERE, "--detach"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"baton attach {place.uri}" in said.err
    spec = read_spec(place.run)
    assert spec is not None
    assert spec.revision == 1
    assert spec.machine is not None
    assert (spec.machine.gpu, spec.machine.spot, spec.machine.regions) == ("l4", True, ("us-central1",))
    assert spec.machine.boot_image.startswith("projects/deeplearning-platform-release/global/images/")
    assert "/family/" not in spec.machine.boot_image
    assert spec.recipe["attempt"]["notice_s"] == 120
    assert place.run.stat(blob_name(spec.inputs["data.train"].sha256)) is not None
    (claim,) = place.claims().attempts
    assert (claim.number, claim.kind, claim.vm, claim.machine_type) == (1, "vm", vm_name(place.uri, 1), "g2-standard-4")
    assert claim.zone is not None
    assert claim.zone.startswith("us-central1-")
    vm = place.cloud.get_vm(claim.zone, vm_name(place.uri, 1))
    assert vm is not None
    assert vm.spot
    assert vm.labels == run_labels(place.uri, 1)
    assert spec.machine.max_usd > 0


def test_somebody_watches_before_money_is_spent(place: Place) -> None:
    assert run([*HERE, "--detach"]) == 0
    boots = [call[1] for call in place.machines.done("boot")]
    assert boots[0] == watchdog_name(place.bucket_uri)


def test_a_watchdog_that_is_there_is_left_as_it_is(place: Place) -> None:
    assert run([*HERE, "--detach"]) == 0
    assert run([word if word != "sums" else "more" for word in [*HERE, "--detach"]]) == 0
    boots = [call[1] for call in place.machines.done("boot")]
    assert boots.count(watchdog_name(place.bucket_uri)) == 1


def test_own_task_and_held_out_rows_are_pinned_too(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_TASK)
    (tmp_path / "held.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    changes = ["--set", "task=mine.py:Short", "--set", "data.eval=held.jsonl"]
    assert run([*NOW[:-1], "--detach", *changes]) == 0
    spec = read_spec(place.run)
    assert spec is not None
    assert {key: pinned.name for key, pinned in spec.inputs.items()} == {
        "data.train": "rows.jsonl",
        "data.eval": "held.jsonl",
        "task": "mine.py",
    }
    for pinned in spec.inputs.values():
        assert place.run.stat(blob_name(pinned.sha256)) is not None


def test_watched_from_here_it_ends_with_the_run_and_leaves_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = vm_name(place.uri, 1)

    def finish() -> None:
        until(lambda: place.machines.is_running(name), "the VM never ran")
        head = Head(attempt=1, incarnation=0, status=Status.FINISHED, write_id="w")
        place.run.write(HEAD, head.to_bytes())
        place.machines.power_off(name)

    worker = threading.Thread(target=finish)
    worker.start()
    code = run(NOW)
    worker.join()
    assert code == 0
    assert "is finished" in capsys.readouterr().err
    assert place.vms() == {}
    assert watchdog_name(place.bucket_uri) not in [call[1] for call in place.machines.done("boot")]


def test_no_capacity_in_the_first_zone_is_told_and_the_next_is_tried(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.faults.stockout("us-central1-a")
    place.faults.arm({"kind": "503", "call": "advice_capacity", "count": None})  # or it would not be asked there
    begun = subprocess.Popen(
        [sys.executable, "-c", f"{HEED_CTRL_C}; from infra.cli import main; main()", *NOW],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    try:
        until(lambda: place.vms().get(vm_name(place.uri, 2)) is VmStatus.RUNNING, "no second VM came")
        begun.send_signal(signal.SIGINT)
        _, said = begun.communicate(timeout=60)
    finally:
        begun.kill()
        begun.wait()
    first, second = place.claims().attempts
    assert first.ended is not None
    assert first.ended.how == "stockout"
    assert (first.zone, second.zone) == ("us-central1-a", "us-central1-b")
    assert "attempt 1, g2-standard-4 in us-central1-a: stockout" in said
    assert f"baton attach {place.uri}" in said, "Ctrl-C detaches"
    assert f"baton watchdog run {place.uri}" in said, "nobody watches any more, which is said"
    assert begun.returncode == 0
    assert place.vms()[vm_name(place.uri, 2)] is VmStatus.RUNNING, "the VM stays"


def test_no_capacity_anywhere_says_what_was_tried_and_when_it_tries_next(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.faults.stockout("*", "g2-*")
    assert run([*HERE, "--detach"]) == 0
    said = capsys.readouterr().err
    for zone in ("us-central1-a", "us-central1-b", "us-central1-c"):
        assert f"in {zone}: stockout" in said
    assert "no VM now" in said
    assert "the next try is at" in said


def test_an_api_that_is_down_for_a_while_only_delays(place: Place) -> None:
    place.faults.arm({"kind": "503", "call": "insert", "vm": "baton-sums-*", "count": 1})
    assert run([*HERE, "--detach"]) == 0
    assert len(place.claims().attempts) == 1
    assert list(place.vms()) == [vm_name(place.uri, 1)]


# --- it does not come ------------------------------------------------------------------------------------------------


def test_without_terminal_and_yes_nothing_is_done(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([word for word in HERE if word != "--yes"]) == 2
    said = capsys.readouterr().err
    assert "--yes" in said
    assert "g2-standard-4" in said, "the offers are shown all the same"
    assert place.is_untouched()


@pytest.mark.parametrize("where", ["operation", "http"])
def test_a_quota_is_named_with_region_limit_and_how_to_ask(
    place: Place, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    place.faults.quota("PREEMPTIBLE_NVIDIA_L4_GPUS", 0, where=where)
    assert run(NOW) == 3
    said = capsys.readouterr().err
    assert "PREEMPTIBLE_NVIDIA_L4_GPUS in us-central1" in said
    assert "limit 0" in said
    assert "https://console.cloud.google.com/iam-admin/quotas?project=p" in said
    assert place.claims().want == "failed"


def test_a_missing_right_names_role_and_command(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.faults.arm({"kind": "403", "call": "insert", "count": None})
    assert run(NOW) == 3
    said = capsys.readouterr().err
    assert "gcloud projects add-iam-policy-binding p" in said
    assert "roles/compute.instanceAdmin.v1" in said
    assert f"baton watchdog run {place.uri}" in said


def test_a_vm_of_that_name_that_is_not_ours_is_left_alone_and_a_person_told(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    order = watchdog_order(
        place.bucket_uri, "p", "us-central1-a", image=IMAGE, service_account="a", request_id=str(uuid.uuid4())
    )
    name = vm_name(place.uri, 1)
    place.cloud.insert(replace(order, name=name, labels={"team": "else"}))
    until(lambda: place.machines.is_running(name), "somebody else's VM")
    assert run(NOW) == 3
    said = capsys.readouterr().err
    assert f"a VM {name} is in us-central1-a without the run's labels" in said
    assert f"baton resume {place.uri}" in said
    (claim,) = place.claims().attempts
    assert claim.ended is not None
    assert (claim.ended.how, claim.ended.ran_from_s) == ("refused", None)
    assert place.claims().want == "failed"
    foreign = place.cloud.get_vm("us-central1-a", name)
    assert foreign is not None
    assert (foreign.status, foreign.labels) == (VmStatus.RUNNING, {"team": "else"})

    until(lambda: run(["resume", place.uri, "--yes"]) == 0, "it goes on")
    assert run(["watchdog", "run", place.uri, "--once"]) == 0
    assert list(place.vms()) == [vm_name(place.uri, 2)], "the next name"


@pytest.mark.parametrize(
    ("machine_type", "accelerator"), [("g4-standard-48", None), ("n1-standard-4", "nvidia-tesla-t4")]
)
def test_a_machine_that_a_zone_does_not_have_is_a_matter_of_the_zone(
    place: Place, machine_type: str, accelerator: str | None
) -> None:
    order = watchdog_order(
        place.bucket_uri, "p", "europe-west3-a", image=IMAGE, service_account="a", request_id=str(uuid.uuid4())
    )
    asked = replace(order, machine_type=machine_type, accelerator=accelerator, spot=True, max_run_s=600)
    with pytest.raises(CloudError) as refused:
        place.cloud.insert(asked)
    assert refused.value.trouble.kind is TroubleKind.UNSUPPORTED, refused.value


def test_credentials_that_have_expired_are_said_before_anything_is_written(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.faults.arm({"kind": "401", "count": None})
    assert run(NOW) == 3
    assert "credentials" in capsys.readouterr().err
    assert place.is_untouched()


def test_a_local_cloud_that_is_not_up_is_said_so(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv(OVERRIDE, f"http://127.0.0.1:{port}/compute/v1/")
    assert run(NOW) == 76
    said = capsys.readouterr().err
    assert f"the local cloud at http://127.0.0.1:{port} is not up" in said
    assert "baton local up" in said
    assert place.is_untouched()


def test_a_name_in_use_is_refused_and_the_run_is_left_alone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*HERE, "--detach"]) == 0
    before = {info.name: info.generation for info in place.run.list("control/spec/")}
    assert run([*HERE, "--detach"]) == 2
    said = capsys.readouterr().err
    assert f"the name {place.uri} is in use: attempt 1 of that run is at work" in said
    assert {info.name: info.generation for info in place.run.list("control/spec/")} == before


def test_of_two_launches_at_once_one_wins_and_the_other_says_so(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    confirm = infra.cli.launching.confirm

    def meanwhile(question: str, *, yes: bool) -> None:
        monkeypatch.setattr(infra.cli.launching, "confirm", confirm)
        codes.append(run([*HERE, "--detach"]))

    monkeypatch.setattr(infra.cli.launching, "confirm", meanwhile)
    codes.append(run([*HERE, "--detach"]))
    assert codes == [0, 2]
    assert f"has just taken the name {place.uri}" in capsys.readouterr().err
    assert len(place.claims().attempts) == 1
    assert len(place.vms()) == 1


# --- a run that exists -----------------------------------------------------------------------------------------------


def a_process_run(place: Place) -> None:
    """A run that a person started, with a process that still has it."""
    settings = load_settings(Path("recipe.toml"), ()).settings
    write_spec(place.run, make_revision(None, settings, (), SpecModel(name="tiny"), machine=None))
    claim_process(place.run, "laptop", 1)


def test_without_a_recipe_a_run_that_exists_goes_on_on_a_vm(place: Place) -> None:
    a_process_run(place)
    words = [word for word in HERE if word != "recipe.toml"]
    assert run([*words, "--detach"]) == 0
    spec = read_spec(place.run)
    assert spec is not None
    assert (spec.revision, spec.accepted) == (2, ("machine",))
    assert spec.machine is not None
    assert [claim.kind for claim in place.claims().attempts] == ["process", "vm"]
    assert list(place.vms()) == [vm_name(place.uri, 2)]
    assert run([*words, "--detach"]) == 2, "it has a VM now"


def test_without_a_recipe_a_run_that_does_not_exist_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([word for word in HERE if word != "recipe.toml"]) == 2
    assert f"there is no run at {place.uri}" in capsys.readouterr().err
    assert place.is_untouched()


def test_a_name_whose_run_was_deleted_is_a_new_run(place: Place) -> None:
    """What the cloud still tells of the VM of that name, its end included, is of another one."""
    assert run([*HERE, "--detach"]) == 0
    assert run(["down", place.uri, "--yes"]) == 0
    until(lambda: place.vms() == {}, "the end of its VM")
    for info in place.run.list(""):
        place.run.delete(info.name)
    assert run([*HERE, "--detach"]) == 0
    (claim,) = place.claims().attempts
    assert (claim.ended, place.claims().want) == (None, "run")
    assert place.vms() == {vm_name(place.uri, 1): VmStatus.RUNNING}


# --- which container -------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnRegistry]:
    """A registry whose repository p/train has the tag v1, attested; BATON_IMAGE names it."""
    (tmp_path / "trusted_root.json").write_text(SIGSTORE.trust_root())
    monkeypatch.setenv("BATON_IMAGE_SIGNER", "me/baton")
    monkeypatch.setenv("BATON_IMAGE_TRUST_ROOT", str(tmp_path / "trusted_root.json"))
    with own_registry() as known:
        monkeypatch.setenv("BATON_IMAGE", f"{known.host}/p/train:v1")
        push(known, "v1", "the first")
        yield known


def push(registry: OwnRegistry, tag: str, words: str, *, attested: bool = True) -> str:
    """Moves the tag to another container, whose name by digest comes back."""
    pusher = Pusher(registry.host, "p/train")
    image = pusher.image(tag, words=words)
    if attested:
        pusher.attach(image, SIGSTORE.attest(image["digest"]))
    return f"{registry.host}/p/train@{image['digest']}"


def images(place: Place) -> list[str]:
    """What each revision of the spec says, oldest first."""
    found = [json.loads(place.run.read(one.name)[0])["machine"]["image"] for one in place.run.list("control/spec/")]
    return [str(image) for image in found]


def test_a_tag_is_resolved_once_and_the_run_keeps_its_digest_until_resume_names_another(
    place: Place, registry: OwnRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    first = push(registry, "v1", "the first")
    assert run([*HERE, "--detach"]) == 0
    said = capsys.readouterr().err
    assert f"image    {first}" in said
    assert f"today's {registry.host}/p/train:v1, built by me/baton/.github/workflows/image.yaml@refs/tags/v1.0" in said
    assert images(place) == [first]
    assert {call[5]["baton-image"] for call in place.machines.calls if call[0] == "boot"} == {first}
    second = push(registry, "v1", "the second")
    assert run(["stop", place.uri]) == 0
    assert run(["resume", place.uri, "--max-usd", "50", "--yes"]) == 0
    assert images(place) == [first, first]
    assert run(["resume", place.uri, "--image", f"{registry.host}/p/train:v1", "--yes"]) == 0
    assert images(place) == [first, first, second]
    assert second in capsys.readouterr().err


def test_a_run_that_goes_on_on_a_vm_keeps_its_digest_whatever_its_tag_has_become(
    place: Place, registry: OwnRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*HERE, "--detach"]) == 0
    before = images(place)
    update_claims(place.run, lambda claims: ended_by_hand(claims, 1, SeenEnd(how="preempted", at_s=time.time())))
    push(registry, "v1", "moved", attested=False)
    capsys.readouterr()
    assert run(["launch", "--run", "sums", "--gpu", "l4", "--spot", "--max-usd", "9", "--yes", "--detach"]) == 0
    assert images(place) == [*before, *before]
    assert "the run's own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tag", "code", "said"),
    [
        ("v2", 2, "is not in the registry"),
        ("arm", 2, "is for linux/arm64: VMs are linux/amd64"),
        ("mine", 3, "nothing attests who built it"),
        ("theirs", 3, "not by me/baton"),
        ("private", 3, "no permission"),
        ("later", 76, "does not answer now"),
    ],
)
def test_a_container_that_cannot_be_had_or_trusted_is_said_before_anything_is_written(
    place: Place,
    registry: OwnRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
    code: int,
    said: str,
) -> None:
    pusher = Pusher(registry.host, "p/train")
    pusher.image("arm", ARM64)
    pusher.image("mine", words="by hand")
    theirs = pusher.image("theirs", words="theirs")
    evil = Identity(repository="evil/baton", workflow="evil/baton/.github/workflows/image.yaml")
    pusher.attach(theirs, SIGSTORE.attest(theirs["digest"], evil))
    registry.answers = {"/private": (403, b""), "/later": (503, b"")}
    monkeypatch.setenv("BATON_IMAGE", f"{registry.host}/p/train:{tag}")
    assert run([*HERE, "--detach"]) == code
    what, fix = capsys.readouterr().err.splitlines()
    assert said in what
    assert fix.startswith("  ")
    assert place.is_untouched()


def test_a_digest_that_is_not_there_is_refused_and_one_that_cannot_be_looked_up_is_taken_and_said(
    place: Place, registry: OwnRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATON_IMAGE", f"{registry.host}/p/train@sha256:{'0' * 64}")
    assert run([*HERE, "--detach"]) == 2
    assert "is not in the registry" in capsys.readouterr().err
    assert place.is_untouched()
    monkeypatch.setenv("BATON_IMAGE", IMAGE)
    assert run([*HERE, "--detach"]) == 0
    assert "not looked up: the registry localhost:1 cannot be reached" in capsys.readouterr().err


def test_without_a_container_nothing_is_started(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BATON_IMAGE")
    assert run([*HERE, "--detach"]) == 3
    assert "BATON_IMAGE=HOST/PROJECT/REPO/NAME:TAG" in capsys.readouterr().err
    monkeypatch.setenv("BATON_IMAGE", "train:latest")
    assert run([*HERE, "--detach"]) == 2
    assert "is not the name of a container" in capsys.readouterr().err
    assert place.is_untouched()


def test_a_dry_run_shows_a_tag_with_a_digest_that_stands_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_network(monkeypatch)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("BATON_IMAGE", "ghcr.io/me/baton:v1")
    assert run(["launch", "--gpu", "l4", "--spot", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"image    ghcr.io/me/baton@sha256:{'0' * 64}" in shown
    assert "stands for ghcr.io/me/baton:v1, which a launch resolves and wants attested" in shown


def test_a_launch_asks_where_a_vm_is_to_be_had_and_goes_by_the_buckets_own_runs(place: Place) -> None:
    words = ["launch", "recipe.toml", "--gpu", "l4", "--spot", "--region", "us-central1", "--yes", "--detach"]
    place.faults.stockout("us-central1-a", "g2-*")
    assert run([*words, "--run", "sums"]) == 0
    (first,) = place.claims().attempts
    assert first.zone == "us-central1-b", "advice said that there is none in the first"
    before = open_bucket(f"{place.bucket_uri}/runs/before")
    lost = [
        first.model_copy(update={"number": number, "ended": SeenEnd(how="preempted", at_s=60.0, ran_from_s=0.0)})
        for number in (1, 2, 3, 4)
    ]
    update_claims(before, lambda claims: Claims(attempts=tuple(lost)))
    assert run([*words, "--run", "next"]) == 0
    (second,) = read_claims(open_bucket(f"{place.bucket_uri}/runs/next")).attempts
    assert second.zone == "us-central1-c"


# --- what is wrong is said before anything is contacted --------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "a10"], "not on Google Cloud; L4 is its match"),
        (["--gpu", "a101"], "Did you mean a100"),
        (["--gpu", "h200"], "8 at a time only"),
        (["--gpu", "l4", "--zone", "us-central1-z"], "is not rented there"),
        (["--gpu", "l4", "--region", "mars"], "is not rented there"),
        (["--gpu", "h100"], "as spot VMs only"),
        (["--gpu", "t4", "--spot", "--set", "model.dtype=bfloat16"], "--gpu l4 is the smallest that fits"),
        (["--gpu", "l4", "--spot", "--set", "model.name=a/Model-70B"], "No single GPU here is large enough"),
        (["--gpu", "l4", "--spot", "--set", "model.name=a/Model-14B"], "--gpu a100 is the smallest that fits"),
        (["--gpu", "l4", "--spot", "--set", "model.name=a/nameless"], "--max-usd"),
        (["--gpu", "l4", "--spot", "--set", "model.name=."], "which no VM can read"),
        (["--gpu", "l4", "--spot", "--set", "data.train=none.jsonl"], "There is no data file none.jsonl"),
        (["--gpu", "l4", "--spot", "--set", "data.train=bad.jsonl"], "bad.jsonl row 1 has no `question`"),
        (["--gpu", "l4", "--spot", "--set", "task=broken.py:Short"], "broken.py line 1 is not Python"),
        (["--gpu", "l4", "--spot", "--set", "train.batch_size_per_device=800"], "a generation takes 100"),
        (["--gpu", "l4", "--spot", "--on-demand", "after"], "--on-demand after: there is no such policy"),
        (["--gpu", "l4", "--on-demand", "after:2h"], "this run has none"),
        (["--gpu", "h100", "--spot", "--on-demand", "after:2h"], "as spot VMs only"),
        (["--gpu", "l4", "--spot", "--on-demand", "deadline"], "no deadline is named"),
        (["--gpu", "l4", "--spot", "--deadline", "2020-01-01"], "--deadline is in the past"),
        (["--gpu", "l4", "--spot", "--detach", "--watch-here"], "--detach leaves"),
        (["--gpu", "l4", "--spot", "--run", "file:///tmp/runs/x"], "VMs work for runs in Cloud Storage"),
        (["--gpu", "l4", "--spot", "--run", "gs://bucket"], "is a bucket, not a run in it"),
    ],
)
def test_what_cannot_be_is_refused_by_a_dry_run_and_a_real_one_alike(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "bad.jsonl").write_text('{"answer": "1"}\n')
    (tmp_path / "broken.py").write_text("class Short\n")
    monkeypatch.chdir(tmp_path)
    no_network(monkeypatch)
    assert run(["launch", "recipe.toml", *words, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection fails, and nothing in the environment helps to one."""

    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for variable in ("STORAGE_EMULATOR_HOST", OVERRIDE, NO_CREDENTIALS, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)


def test_a_dry_run_needs_neither_credentials_nor_network_nor_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_network(monkeypatch)
    monkeypatch.chdir(ROOT)
    assert run(["launch", "--gpu", "a100", "--spot", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    watchdog, request = shown["requests"]
    assert watchdog["body"]["name"].startswith("baton-watchdog-")
    assert request["method"] == watchdog["method"] == "POST"
    assert request["url"].startswith("https://compute.googleapis.com/compute/v1/projects/PROJECT/zones/")
    assert request["body"]["scheduling"]["provisioningModel"] == "SPOT"
    assert {item["key"] for item in request["body"]["metadata"]["items"]} >= {"startup-script", "baton-run"}
    plan = shown["plan"]
    assert plan["gpu"] == "a100"
    best = plan["offers"][0]
    assert plan["estimate"]["usd"] == best["expected"]["usd"] == min(o["expected"]["usd"] for o in plan["offers"])
    assert plan["max_usd"] == pytest.approx(2 * plan["estimate"]["usd"] + best["usd_per_hour"] / 6, abs=0.02)
    smaller, on_demand = plan["alternatives"]
    assert (smaller["gpu"], smaller["kind"], on_demand["gpu"], on_demand["kind"]) == ("l4", "spot", "a100", "on_demand")
    assert smaller["expected"]["usd"] < best["expected"]["usd"] < on_demand["expected"]["usd"]
    assert {host["host"] for host in plan["hosts"]} >= {"compute.googleapis.com", "storage.googleapis.com"}
    assert all(offer["date"] for offer in plan["offers"])


def test_when_an_on_demand_vm_may_be_taken_is_in_the_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_network(monkeypatch)
    monkeypatch.chdir(ROOT)
    words = ["launch", "--gpu", "l4", "--spot", "--deadline", "2999-01-01T08:00", "--dry-run", "--json"]
    assert run([*words, "--on-demand", "after:90m"]) == 0
    machine = json.loads(capsys.readouterr().out)["plan"]["machine"]
    assert (machine["on_demand"], machine["on_demand_after_s"]) == ("after", 5400.0)
    assert run([*words, "--on-demand", "deadline"]) == 0
    machine = json.loads(capsys.readouterr().out)["plan"]["machine"]
    assert machine["on_demand"] == "deadline"
    assert machine["deadline_s"] == datetime(2999, 1, 1, 8).timestamp()


def test_a_dry_run_tells_people_offers_cost_hosts_and_the_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_network(monkeypatch)
    monkeypatch.chdir(ROOT)
    assert run(["launch", "--gpu", "l4", "--region", "us-east4", "--max-usd", "7", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "us-east4-a,c",
        "2026-07, listed",
        "not measured",
        "cap      $7.00",
        "baton-watchdog-",
        "storage.googleapis.com",
        "e2-small, about $0.024/h for all runs",
        "the watchdog VM's request, where the bucket has none yet",
        "POST https://compute.googleapis.com/compute/v1/projects/PROJECT/zones/us-central1-a/instances?requestId=",
        '"machineType": "zones/us-central1-a/machineTypes/e2-small"',
        "the first attempt's request",
        "POST https://compute.googleapis.com/compute/v1/projects/PROJECT/zones/us-east4-a/instances?requestId=",
        '"provisioningModel": "STANDARD"',
    ):
        assert words in shown
