"""What is wanted of a run: immutable revisions, of which the newest number counts."""

from typing import Any

from pydantic import Field

from job.errors import UsageError
from job.run.layout import SPECS, spec_name
from job.run.records import Record, create
from job.storage import Bucket, PreconditionFailed


class Input(Record):
    """A file of the user's, pinned by its bytes; they lie in blobs/."""

    sha256: str
    bytes: int = Field(ge=0)
    name: str
    """The file's own name, for messages."""


class SpecModel(Record):
    """The model that the run starts from, pinned."""

    name: str
    revision: str | None = None
    """Commit on the hub."""
    sha256: str | None = None
    """Of a local folder's files, or of the model that the project makes."""


class Spec(Record):
    """One revision."""

    revision: int = Field(ge=1)
    recipe: dict[str, Any]
    """The resolved settings, without secrets."""
    inputs: dict[str, Input] = Field(default_factory=dict)
    """By the setting that names the file."""
    model: SpecModel
    fingerprint: str
    """Of the settings that are part of the run's identity."""
    accepted: tuple[str, ...] = ()
    """Keys whose difference to the revision before was accepted."""
    started_by: str
    commit: str | None = None
    """Of the code that started it."""
    created_at: float
    """Seconds since the epoch."""


def read_spec(bucket: Bucket) -> Spec | None:
    """The newest revision, None for a run that does not exist."""
    names = [info.name for info in bucket.list(SPECS)]
    found = Spec.read(bucket, names[-1]) if names else None
    return None if found is None else found[0]


def write_spec(bucket: Bucket, spec: Spec) -> None:
    """Adds a revision. Raises UsageError when somebody else has just written that number."""
    try:
        create(bucket, spec_name(spec.revision), spec.to_bytes())
    except PreconditionFailed:
        raise UsageError(
            f"revision {spec.revision} of the spec of {bucket.uri} was written by somebody else meanwhile.",
            fix="Run the command again: it then sees that revision.",
        ) from None
