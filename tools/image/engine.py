"""Which container engine there is: docker, podman or buildah, the first that answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from job.errors import NeedsPerson

Name = Literal["docker", "podman", "buildah"]
PROBES: dict[Name, tuple[str, ...]] = {
    "docker": ("docker", "info", "--format", "{{.ServerVersion}}"),  # fails where only the client is installed
    "podman": ("podman", "info", "--format", "{{.Version.Version}}"),
    "buildah": ("buildah", "info"),
}
"""What shows that an engine works here."""
BUILDX_PROBE = ("docker", "buildx", "version")


@dataclass(frozen=True)
class Engine:
    """An engine that answered."""

    name: Name
    buildx: bool = False
    """docker with the builder that compresses with zstd and takes further build contexts."""

    @property
    def runs(self) -> bool:
        """Whether it can run containers; buildah only builds them."""
        return self.name != "buildah"


def choose(answers: Mapping[str, bool], *, buildx: bool = False, asked: str | None = None) -> Engine:
    """The first of those that answered, or the one that was asked for; pure. Raises NeedsPerson when there is none."""
    for name in PROBES:
        if answers.get(name) and asked in (None, name):
            return Engine(name, buildx=buildx and name == "docker")
    wanted = f"{asked} does" if asked else "none of docker, podman and buildah does"
    raise NeedsPerson(
        f"No container engine works here: {wanted}.",
        fix="On Debian or Ubuntu: sudo tools/system-deps.sh image (podman). With Docker installed: start its daemon.",
    )
