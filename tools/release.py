"""A release: held against version and changelog before it is built, described and published after.

python -m tools.release check TAG
python -m tools.release publish TAG --images "train=NAME@sha256:... slim=..." [--dry-run]

`make release-check` and `make release` call it. Only the standard library: it runs where a token may write to the
repository. The changelog has a section `## 1.2.0 - 2026-11-21` for each version, as keepachangelog.com has it.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from job.errors import BatonError, UsageError

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("train", "train-cpu", "slim")
PINNED = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?(?:/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")
_FIRST_PARTS = re.compile(r"[0-9]+(\.[0-9]+)+")
_HEADING = re.compile(r"^## \[?(?P<name>[^\]\s]+)\]?(?: - (?P<day>\S+))?\s*$", re.MULTILINE)


def main(argv: Sequence[str]) -> int:
    """Checks or publishes, and says what is wrong on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "publish"):
        command = commands.add_parser(name)
        command.add_argument("tag", help="v and the version: v1.2.0")
    command.add_argument("--images", required=True, help="TARGET=NAME@sha256:... of every target, with blanks between")
    command.add_argument("--dry-run", action="store_true", help="write the files, print the command, publish nothing")
    command.add_argument("--out", type=Path, default=ROOT / "build" / "release", help="where the files go")
    given = parser.parse_args(argv)
    try:
        section = check(given.tag, (ROOT / "pyproject.toml").read_text(), (ROOT / "CHANGELOG.md").read_text())
        if given.command == "publish":
            publish(given.tag, section, images_of(given.images.split()), given.out, dry_run=given.dry_run)
    except BatonError as error:
        print(f"release: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def check(tag: str, pyproject: str, changelog: str) -> str:
    """The changelog's section of that version. Raises UsageError when version, changelog and tag are not one; pure."""
    version = tomllib.loads(pyproject)["project"]["version"]
    if tag != f"v{version}":
        raise UsageError(
            f"The tag is {tag!r}, the version in pyproject.toml {version!r}.", fix=f"Tag v{version}, or change it."
        )
    headings = list(_HEADING.finditer(changelog))
    found = next((n for n, heading in enumerate(headings) if heading["name"] == version), None)
    if found is None:
        raise UsageError(
            f"CHANGELOG.md has no section {version}.",
            fix=f"Rename Unreleased to `## {version} - YYYY-MM-DD`, and begin a new one above it.",
        )
    heading = headings[found]
    try:
        date.fromisoformat(heading["day"] or "")
    except ValueError:
        raise UsageError(
            f"CHANGELOG.md: {heading[0].strip()!r} has no date.", fix=f"`## {version} - YYYY-MM-DD`"
        ) from None
    end = headings[found + 1].start() if found + 1 < len(headings) else len(changelog)
    section = changelog[heading.end() : end].strip()
    if not re.search(r"^- ", section, re.MULTILINE):
        raise UsageError(f"CHANGELOG.md: the section {version} tells of no change.", fix="- one line for each")
    return section


def images_of(given: Sequence[str]) -> dict[str, str]:
    """{target: NAME@sha256:...}, of every target. Raises UsageError; pure."""
    images = dict(one.partition("=")[::2] for one in given)
    if missing := [target for target in TARGETS if not images.get(target)]:
        raise UsageError(f"No image of {', '.join(missing)} is named.", fix="Was it pushed? `make image-push`")
    for target, name in images.items():
        if target not in TARGETS or not PINNED.fullmatch(name):
            raise UsageError(f"{target}={name} is no image by its digest.", fix="TARGET=HOST/PROJECT/NAME@sha256:...")
    return {target: images[target] for target in TARGETS}


def publish(tag: str, section: str, images: Mapping[str, str], out: Path, *, dry_run: bool) -> None:
    """Writes notes.md and images.json, and makes the release on GitHub; `dry_run`: prints how."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "notes.md").write_text(notes(section, images))
    (out / "images.json").write_text(json.dumps({"version": tag[1:], "images": images}, indent=2) + "\n")
    command = gh_command(tag, out)
    print(shlex.join(command))
    if not dry_run and subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise BatonError("gh did not make the release; what it said is above.")


def notes(section: str, images: Mapping[str, str]) -> str:
    """The release's text: the changelog's section, then each image as `launch` and docker take it; pure."""
    table = "".join(f"| {target} | `{name}` |\n" for target, name in images.items())
    return (
        f"{section}\n\n### Images\n\nBATON_IMAGE={images['train']}\n\n| target | by digest |\n|---|---|\n{table}\n"
        "Each has its provenance and its list of parts beside it in the registry, signed by this repository's "
        "image.yaml.\n"
    )


def gh_command(tag: str, out: Path) -> list[str]:
    """Makes the release of a tag that is there already; a version with letters (1.2.0rc1) is a pre-release; pure."""
    early = [] if _FIRST_PARTS.fullmatch(tag[1:]) else ["--prerelease"]
    files = ["--notes-file", str(out / "notes.md"), str(out / "images.json")]
    return ["gh", "release", "create", tag, "--verify-tag", f"--title=Baton {tag[1:]}", *early, *files]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
