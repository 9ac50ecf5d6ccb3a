"""`baton get` brings the result, every byte verified, and lets nothing that a VM wrote lead anywhere else."""

import hashlib
import json
from pathlib import Path

import pytest
from vm_runs import head, make, vm

from infra.cli.run import run
from job.checkpoint.manifest import ManifestFile, Parent, ResultManifest
from job.run.head import Status
from job.run.layout import HEAD, RESULT_MANIFEST
from job.storage import Bucket, open_bucket

FILES = {
    "adapter/adapter_model.safetensors": b"weights" * 5000,
    "metrics.jsonl": b"",
    "report.html": b"<!doctype html>",
}
Captured = pytest.CaptureFixture[str]


def listed(data: bytes) -> ManifestFile:
    return ManifestFile(size_bytes=len(data), crc32c=0, sha256=hashlib.sha256(data).hexdigest())


def publish(bucket: Bucket, files: dict[str, ManifestFile]) -> None:
    folder = "checkpoints/000100-0001-ab"
    manifest = ResultManifest(step=100, checkpoint=Parent(folder=folder, manifest_sha256=None), files=files)
    bucket.write(RESULT_MANIFEST, manifest.to_bytes())


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.chdir(tmp_path)
    bucket = open_bucket(f"file://{tmp_path}/bucket/runs/my run")
    make(bucket, vm(1))
    bucket.write(HEAD, head(Status.FINISHED, step=100).to_bytes())
    for name, data in FILES.items():
        bucket.write(f"result/{name}", data)
    publish(bucket, {name: listed(data) for name, data in FILES.items()})
    return bucket


def test_the_result_lies_in_a_folder_of_the_runs_name(finished: Bucket, capsys: Captured) -> None:
    assert run(["get", finished.uri]) == 0
    assert capsys.readouterr().out == "my-run\n"
    for name, data in FILES.items():
        assert Path("my-run", name).read_bytes() == data
    assert {path.name for path in Path("my-run").iterdir()} == {"adapter", "metrics.jsonl", "report.html"}


def test_cut_off_it_goes_on_and_a_file_that_was_changed_is_fetched_again(finished: Bucket, capsys: Captured) -> None:
    assert run(["get", finished.uri, "here"]) == 0
    Path("here/report.html").write_bytes(b"changed")
    Path("here/metrics.jsonl").unlink()
    capsys.readouterr()
    assert run(["get", finished.uri, "here", "--json"]) == 0
    shown = capsys.readouterr()
    assert sorted(json.loads(shown.out)["files"]) == sorted(FILES)
    assert "adapter/adapter_model.safetensors: was here" in shown.err
    assert "report.html: fetched" in shown.err
    assert Path("here/report.html").read_bytes() == FILES["report.html"]


def test_other_bytes_than_the_manifest_says_are_not_left_behind(finished: Bucket, capsys: Captured) -> None:
    finished.write("result/report.html", b"<!doctype HTML>")
    assert run(["get", finished.uri, "here"]) == 3
    assert "result/report.html has other bytes than its MANIFEST says" in capsys.readouterr().err
    finished.write("result/report.html", b"longer than it was")
    assert run(["get", finished.uri, "here"]) == 3
    assert "has another size" in capsys.readouterr().err
    finished.delete("result/report.html")
    assert run(["get", finished.uri, "here"]) == 3
    assert "result/report.html is missing" in capsys.readouterr().err
    assert not [path.name for path in Path("here").iterdir() if "report" in path.name]


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../out", ".hidden", "a/.b", "a//b", "", "a\\b", "a/./b"])
def test_no_name_leads_out_of_the_folder(name: str, finished: Bucket, capsys: Captured) -> None:
    publish(finished, {name: listed(b"x")})
    assert run(["get", finished.uri, "here"]) == 3
    assert "MANIFEST.json names" in capsys.readouterr().err
    assert not Path("here").exists()


def test_a_link_in_the_folder_is_not_followed(finished: Bucket) -> None:
    Path("here").mkdir()
    Path("outside").write_bytes(FILES["report.html"])
    Path("here/report.html").symlink_to("../outside")
    assert run(["get", finished.uri, "here"]) == 0
    assert not Path("here/report.html").is_symlink()
    outside = Path("there")
    outside.mkdir()
    Path("linked").mkdir()
    Path("linked/adapter").symlink_to(outside.absolute())
    assert run(["get", finished.uri, "linked"]) == 2
    assert [*outside.iterdir()] == []


def test_a_folder_with_other_things_and_a_file_are_refused(finished: Bucket, capsys: Captured) -> None:
    Path("here").mkdir()
    Path("here/thesis.tex").write_text("mine")
    assert run(["get", finished.uri, "here"]) == 2
    assert "holds other things (thesis.tex)" in capsys.readouterr().err
    assert run(["get", finished.uri, "here/thesis.tex"]) == 2
    assert "is a file" in capsys.readouterr().err


def test_before_the_end_there_is_nothing_to_get(finished: Bucket, capsys: Captured) -> None:
    finished.write(HEAD, head(Status.FINISHING, step=100).to_bytes())
    assert run(["get", finished.uri]) == 2
    assert "is not finished (finishing, step 100): it has no result yet" in capsys.readouterr().err


def test_a_result_of_another_checkpoint_is_not_taken_for_the_runs(finished: Bucket, capsys: Captured) -> None:
    finished.write(HEAD, head(Status.FINISHED, step=90).to_bytes())
    assert run(["get", finished.uri]) == 3
    assert "was not made from the checkpoint that the run ended with" in capsys.readouterr().err
    finished.delete(RESULT_MANIFEST)
    assert run(["get", finished.uri]) == 3
    assert "result/MANIFEST.json is missing" in capsys.readouterr().err
