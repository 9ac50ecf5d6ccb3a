"""Proves that an attempt that lost the run while it writes result/ changes nothing of its successor's."""

from pathlib import Path

import pytest
from faults import FaultyBucket

from job.agent.result import publish_result
from job.checkpoint.save import save_checkpoint
from job.errors import Fenced
from job.run.head import CheckpointRef, Owner
from job.storage import Bucket

WEIGHTS = "result/adapter/adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the trainer wrote."""
    folder = tmp_path / "trained"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/adapter_model.safetensors").write_bytes(b"weights")
    return folder


def trained(bucket: Bucket, attempt: int) -> tuple[Owner, CheckpointRef]:
    owner = Owner.take_over(bucket, attempt)
    ref = save_checkpoint(
        bucket, step=6, attempt=attempt, incarnation=0, fingerprint="f", parent=None, files={"a": b"a"}, sha256=True
    )
    owner.publish(checkpoint=ref)
    return owner, ref


def taken_over_at(call: int, moment: str, inner: Bucket, folder: Path) -> str:
    """Publishes a result while a newer owner comes at that call and writes its own; how it ended."""
    bucket = FaultyBucket(inner)
    owner, ref = trained(bucket, 2 * call + 1)
    first = len(bucket.calls)

    def come(number: int, method: str, name: str) -> None:
        if number == first + call:
            Owner.take_over(inner, 2 * call + 2)
            inner.write(WEIGHTS, b"of the newer owner")

    setattr(bucket, moment, come)
    try:
        publish_result(bucket, owner, folder, ref, say=print)
    except Fenced:
        assert inner.read(WEIGHTS)[0] == b"of the newer owner"
        return "fenced"
    return bucket.calls[-1][1] if len(bucket.calls) == first + call + 1 else "nobody came"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_newer_owner_at_any_call_leaves_its_own_result_as_it_is(bucket: Bucket, folder: Path, moment: str) -> None:
    ends: list[str] = []
    while "nobody came" not in ends:
        ends.append(taken_over_at(len(ends), moment, bucket, folder))
    fenced, last = ends[:-2], ends[-2]
    assert len(fenced) > 5
    assert set(fenced) == {"fenced"}
    assert last in ("fenced", "result/MANIFEST.json"), "at its last call all was written, but for what comes before it"


def test_the_owner_writes_over_what_another_left(faulty: FaultyBucket, folder: Path) -> None:
    owner, ref = trained(faulty, 1)
    faulty.inner.write(WEIGHTS, b"half of it")
    publish_result(faulty, owner, folder, ref, say=print)
    assert faulty.inner.read(WEIGHTS)[0] == b"weights"
