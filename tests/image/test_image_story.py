"""The story in containers without a line of this clone mounted: trained, stopped in the middle, pushed, pulled by its
digest on a machine that never saw it, and finished there, with the weights of a run that nobody stopped.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_boxes import ROOT, STOP_S, Boxes, Container, Images, wait_until

from infra.localcloud.storage.process import BUCKET, StorageProcess
from job.errors import ExitCode
from job.run.claims import read_claims
from job.run.head import Head, Status, read_head
from job.storage import open_bucket
from tools.image.run import Engines

pytestmark = pytest.mark.image
STEPS = 60
STOP_GOAL_S = 5.0
SLIM_BYTES = 250e6
WEIGHTS = "result/adapter/adapter_model.safetensors"


@pytest.fixture(autouse=True)
def _storage(monkeypatch: pytest.MonkeyPatch, bucket_server: StorageProcess) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket_server.url)


def uri(name: str) -> str:
    return f"gs://{BUCKET}/runs/{name}"


def train(boxes: Boxes, image: str, cache: str, server: StorageProcess, name: str) -> Container:
    return boxes.start(
        image,
        *("recipes/demo.toml", "--run", uri(name), "--set", f"train.max_steps={STEPS}"),
        env={"STORAGE_EMULATOR_HOST": server.url},
        flags=[f"--volume={cache}:/cache"],
    )


def head_of(name: str) -> Head | None:
    return read_head(open_bucket(uri(name)))


def durable_step(name: str) -> int:
    head = head_of(name)
    return head.checkpoint.step if head is not None and head.checkpoint is not None else -1


def weights(name: str) -> str:
    return hashlib.sha256(open_bucket(uri(name)).read(WEIGHTS)[0]).hexdigest()


def make(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tools.image", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def pushed(engines: Engines, images: Images, registry: str) -> dict[str, str]:
    """Each image by the digest under which the registry has it."""
    names = make("push", f"--engine={engines.engine.name}", f"--registry={registry}/project/baton", "slim", "train-cpu")
    return dict(zip(("slim", "train-cpu"), names.split(), strict=True))


@pytest.fixture
def elsewhere(engines: Engines, tmp_path: Path) -> Iterator[Boxes]:
    """The same engine with an empty storage: a machine that never saw the image."""
    if engines.engine.name != "podman":
        pytest.skip("docker has one storage")
    boxes = Boxes(engines, flags=[f"--root={tmp_path / 'root'}", f"--runroot={tmp_path / 'run'}"])
    yield boxes
    boxes.close()
    for kind in ("container", "image", "volume"):
        boxes.command(kind, "prune", "--force", *(["--all"] if kind == "image" else []))
    shutil.rmtree(tmp_path / "root", ignore_errors=True)  # 2 GB, which pytest would keep for three runs


def manifest_of(name: str) -> dict[str, object]:
    repository, _, digest = name.partition("@")
    host, _, path = repository.partition("/")
    request = urllib.request.Request(
        f"http://{host}/v2/{path}/manifests/{digest}",
        headers={
            "Accept": "application/vnd.oci.image.manifest.v1+json,application/vnd.docker.distribution.manifest.v2+json"
        },
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        body = answer.read()
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest, "the name holds the bytes"
    manifest: dict[str, object] = json.loads(body)
    return manifest


def test_pushed_images_are_named_by_digest_in_zstd_and_slim_is_small(pushed: dict[str, str]) -> None:
    sizes = {}
    for name, image in pushed.items():
        assert re.fullmatch(rf"127\.0\.0\.1:\d+/project/baton/{name}@sha256:[0-9a-f]{{64}}", image)
        layers = manifest_of(image)["layers"]
        assert isinstance(layers, list)
        assert {layer["mediaType"].rpartition("+")[2] for layer in layers} == {"zstd"}
        sizes[name] = sum(layer["size"] for layer in layers)
    assert sizes["slim"] < SLIM_BYTES
    assert sizes["slim"] < sizes["train-cpu"] / 2


def test_a_digest_that_is_not_in_the_registry_is_one_clear_line(engines: Engines, pushed: dict[str, str]) -> None:
    missing = f"{pushed['slim'].partition('@')[0]}@sha256:{'0' * 64}"
    words = [sys.executable, "-m", "tools.image", "pull", f"--engine={engines.engine.name}", missing]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert f"the registry has no {missing}" in done.stderr
    assert "Traceback" not in done.stderr


def test_stopped_in_the_middle_and_finished_from_the_registry_the_weights_are_those_of_an_untouched_run(
    boxes: Boxes,
    elsewhere: Boxes,
    images: Images,
    pushed: dict[str, str],
    cache: str,
    bucket_server: StorageProcess,
) -> None:
    untouched = train(boxes, images.train_cpu, cache, bucket_server, "untouched")
    assert untouched.exit_code() == ExitCode.FINISHED, untouched.said()

    first = train(boxes, images.train_cpu, cache, bucket_server, "stopped")
    wait_until(lambda: durable_step("stopped") >= 10, first.said)
    took_s = first.stop()
    assert first.exit_code() == ExitCode.PREEMPTED, first.said()
    assert took_s < STOP_GOAL_S < STOP_S
    head = head_of("stopped")
    assert head is not None
    assert head.status is Status.RELEASED
    stopped_at = durable_step("stopped")
    assert 10 <= stopped_at < STEPS

    elsewhere.ask("pull", "--quiet", "--tls-verify=false", pushed["train-cpu"])
    volume = elsewhere.ask("volume", "create").strip()
    second = train(elsewhere, pushed["train-cpu"], volume, bucket_server, "stopped")
    assert second.exit_code() == ExitCode.FINISHED, second.said()
    assert f"step {stopped_at}" in second.said()
    assert [claim.number for claim in read_claims(open_bucket(uri("stopped"))).attempts] == [1, 2]
    assert weights("stopped") == weights("untouched")


def test_what_was_pushed_of_slim_runs_from_its_digest(elsewhere: Boxes, pushed: dict[str, str]) -> None:
    elsewhere.ask("pull", "--quiet", "--tls-verify=false", pushed["slim"])
    done = elsewhere.run(pushed["slim"], "config", "recipes/demo.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
