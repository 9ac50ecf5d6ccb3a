"""The result has its model, log, report and their hashes; a report that cannot be made keeps the model from nobody."""

import json
from pathlib import Path

import pytest
from faults import FaultyBucket

from job.agent.result import publish_result
from job.checkpoint.manifest import ResultManifest
from job.checkpoint.save import save_checkpoint
from job.errors import Transient
from job.run.claims import claim_process
from job.run.head import CheckpointRef, Owner
from job.run.segments import SegmentWriter
from job.storage import Bucket


@pytest.fixture
def owner(bucket: Bucket) -> Owner:
    """Of a run of two steps, of which the second is durable."""
    claim_process(bucket, host="box", pid=1)
    owner = Owner.take_over(bucket, 1)
    metrics = SegmentWriter(bucket, 1, "metrics")
    for step in (1, 2):
        metrics.add({"step": step, "reward": step / 2})
    metrics.flush()
    ref = save_checkpoint(
        bucket, step=2, attempt=1, incarnation=0, fingerprint="f", files={"meta.json": b"{}"}, sha256=True
    )
    owner.publish(checkpoint=ref)
    return owner


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "result/adapter").mkdir(parents=True)
    (tmp_path / "result/adapter/adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path / "result"


def newest(owner: Owner) -> CheckpointRef:
    assert owner.head.checkpoint is not None
    return owner.head.checkpoint


def refuse_to_speak(line: str) -> None:
    pytest.fail(line)


def test_it_names_every_file_and_the_checkpoint_that_it_derives_from(bucket: Bucket, owner: Owner, model: Path) -> None:
    names = publish_result(bucket, owner, model, newest(owner), refuse_to_speak)
    written = [info.name for info in bucket.list("result/")]
    assert sorted(names) == written
    manifest = ResultManifest.model_validate_json(bucket.read("result/MANIFEST.json")[0])
    assert {f"result/{name}" for name in manifest.files} | {"result/MANIFEST.json"} == set(written)
    assert (manifest.step, manifest.checkpoint.folder) == (2, newest(owner).folder)
    assert manifest.checkpoint.manifest_sha256 == newest(owner).manifest_sha256
    rows = [json.loads(line) for line in bucket.read("result/metrics.jsonl")[0].splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def test_the_report_says_that_the_run_is_finished_before_head_does(bucket: Bucket, owner: Owner, model: Path) -> None:
    publish_result(bucket, owner, model, newest(owner), refuse_to_speak)
    assert "Finished after step 2: reward 0.50 → 1.00." in bucket.read("result/report.html")[0].decode()


def test_a_report_that_cannot_be_made_is_said_and_keeps_nothing_back(bucket: Bucket, owner: Owner, model: Path) -> None:
    bucket.write("attempts/0001/attempt.json", b"torn")
    said: list[str] = []
    publish_result(bucket, owner, model, newest(owner), said.append)
    assert [line.partition(" (")[0] for line in said] == ["warning: result/ has no report"]
    files = ResultManifest.model_validate_json(bucket.read("result/MANIFEST.json")[0]).files
    assert set(files) == {"adapter/adapter_model.safetensors", "metrics.jsonl"}


def test_a_bucket_out_of_reach_is_tried_again_and_not_called_a_report_that_failed(
    bucket: Bucket, faulty: FaultyBucket, owner: Owner, model: Path
) -> None:
    faulty.before = lambda number, method, name: Transient("away") if name == "head.json" else None
    with pytest.raises(Transient):
        publish_result(faulty, owner, model, newest(owner), refuse_to_speak)
    assert bucket.stat("result/MANIFEST.json") is None
