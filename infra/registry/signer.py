"""Who may have built a container that is named by a tag. Pure, but for asking where this clone came from."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from job.errors import UsageError

ISSUER = "https://token.actions.githubusercontent.com"
HUB = "https://github.com"
FOLDER, FILE = ".github/workflows", "image.yaml"
_GIVEN = re.compile(
    r"(?P<repository>[A-Za-z0-9-]+/[A-Za-z0-9_.-]+)(?:/(?:\.github/workflows/)?(?P<file>[A-Za-z0-9_.-]+\.ya?ml))?"
)
_ORIGIN = re.compile(
    r"(?:https://(?:[^/@]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])([A-Za-z0-9-]+/[A-Za-z0-9_.-]+?)(?:\.git)?/?"
)


@dataclass(frozen=True)
class Build:
    """Who signed, by the words of the certificate; empty where it does not say."""

    issuer: str
    """Who vouched for the signer's name."""
    workflow: str
    """URL of the workflow's file, with the ref that it was taken from."""
    repository: str
    """URL of the repository that the workflow ran for; another one's may call it."""
    ref: str
    commit: str

    def __str__(self) -> str:
        return f"{self.workflow.removeprefix(f'{HUB}/')}, commit {self.commit[:12]}"


@dataclass(frozen=True)
class Signer:
    """A workflow on GitHub, run for main or for a tag of its own repository."""

    repository: str
    workflow: str = f"{FOLDER}/{FILE}"

    def __str__(self) -> str:
        return f"{self.repository}/{self.workflow}"

    def refusal(self, build: Build) -> str | None:
        """Why that is somebody else; None for this one."""
        if build.issuer != ISSUER:
            who = build.workflow or "a person"
            return f"it was signed by {who} ({build.issuer or 'no issuer'}), not by a workflow on GitHub"
        workflow, _, ref = build.workflow.partition("@")
        if workflow != f"{HUB}/{self}":
            return f"it was signed by {build.workflow}, not by {self}"
        if build.repository != f"{HUB}/{self.repository}":
            return f"it was built from {build.repository}, which only calls the workflow of {self.repository}"
        for one in (ref, build.ref):
            if one != "refs/heads/main" and not one.startswith("refs/tags/"):
                return f"it was built for {one or 'an unknown ref'}, which is neither main nor a tag"
        return None


def signer_of(given: str | None) -> Signer:
    """Who is trusted: as given, else the repository that this clone came from. Raises UsageError."""
    if given is None:
        return Signer(_origin())
    found = _GIVEN.fullmatch(given)
    if found is None:
        raise UsageError(
            f"BATON_IMAGE_SIGNER: {given!r} is no repository on GitHub.",
            fix=f"Set it to OWNER/REPO, whose {FOLDER}/{FILE} builds the image, or to OWNER/REPO/FILE.yaml.",
        )
    return Signer(found["repository"], f"{FOLDER}/{found['file'] or FILE}")


def repository_of(origin: str) -> str | None:
    """OWNER/REPO on GitHub, by the address that git fetches from; None for one elsewhere."""
    found = _ORIGIN.fullmatch(origin.strip())
    return None if found is None else found[1]


def _origin() -> str:
    folder = Path(__file__).parent
    command = ["git", "remote", "get-url", "origin"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5, check=False)
        found = repository_of(done.stdout)
    except (OSError, subprocess.TimeoutExpired):
        found = None
    if found is None:
        raise UsageError(
            "the container is named by a tag, and nothing says who may have built it.",
            fix="Set BATON_IMAGE_SIGNER=OWNER/REPO, the repository on GitHub whose CI builds it; or give a digest.",
        )
    return found
