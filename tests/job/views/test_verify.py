"""`baton status --verify` reads everything that a run keeps: a changed byte anywhere is named, nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import FaultyBucket
from report_runs import begin, metric, record, rows, save

from infra.cli.run import run as baton
from job.agent.result import publish_result
from job.checkpoint.save import save_addition
from job.errors import Transient
from job.run.blobs import put_blob
from job.run.head import Owner, Status, read_head
from job.run.layout import HEAD, RESULT_MANIFEST
from job.run.spec import Input
from job.storage import Bucket, open_bucket
from job.views.verify import verify


@pytest.fixture
def finished(tmp_path: Path) -> Bucket:
    """Two attempts, two kept checkpoints (of the second and of both), an addition, an input and a result."""
    bucket = open_bucket(f"file://{tmp_path}/run")
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "1+1"}\n')
    begin(bucket, 2, inputs={"data.train": Input(sha256=put_blob(bucket, data), bytes=20, name="rows.jsonl")})
    first = save(bucket, Owner.take_over(bucket, 1), 1)
    record(bucket, 1)
    owner = Owner.take_over(bucket, 2)
    record(bucket, 2, exit_code=0, resumed=first)
    rows(bucket, 2, "metrics", [metric(2)])
    newest = save(bucket, owner, 2)
    newest = save_addition(bucket, newest, {"scored.json": b"[]"}, sha256=True)
    owner.publish(checkpoint=newest, kept=(newest, first))
    (tmp_path / "result/adapter").mkdir(parents=True)
    (tmp_path / "result/adapter/adapter_model.safetensors").write_bytes(b"weights" * 1000)
    publish_result(bucket, owner, tmp_path / "result", newest, say=lambda line: pytest.fail(line))
    owner.publish(status=Status.FINISHED)
    return bucket


def bad(bucket: Bucket) -> list[tuple[str, ...]]:
    return [(check.name.split("/")[0].split(":")[0], *check.bad) for check in verify(bucket).checks if check.bad]


def objects(bucket: Bucket) -> list[str]:
    kept = ("checkpoints/", "result/", "blobs/")
    return [info.name for info in bucket.list("") if info.name.startswith(kept)]


def test_a_run_that_is_as_it_was_written_is_good_and_all_of_it_was_read(finished: Bucket) -> None:
    found = verify(finished)
    assert [check.bad for check in found.checks] == [()] * 5
    assert [check.name.split("/")[0] for check in found.checks] == [
        "checkpoints",
        "checkpoints",
        "lineage: links to kept checkpoints",
        "result",
        "data.train: rows.jsonl",
    ]
    read = sum(check.files for check in found.checks if not check.name.startswith("lineage"))
    assert read == len(objects(finished))
    assert found.checks[2].files == 2, "the newest checkpoint's parent, and what attempt 2 resumed from"


def test_every_byte_that_changes_anywhere_is_found(finished: Bucket) -> None:
    """In each object in turn: its last byte that says something changed, the object cut there, the object gone."""
    damages: tuple[Callable[[bytes], bytes | None], ...] = (
        lambda data: data.rstrip()[:-1] + bytes([data.rstrip()[-1] ^ 1]) + data[len(data.rstrip()) :],
        lambda data: data.rstrip()[:-1],
        lambda data: None,
    )
    for name in objects(finished):
        right = finished.read(name)[0]
        for damage in damages:
            wrong = damage(right)
            finished.delete(name) if wrong is None else finished.write(name, wrong)
            found = bad(finished)
            assert len(found) == 1, (name, found)
            assert found[0][0] == {"blobs": "data.train"}.get(name.split("/")[0], name.split("/")[0])
            finished.write(name, right)
    assert bad(finished) == []


def test_a_manifest_that_head_does_not_name_is_found_also_when_it_is_consistent(finished: Bucket) -> None:
    head = read_head(finished)
    assert head is not None
    assert head.checkpoint is not None
    changed = head.checkpoint.model_copy(update={"manifest_sha256": "0" * 64})
    with_it = head.model_copy(update={"checkpoint": changed, "kept": (changed, *head.kept[1:])})
    finished.write(HEAD, with_it.to_bytes())
    assert bad(finished) == [
        ("checkpoints", "MANIFEST.json is not the one that head names (sha256)"),
        ("result", "it derives from a checkpoint with another MANIFEST (sha256)"),
    ]


def test_a_link_to_a_checkpoint_with_another_manifest_is_found(finished: Bucket) -> None:
    head = read_head(finished)
    assert head is not None
    record(finished, 2, exit_code=0, resumed=head.kept[1].model_copy(update={"manifest_sha256": "1" * 64}))
    assert bad(finished) == [
        ("lineage", f"attempt 2 was made from another {head.kept[1].folder}: sha256 111111111111…")
    ]


def test_a_result_of_another_checkpoint_is_found(finished: Bucket) -> None:
    manifest = json.loads(finished.read(RESULT_MANIFEST)[0])
    manifest["checkpoint"]["folder"] = "checkpoints/000001-0001-00000000"
    finished.write(RESULT_MANIFEST, json.dumps(manifest).encode())
    assert bad(finished) == [("result", "it derives from checkpoints/000001-0001-00000000, head names another")]


def test_a_checkpoint_that_the_owner_drops_meanwhile_is_not_called_bad(bucket: Bucket) -> None:
    begin(bucket, 1)
    owner = Owner.take_over(bucket, 1)
    for step in (1, 2):
        save(bucket, owner, step)
    before = read_head(bucket)
    save(bucket, owner, 3)  # step 1 is gone now
    assert before is not None

    class Late:
        """The bucket, whose head is looked at just before the owner's last write."""

        uri, looked = bucket.uri, False

        def __getattr__(self, name: str) -> object:
            return getattr(bucket, name)

        def read(self, name: str) -> object:
            found = bucket.read(name)
            if name == HEAD and not self.looked:
                self.looked = True
                return before.to_bytes(), found[1]
            return found

    checks = verify(Late()).checks  # type: ignore[arg-type]
    assert [check.name.split("-")[0] for check in checks] == [
        "checkpoints/000002",
        "lineage: links to kept checkpoints",
    ]
    assert not any(check.bad for check in checks)


def test_a_bucket_out_of_reach_says_nothing_about_the_run(finished: Bucket) -> None:
    faulty = FaultyBucket(finished)
    faulty.refuse(99, "stat")
    with pytest.raises(Transient):
        verify(faulty)


def test_the_command_ends_with_0_or_with_3_and_names_what_is_bad(
    finished: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baton(["status", finished.uri, "--verify"]) == 0
    assert capsys.readouterr().out.count(" good ") == 5

    finished.write("result/adapter/adapter_model.safetensors", b"weightz" * 1000)
    assert baton(["status", finished.uri, "--verify"]) == 3
    shown = capsys.readouterr()
    assert "BAD: adapter/adapter_model.safetensors has other bytes (crc32c)" in shown.out
    assert "error: 1 of 5 parts" in shown.err
    assert "result: adapter/adapter_model.safetensors has other bytes (crc32c)" in shown.err

    assert baton(["status", finished.uri, "--verify", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in told["checks"] if check["bad"]] == ["result"]


def test_where_there_is_no_run_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert baton(["status", f"file://{tmp_path}/none", "--verify"]) == 2
    assert "there is no run at" in capsys.readouterr().err
