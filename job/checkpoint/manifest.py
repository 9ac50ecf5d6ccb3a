"""MANIFEST.json: what a checkpoint consists of. It is written last; head names it by its checksum."""

from pydantic import Field

from job.run.records import Record


class ManifestFile(Record):
    """One file of the checkpoint."""

    size_bytes: int = Field(ge=0)
    crc32c: int
    sha256: str | None = None
    """Of checkpoints that are kept for good, released or final; it costs too much at every step."""


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
