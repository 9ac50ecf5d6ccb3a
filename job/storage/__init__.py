"""Buckets: named objects with generations, preconditions and checksums, behind one small protocol.

A bucket here is always rooted at one run's prefix: `open_bucket("gs://b/runs/NAME")`,
`open_bucket("file:///path")`. Object names are relative to it, with `/` between the parts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from job.errors import UsageError
from job.storage.usage import Usage

Buffer = bytes | bytearray | memoryview
Data = Buffer | Iterable[Buffer]
"""What may be written: one buffer, or several that are written one after another, not joined in memory.

They must stay as they are until the write has returned: none is copied.
"""


class NotFound(Exception):
    """The object does not exist."""


class PreconditionFailed(Exception):
    """The object's generation is not the one that the caller named (HTTP 412)."""


@dataclass(frozen=True)
class ObjectInfo:
    """What the bucket knows of one object."""

    name: str
    generation: int
    """Grows with every write of this name; never reused."""
    size_bytes: int
    crc32c: int | None
    """Always known by write and read; by stat and list only where the store keeps it (file:// does not)."""
    updated_s: float
    """Server time of the write, seconds since the epoch."""


class Bucket(Protocol):
    """Storage of one run. Every method raises `Transient` when the service is not to be reached,
    `NeedsPerson` when it refuses (permission, disk full)."""

    uri: str

    @property
    def usage(self) -> Usage:
        """What the service was asked for so far and bills; nothing where it bills nothing."""

    def location(self) -> str | None:
        """Where the service keeps it, in the service's words; None where that is not told or costs nothing."""

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        """The whole object, its checksum verified. Raises NotFound."""

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        """Streams the object into `buffer`, whose length must be the object's size.

        Raises NotFound, ValueError on another size.
        """

    def stat(self, name: str) -> ObjectInfo | None:
        """The object's metadata, None when it does not exist."""

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        """Writes the object as a whole: readers see the old one or the new one. `data` is gone through once.

        `if_generation=0`: only if it does not exist; N: only if N is its generation; None: whatever is there.
        Raises PreconditionFailed, and then nothing was changed.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with `prefix`, sorted by name."""

    def folders(self, prefix: str) -> Iterator[str]:
        """The folders right below `prefix` (itself "" or one, ending in a slash) that have objects, each ending in a
        slash, sorted; their objects are not gone through."""

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        """Deletes the object; one that is gone already is no error. Raises PreconditionFailed."""


def open_bucket(uri: str) -> Bucket:
    """The bucket behind a run's URI. Raises UsageError for a URI of another kind."""
    if uri.startswith("file://"):
        from job.storage.file import FileBucket

        return FileBucket(uri)
    if uri.startswith("gs://"):
        from job.storage.gcs import GcsBucket

        return GcsBucket(uri)
    raise UsageError(
        f"{uri!r} is not the URI of a run.",
        fix="Use file:///absolute/path or gs://BUCKET/runs/NAME.",
    )
