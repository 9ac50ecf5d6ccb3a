"""Proves that a run in Cloud Storage, whose requests fail in every phase and way, ends with the weights of one in a
folder that nobody touched.

Real attempts with the real client against the server of infra/localcloud/storage, which fails over the wire.
"""

import hashlib
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from attempts import Run, random_moments, wait_until, weights_sha256

from infra.localcloud.storage.process import BUCKET, StorageProcess

PLACES = [
    "restore",
    "generation",
    "scoring",
    "staging",
    "upload",
    "head_write",
    "evaluation",
    "result_files",
    "finishing",
]
KILLS = [(place, number) for place in PLACES for number in (signal.SIGTERM, signal.SIGKILL)]
CORE_KILLS = [("head_write", signal.SIGTERM), ("upload", signal.SIGKILL)]
PHASES = {
    "look": ("control/*", "download"),
    "claim": ("control/claims.json", "upload"),
    "inputs": ("blobs/*", "upload"),
    "head": ("head.json", "upload"),
    "heartbeat": ("attempts/*/heartbeat.json", "upload"),
    "journal": ("attempts/*.jsonl", "upload"),
    "state": ("checkpoints/*/state.safetensors", "upload"),
    "manifest": ("checkpoints/*/MANIFEST.json", "upload"),
    "restore": ("checkpoints/*/state.safetensors", "download"),
    "retention": ("checkpoints/*", "delete"),
    "result": ("result/*", "upload"),
}
"""Where storage fails: objects, and what is done to them."""
KINDS = ["503", "429", "408", "cut", "lost_reply", "corrupt", "slow", "stall"]
CORE_KINDS = ["lost_reply"]


def objects(run: Run) -> dict[str, str]:
    """sha256 of every object of the run."""
    return {info.name: hashlib.sha256(run.read(info.name)).hexdigest() for info in run.store.list("")}


def core_or_long(values: Sequence[Any], core: Sequence[Any]) -> list[Any]:
    marked = [value if isinstance(value, tuple) else (value,) for value in values]
    return [v if v in core else pytest.param(*m, marks=pytest.mark.long) for v, m in zip(values, marked, strict=True)]


def test_an_untouched_run_in_the_cloud_ends_with_the_weights_of_one_in_a_folder(cloud_run: Run, reference: str) -> None:
    assert cloud_run.finish() == reference
    head = cloud_run.head()
    assert head is not None
    assert (head["status"], head["checkpoint"]["step"]) == ("finished", 6)


@pytest.mark.parametrize(("place", "number"), core_or_long(KILLS, CORE_KILLS))
def test_an_attempt_killed_at_a_place_is_gone_on_with(
    cloud_run: Run, reference: str, place: str, number: signal.Signals
) -> None:
    if place == "restore":
        assert cloud_run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    code = cloud_run.kill_at(place, number)
    assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    assert cloud_run.finish() == reference


@pytest.mark.parametrize("kind", core_or_long(KINDS, CORE_KINDS))
def test_faults_of_one_kind_in_every_phase_change_nothing(
    cloud_run: Run, reference: str, storage: StorageProcess, kind: str
) -> None:
    prefix = cloud_run.cloud_uri.removeprefix(f"gs://{BUCKET}/")
    fitting = {
        name: (objects, verb)
        for name, (objects, verb) in PHASES.items()
        if (kind != "lost_reply" or verb != "download") and (kind not in ("cut", "corrupt") or verb != "delete")
    }
    count = 1 if kind in ("slow", "stall") else 2  # nothing is asked again for these
    for objects_glob, verb in fitting.values():
        more = {"stall": {"delay_s": 1.0}, "slow": {"delay_s": 0.3}, "cut": {"after_bytes": 5}}.get(kind, {})
        storage.arm(kind, object=f"{prefix}/{objects_glob}", verb=verb, count=count, **more)
    assert cloud_run.kill_at("upload", signal.SIGKILL) == -signal.SIGKILL
    assert cloud_run.finish() == reference
    assert storage.armed() == [], "a fault that never happened proves nothing"


def test_a_trainer_that_crashes_goes_on_from_memory_while_storage_fails(
    cloud_run: Run, reference: str, storage: StorageProcess
) -> None:
    prefix = cloud_run.cloud_uri.removeprefix(f"gs://{BUCKET}/")
    attempt = cloud_run.start_at("scoring")
    storage.arm("503", object=f"{prefix}/*", count=10)
    trainer = attempt.trainer_pid()
    assert trainer is not None
    os.kill(trainer, signal.SIGKILL)
    cloud_run.go_on("scoring")
    assert attempt.wait() == 0, attempt.err
    assert len(cloud_run.events("trainer_crashed")) == 1
    assert weights_sha256(cloud_run) == reference


