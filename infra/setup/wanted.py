"""What a person asks `infra/setup.sh` for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from infra.machines import machines
from infra.plan import offers
from job.errors import UsageError

_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_GITHUB = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9_.-]+")
NUMBER = "PROJECT_NUMBER"
"""Stands for the project's number in a dry run."""


@dataclass(frozen=True)
class Wanted:
    """A project, made ready."""

    project: str
    region: str
    """Of bucket and registry."""
    bucket: str
    regions: tuple[str, ...]
    """Where VMs may be."""
    number: str = NUMBER
    """Of the project."""
    nat: bool = False
    github: str | None = None
    """OWNER/REPO whose CI pushes images."""
    github_id: str | None = None
    """Its number: a name may be given to somebody else."""
    cloud_build: bool = False
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    """Values, by the variable that each is for."""
    rotate: tuple[str, ...] = ()
    """Of these there is to be a new version."""

    def account(self, name: str) -> str:
        """The address of one of our accounts."""
        return f"{name}@{self.project}.iam.gserviceaccount.com"

    def member(self, name: str) -> str:
        """The same, as policies name it."""
        return f"serviceAccount:{self.account(name)}"

    @property
    def registry(self) -> str:
        """Where the project's own images are."""
        return f"{self.region}-docker.pkg.dev/{self.project}/baton"


def all_regions() -> tuple[str, ...]:
    """Wherever a GPU is known to be rented."""
    rented = [name for name, gpu in machines().gpu.items() if gpu.single]
    return tuple(sorted({offer.region for name in rented for spot in (True, False) for offer in offers(name, spot)}))


def check_wanted(wanted: Wanted) -> None:
    """Raises UsageError for what Google Cloud would refuse, or would take for something else."""
    if not _PROJECT.fullmatch(wanted.project):
        raise UsageError(f"--project {wanted.project}: that is no project's id.", fix="gcloud projects list")
    if not _BUCKET.fullmatch(wanted.bucket):
        raise UsageError(f"--bucket {wanted.bucket}: that is no bucket's name.", fix="Small letters, digits, - _ and .")
    if wanted.region not in wanted.regions:
        raise UsageError(
            f"--region {wanted.region}: as far as is known, no GPU is rented there.",
            fix=f"One of {', '.join(wanted.regions)}.",
        )
    if wanted.github is not None and not _GITHUB.fullmatch(wanted.github):
        raise UsageError(f"--github {wanted.github}: that is not OWNER/REPO.")
    if (wanted.github is None) != (wanted.github_id is None) or not (wanted.github_id or "0").isdecimal():
        raise UsageError(
            "--github OWNER/REPO and --github-id NUMBER go together.",
            fix="gh api repos/OWNER/REPO --jq .id   tells the number.",
        )
