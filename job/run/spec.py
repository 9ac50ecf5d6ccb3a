"""What is wanted of a run: immutable revisions, of which the newest number counts."""

from typing import Any, Literal

from pydantic import Field

from job.errors import UsageError
from job.run.layout import SPECS, spec_name
from job.run.records import Record, create
from job.storage import Bucket, PreconditionFailed

SUBNET = "baton"
"""What infra/setup.sh makes in each region."""


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


class Machine(Record):
    """Which VMs the run may have, and what it may cost. Only what launch and resume write; VMs cannot."""

    gpu: str
    """As `--gpu` names it: l4, a100..."""
    project: str
    spot: bool = True
    on_demand: Literal["never", "after", "deadline"] = "never"
    """When an on-demand VM may be taken instead of a spot one."""
    on_demand_after_s: float | None = None
    """Seconds without a VM after which `after` applies."""
    zones: tuple[str, ...] = ()
    """Where VMs may be; empty: in `regions`."""
    regions: tuple[str, ...] = ()
    """Empty: wherever the GPU is offered, the bucket's region first."""
    bucket_region: str | None = None
    """Where the bucket is, as the launch was told; a watchdog's account need not be."""
    image: str
    """The container, by digest."""
    boot_image: str
    """The VM's: project/family or full name, dated."""
    boot_disk_gb: int = Field(ge=10)
    service_account: str
    subnet: str = SUBNET
    """Where the VMs are: the subnet of that name in each region."""
    secrets: dict[str, str] = Field(default_factory=dict)
    """By the variable that each is for, its version in Secret Manager: `projects/P/secrets/NAME/versions/3`. The
    value itself is read by the attempt, with its VM's own rights."""
    notice_s: int = 120
    """Notice asked for from the platform; 0 or 120."""
    max_usd: float = Field(gt=0)
    """What all VMs of the run may cost together: machine, disk, network."""
    deadline_s: float | None = None
    """When it has to be finished, seconds since the epoch."""


class Spec(Record):
    """One revision."""

    revision: int = Field(ge=1)
    recipe: dict[str, Any]
    """The resolved settings, without secrets."""
    inputs: dict[str, Input] = Field(default_factory=dict)
    """By the setting that names the file."""
    model: SpecModel
    machine: Machine | None = None
    """None for a run of processes that people start."""
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
