"""`baton report` writes one page where it is told to, prints where, and changes nothing in the run."""

import json
from pathlib import Path

import pytest

from infra.cli.run import run
from job.run.claims import claim_process
from job.storage import open_bucket


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    uri = f"file://{tmp_path}/runs/mine & more"
    claim_process(open_bucket(uri), host="box", pid=1)
    return uri


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_page_is_named_after_the_run_and_its_path_is_printed(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tmp_path / "runs")
    assert run(["report", uri]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("mine-more-report.html\n", "")
    assert Path("mine-more-report.html").read_text().startswith("<!doctype html>")
    assert contents(tmp_path / "runs") == before


def test_the_page_goes_where_it_is_told_to(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", uri, "--out", "page.html"]) == 0
    assert capsys.readouterr().out == "page.html\n"
    assert run(["report", uri, "--out", "-"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")


def test_as_json_it_is_the_same_in_numbers(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", uri, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"]["status"], told["verdict"]["steps"], told["verdict"]["cost_usd"]) == ("starting", 0, None)
    assert not list(Path().glob("*.html"))


def test_a_page_that_cannot_be_written_is_a_mistake_of_the_command_line(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", uri, "--out", "missing/page.html"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: missing/page.html cannot be written: No such file or directory.\n"
    )
