"""Specs, attempt records and blobs: written once, read back whole, damage is named."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from faults import FaultyBucket

from job.errors import NeedsPerson, UsageError
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, read_record, read_records, write_record
from job.run.blobs import fetch_blob, put_blob
from job.run.layout import blob_name, parse_checkpoint_folder, parse_segment_name, segment_name, spec_name
from job.run.layout import checkpoint_folder as folder_name
from job.run.spec import Input, Spec, SpecModel, read_spec, write_spec
from job.storage import Bucket


def spec(revision: int, seed: int = 0) -> Spec:
    return Spec(
        revision=revision,
        recipe={"train": {"seed": seed}, "task": "math_qa"},
        inputs={"data.train": Input(sha256="ab" * 32, bytes=3, name="train.jsonl")},
        model=SpecModel(name="tiny"),
        fingerprint="f",
        started_by="me",
        created_at=1.5,
    )


def test_the_newest_revision_counts(bucket: Bucket) -> None:
    assert read_spec(bucket) is None
    for revision in (1, 2, 10):
        write_spec(bucket, spec(revision))
    assert read_spec(bucket) == spec(10)
    assert json.loads(bucket.read(spec_name(1))[0])["recipe"]["train"]["seed"] == 0


def test_a_revision_is_never_written_over(bucket: Bucket) -> None:
    write_spec(bucket, spec(1))
    with pytest.raises(UsageError, match="was written by somebody else"):
        write_spec(bucket, spec(1, seed=5))
    assert read_spec(bucket) == spec(1)


def test_a_lost_reply_of_a_spec_is_no_conflict(faulty: FaultyBucket) -> None:
    faulty.lose_replies(1)
    write_spec(faulty, spec(1))
    assert read_spec(faulty.inner) == spec(1)


def test_attempt_records_are_found_by_number_and_the_last_word_stays(bucket: Bucket) -> None:
    one = AttemptRecord(number=1, host="h", pid=1, started_at_s=1.0, phases={"start": 0.5, "train": 2.0})
    two = AttemptRecord(
        number=2,
        host="h",
        pid=2,
        started_at_s=2.0,
        resumed_from=ResumedFrom(step=3, folder="checkpoints/000003-0001-aa", lost_steps=1),
    )
    for record in (two, one):
        write_record(bucket, record)
    two = two.model_copy(update={"ended": Ended(exit_code=75, reason="SIGTERM", step=5, at_s=9.0)})
    write_record(bucket, two)
    assert read_records(bucket, [1, 2, 3]) == [one, two]
    assert list(read_records(bucket, [1])[0].phases) == ["start", "train"]
    assert read_record(bucket, 2) == two
    assert read_record(bucket, 3) is None


def test_a_record_of_another_version_is_refused_by_name(bucket: Bucket) -> None:
    bucket.write("attempts/0001/attempt.json", b'{"number": 1, "host": "h", "pid": 1, "started_at_s": 1, "new": 2}')
    with pytest.raises(NeedsPerson, match=r"attempts/0001/attempt\.json cannot be read: new: "):
        read_records(bucket, [1])


@pytest.mark.parametrize("content", [b"", b"some rows\n" * 300_000])
def test_a_file_goes_to_blobs_and_comes_back(bucket: Bucket, tmp_path: Path, content: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(content)
    sha256 = put_blob(bucket, source)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert put_blob(bucket, source) == sha256
    fetch_blob(bucket, sha256, target)
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_file_that_is_right_already_is_not_fetched(faulty: FaultyBucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"rows")
    fetch_blob(faulty, hashlib.sha256(b"rows").hexdigest(), source)
    assert faulty.calls == []


def test_a_damaged_or_missing_blob_is_named_and_leaves_no_file(bucket: Bucket, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"rows")
    sha256 = put_blob(bucket, source)
    bucket.write(blob_name(sha256), b"rowz")
    with pytest.raises(NeedsPerson, match=f"{sha256} is damaged"):
        fetch_blob(bucket, sha256, target)
    bucket.delete(blob_name(sha256))
    with pytest.raises(NeedsPerson, match=f"{sha256} is missing"):
        fetch_blob(bucket, sha256, target)
    assert list(target.parent.iterdir()) == []


def test_lost_replies_do_not_matter_to_blobs(faulty: FaultyBucket, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"rows")
    faulty.lose_replies(1)
    sha256 = put_blob(faulty, source)
    faulty.lose_replies(1, "read_into")
    fetch_blob(faulty, sha256, target)
    assert target.read_bytes() == b"rows"


def test_a_file_that_changes_while_it_is_stored_is_refused_and_not_kept(faulty: FaultyBucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")

    def change(number: int, method: str, name: str) -> None:
        if method == "write":
            source.write_bytes(b"after")

    faulty.before = change
    with pytest.raises(UsageError, match="changed while it was read"):
        put_blob(faulty, source)
    assert list(faulty.inner.list("blobs/")) == []


def test_an_input_that_is_missing_is_a_usage_error(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        put_blob(bucket, tmp_path / "nowhere.jsonl")


def test_names_are_parsed_as_they_are_made() -> None:
    assert parse_segment_name(segment_name(12, "events", 345)) == (12, "events", 345)
    assert parse_segment_name("attempts/0001/attempt.json") is None
    assert parse_checkpoint_folder(folder_name(140, 3, "0a1b")) == (140, 3)
    assert parse_checkpoint_folder("checkpoints/else") is None


def test_a_disk_without_space_for_a_blob_needs_a_person(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"rows")
    sha256 = put_blob(bucket, source)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(NeedsPerson, match="copy cannot be written: No space left on device"):
        fetch_blob(bucket, sha256, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]
