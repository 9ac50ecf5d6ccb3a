"""MANIFEST.json: what a checkpoint consists of. It is written last; head names it by its checksum."""

from pydantic import Field

from job.run.layout import blob_name
from job.run.records import Record


class ManifestFile(Record):
    """One file of the checkpoint."""

    size_bytes: int = Field(ge=0)
    crc32c: int
    sha256: str | None = None
    """Of checkpoints that are kept for good, released or final; it costs too much at every step."""
    blob: bool = False
    """Whether its bytes lie in blobs/, under its sha256, for every checkpoint in which they are the same."""

    def path(self, folder: str, name: str) -> str:
        """The object that holds it, in a checkpoint's folder or in blobs/."""
        if not self.blob:
            return f"{folder}/{name}"
        assert self.sha256 is not None, "a blob is named by its sha256"
        return blob_name(self.sha256)


class Parent(Record):
    """The checkpoint that another one was made from: an earlier one of its attempt, or what that resumed from."""

    folder: str
    manifest_sha256: str | None


class Manifest(Record):
    """The files of a checkpoint, or of an addition to one, and what they belong to."""

    step: int = Field(ge=0)
    attempt: int = Field(ge=1)
    incarnation: int = Field(ge=0)
    fingerprint: str
    """Of the settings that it was trained by."""
    parent: Parent | None = None
    """Newest in head when this was written, so that each MANIFEST stands for all before it; None for the first."""
    files: dict[str, ManifestFile]
    """By name, relative to the MANIFEST."""


class ResultManifest(Record):
    """result/MANIFEST.json: the files of the result, and the checkpoint that they derive from. Written last."""

    step: int = Field(ge=0)
    checkpoint: Parent
    files: dict[str, ManifestFile]
    """By name, relative to the MANIFEST; each with its sha256."""
