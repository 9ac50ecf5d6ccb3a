"""A release needs tag, version and changelog to agree and a digest for every image; what is published is exact."""

import json
import os
from pathlib import Path

import pytest

from job.errors import UsageError
from tools import release

VERSION = '[project]\nname = "baton"\nversion = "1.2.0"\n'
CHANGELOG = """# Changelog

## Unreleased

### Added
- Not this.

## 1.2.0 - 2026-11-21

### Added
- This.

### Fixed
- And `this`.

## 1.1.0 - 2026-10-01

- Not this either.
"""
SECTION = "### Added\n- This.\n\n### Fixed\n- And `this`."
IMAGES = {target: f"ghcr.io/me/baton/{target}@sha256:{'0' * 63}{n}" for n, target in enumerate(release.TARGETS)}
WRITTEN = " ".join(f"{target}={image}" for target, image in IMAGES.items())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text(VERSION)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    return tmp_path


def gh(folder: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int) -> Path:
    """A `gh` that writes down what it was asked, and the file where it does."""
    asked = folder / "asked"
    program = folder / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {asked}\nexit {exit_code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return asked


def test_the_section_of_the_version_is_found_and_no_other() -> None:
    assert release.check("v1.2.0", VERSION, CHANGELOG) == SECTION


def test_a_heading_with_brackets_and_the_last_section_are_found_as_well() -> None:
    last = CHANGELOG.replace("## 1.2.0 -", "## [1.2.0] -").partition("## 1.1.0")[0]
    assert release.check("v1.2.0", VERSION, last) == SECTION


@pytest.mark.parametrize(
    ("tag", "changelog", "complaint"),
    [
        ("1.2.0", CHANGELOG, "the version in pyproject.toml"),
        ("v1.2.1", CHANGELOG, "the version in pyproject.toml"),
        ("", CHANGELOG, "the version in pyproject.toml"),
        ("v1.2.0", CHANGELOG.replace("## 1.2.0 - 2026-11-21", ""), "no section 1.2.0"),
        ("v1.2.0", CHANGELOG.replace("1.2.0", "1.2.00"), "no section 1.2.0"),
        ("v1.2.0", CHANGELOG.replace(" - 2026-11-21", ""), "has no date"),
        ("v1.2.0", CHANGELOG.replace("2026-11-21", "2026-13-21"), "has no date"),
        ("v1.2.0", CHANGELOG.replace("- This.", "").replace("- And `this`.", ""), "tells of no change"),
    ],
)
def test_what_does_not_agree_is_refused(tag: str, changelog: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        release.check(tag, VERSION, changelog)


def test_every_target_has_to_be_there_by_its_digest() -> None:
    assert release.images_of(WRITTEN.split()) == IMAGES
    with pytest.raises(UsageError, match="No image of train, train-cpu, slim"):
        release.images_of(["train=", "train-cpu="])  # what GitHub makes of outputs of jobs that were skipped
    with pytest.raises(UsageError, match="by its digest"):
        release.images_of(WRITTEN.replace("@sha256:", ":v").split())
    with pytest.raises(UsageError, match=r"other=.*by its digest"):
        release.images_of([*WRITTEN.split(), WRITTEN.split()[0].replace("train=", "other=")])


def test_notes_hold_the_changes_and_the_line_that_launch_takes() -> None:
    lines = release.notes(SECTION, IMAGES).splitlines()
    assert "\n".join(lines[:5]) == SECTION
    assert f"BATON_IMAGE={IMAGES['train']}" in lines
    assert {f"| {target} | `{image}` |" for target, image in IMAGES.items()} <= set(lines)


@pytest.mark.parametrize(
    ("tag", "early"), [("v1.2.0", False), ("v1.2.0rc1", True), ("v1.2.0.dev0", True), ("v1.2", False)]
)
def test_a_version_with_letters_is_a_pre_release(tag: str, early: bool) -> None:
    assert ("--prerelease" in release.gh_command(tag, Path("out"))) is early


def test_a_release_is_made_of_the_tag_with_notes_and_digests(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, out = gh(project, monkeypatch, 0), project / "out"
    assert release.main(["publish", "v1.2.0", f"--images={WRITTEN}", f"--out={out}"]) == 0
    arguments = ["release", "create", "v1.2.0", "--verify-tag", "--title=Baton 1.2.0", "--notes-file"]
    assert asked.read_text().splitlines() == [*arguments, str(out / "notes.md"), str(out / "images.json")]
    assert json.loads((out / "images.json").read_text()) == {"version": "1.2.0", "images": IMAGES}
    assert (out / "notes.md").read_text() == release.notes(SECTION, IMAGES)


def test_a_dry_run_prints_the_command_and_runs_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = gh(project, monkeypatch, 0)
    assert release.main(["publish", "v1.2.0", f"--images={WRITTEN}", f"--out={project}/out", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith(
        "gh release create v1.2.0 --verify-tag '--title=Baton 1.2.0' --notes-file"
    )
    assert not asked.exists()


def test_a_release_that_github_refuses_is_a_failure(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = gh(project, monkeypatch, 1)
    assert release.main(["publish", "v1.2.0", f"--images={WRITTEN}", f"--out={project}/out"]) == 1
    assert asked.exists()
    assert "gh did not make the release" in capsys.readouterr().err


def test_nothing_is_asked_of_github_for_a_release_that_is_wrong(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = gh(project, monkeypatch, 0)
    assert release.main(["publish", "v1.3.0", f"--images={WRITTEN}", f"--out={project}/out"]) == 2
    assert release.main(["publish", "v1.2.0", "--images=train= slim=", f"--out={project}/out"]) == 2
    assert not asked.exists()
    assert not (project / "out").exists()
