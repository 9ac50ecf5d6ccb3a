"""Where images are: the project's own, and those that Baton releases, fetched when they are first asked for."""

from collections.abc import Sequence

from infra.setup.grants import BUILD, CI, VM, WATCHDOG
from infra.setup.steps import Step, binding, gcloud, look, thing
from infra.setup.wanted import Wanted

OWN, RELEASED = "baton", "baton-released"
PUBLIC = "https://ghcr.io"
READER, WRITER = "roles/artifactregistry.reader", "roles/artifactregistry.writer"
GROUP = ("artifacts", "repositories")


def registry_steps(wanted: Wanted) -> Sequence[Step]:
    """Two repositories, who reads them, and who writes to the first."""
    writers = [name for name, asked in ((CI, wanted.github), (BUILD, wanted.cloud_build)) if asked]
    return (
        _repository(wanted, OWN, "for images of your own", kept="its images may be those of your runs"),
        _repository(
            wanted,
            RELEASED,
            f"for those of releases, fetched from {PUBLIC} when they are first asked for",
            "--mode=remote-repository",
            f"--remote-docker-repo={PUBLIC}",
        ),
        *(
            binding(f"{name}@ pulls from {repository}", GROUP, _of(wanted, repository), wanted.member(name), READER)
            for name in (VM, WATCHDOG)
            for repository in (OWN, RELEASED)
        ),
        *(
            binding(f"{name}@ pushes to {OWN}", GROUP, _of(wanted, OWN), wanted.member(name), WRITER)
            for name in writers
        ),
    )


def released_image(wanted: Wanted, repository: str, version: str) -> str:
    """The released container of a repository on GitHub, by its tag, by way of the project's own registry."""
    name = repository.lower()
    return f"{wanted.region}-docker.pkg.dev/{wanted.project}/{RELEASED}/{name}/train:v{version}"


def _repository(wanted: Wanted, name: str, purpose: str, *flags: str, kept: str = "") -> Step:
    where = f"--location={wanted.region}"
    delete = None if kept else gcloud(*GROUP, "delete", name, where)
    create = gcloud(*GROUP, "create", name, "--repository-format=docker", where, *flags)
    return thing(f"repository {name} {purpose}", look(*GROUP, "describe", name, where), create, delete, kept)


def _of(wanted: Wanted, repository: str) -> str:
    return f"{repository} --location={wanted.region}"