@pytest.mark.parametrize("place", core_or_long(["upload", "head_write"], ["head_write"]))
def test_a_zombie_that_wakes_late_is_fenced_and_changes_nothing(cloud_run: Run, reference: str, place: str) -> None:
    zombie = cloud_run.start_at(place)
    zombie.kill_group(signal.SIGSTOP)
    assert cloud_run.finish() == reference
    before = {name: digest for name, digest in objects(cloud_run).items() if not name.startswith("attempts/0001/")}
    zombie.kill_group(signal.SIGCONT)
    cloud_run.go_on(place)
    assert zombie.wait() == 4, zombie.err
    after = objects(cloud_run)
    assert {name: after.get(name) for name in before} == before
    assert weights_sha256(cloud_run) == reference


def test_a_service_that_is_down_is_waited_for_and_the_training_goes_on(
    cloud_run: Run, reference: str, storage: StorageProcess
) -> None:
    prefix = cloud_run.cloud_uri.removeprefix(f"gs://{BUCKET}/")
    trace = cloud_run.folder / "trace"
    attempt = cloud_run.start_at("scoring", "trace", env={"BATON_TEST_TRACE": str(trace)})
    before = cloud_run.durable_step()
    storage.arm("503", object=f"{prefix}/*", verb="upload", count=None)
    cloud_run.go_on("scoring")
    wait_until(lambda: "published 6" in trace.read_text() or not attempt.lives(), f"the last step\n{attempt.err}")
    assert attempt.lives(), attempt.err
    assert cloud_run.durable_step() == before, "nothing could be written"
    storage.clear()
    assert attempt.wait() == 0, attempt.err
    assert weights_sha256(cloud_run) == reference


@pytest.mark.long
def test_random_kills_while_storage_fails_at_random(cloud_run: Run, reference: str, storage: StorageProcess) -> None:
    moments = random_moments()
    prefix = cloud_run.cloud_uri.removeprefix(f"gs://{BUCKET}/")
    code = -1
    for kill in range(30):
        for kind in moments.sample(["503", "429", "cut", "lost_reply", "corrupt"], 2):
            storage.arm(kind, object=f"{prefix}/*", skip=moments.randrange(40), count=2)
        attempt = cloud_run.start()
        cloud_run.wait_for_step(cloud_run.durable_step() + 1, attempt)
        if kill < 6 and attempt.lives():
            attempt.kill(moments.choice([signal.SIGTERM, signal.SIGKILL]))
        code = attempt.wait()
        assert code in (0, 75, 76, -signal.SIGKILL), attempt.err
        if code == 0:
            break
    assert code == 0
    assert weights_sha256(cloud_run) == reference


def test_a_restore_among_a_thousand_checkpoints_reads_head_and_one_manifest(
    cloud_run: Run, reference: str, storage: StorageProcess
) -> None:
    assert cloud_run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    head = cloud_run.head()
    assert head is not None
    prefix = cloud_run.cloud_uri.removeprefix(f"gs://{BUCKET}/")
    for step in range(1000):
        for name in ("state.safetensors", "MANIFEST.json"):
            cloud_run.store.write(f"checkpoints/{step:06d}-0001-{step:016x}/{name}", b"of an attempt long ago")
    storage.clear()
    attempt = cloud_run.start_at("model_loading")
    asked = storage.requests()
    folder = f"{prefix}/{head['checkpoint']['folder']}"
    assert {e["object"] for e in asked if e["object"].endswith("MANIFEST.json")} <= {
        f"{folder}/MANIFEST.json",
        f"{folder}/{head['checkpoint']['addition']}/MANIFEST.json",
    }
    assert {e["object"] for e in asked if e["object"].startswith(f"{prefix}/checkpoints/")} >= {
        f"{folder}/MANIFEST.json",
        f"{folder}/state.safetensors",
    }
    listed = [e["object"] for e in asked if e["operation"] == "list"]
    assert all(name.startswith(f"{prefix}/control/spec/") for name in listed), "a listing of more than a few objects"
    attempt.kill(signal.SIGKILL)
    attempt.wait()
