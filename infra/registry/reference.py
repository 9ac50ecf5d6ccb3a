"""The name of a container as people write it: HOST/NAME:TAG or HOST/NAME@sha256:... Pure."""

import re
from dataclasses import dataclass

from job.errors import UsageError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_GIVEN = re.compile(
    rf"(?P<host>[a-z0-9.-]+(?::[0-9]+)?)/(?P<name>{_PART}(?:/{_PART})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>{DIGEST.pattern}))?"
)
"""The grammar of the OCI distribution specification, with the host that Docker leaves out."""
_LOOPBACK = re.compile(r"(?:localhost|127\.[0-9.]+)(?::[0-9]+)?")
_GOOGLE = re.compile(r"(?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io)")


@dataclass(frozen=True)
class Reference:
    """One container of one registry. With both a tag and a digest the digest counts, as it does for Docker."""

    host: str
    name: str
    tag: str | None
    digest: str | None

    @property
    def wanted(self) -> str:
        """What the registry is asked for."""
        found = self.digest or self.tag
        assert found is not None
        return found

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, where Docker, too, speaks HTTP."""
        return _LOOPBACK.fullmatch(self.host) is not None

    @property
    def is_google(self) -> bool:
        """Whether Google's own credentials belong there."""
        return _GOOGLE.fullmatch(self.host) is not None

    @property
    def url(self) -> str:
        """Where the registry is."""
        return f"{'http' if self.is_loopback else 'https'}://{self.host}"

    def pinned(self, digest: str) -> str:
        """The same container by its digest."""
        return f"{self.host}/{self.name}@{digest}"

    def __str__(self) -> str:
        return self.pinned(self.digest) if self.digest else f"{self.host}/{self.name}:{self.tag}"


def parse_reference(given: str, source: str) -> Reference:
    """What `source` (a variable or an option) names. Raises UsageError."""
    how = f"{source}=HOST/PROJECT/REPO/NAME:TAG, or ...NAME@sha256:..."
    found = _GIVEN.fullmatch(given)
    if found is None:
        raise UsageError(f"{source}: {given!r} is not the name of a container.", fix=f"Give {how}")
    host = found["host"]
    if "." not in host and ":" not in host and host != "localhost":
        raise UsageError(
            f"{source}: {given!r} does not say in which registry the container is.", fix=f"Begin with the host: {how}"
        )
    if found["tag"] is None and found["digest"] is None:
        raise UsageError(f"{source}: {given!r} names neither a tag nor a digest.", fix=f"Give {how}")
    return Reference(host, found["name"], found["tag"], found["digest"])
