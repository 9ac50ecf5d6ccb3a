"""A run of VMs for the tests of commands: its spec, its claims, its head."""

from job.run.claims import Claim, SeenEnd, update_claims
from job.run.head import CheckpointRef, Head, Status
from job.run.layout import HEAD
from job.run.spec import Machine, Spec, SpecModel, write_spec
from job.storage import Bucket

NOW_S = 1_790_000_000.0
IMAGE = f"localhost:1/p/r/baton@sha256:{'a' * 64}"
MACHINE = Machine(
    gpu="l4", project="p", image=IMAGE, boot_image="b", boot_disk_gb=50, service_account="a", max_usd=20.0
)
PREEMPTED = SeenEnd(how="preempted", at_s=NOW_S - 1000, ran_from_s=NOW_S - 4600)


def spec(machine: Machine | None = MACHINE) -> Spec:
    return Spec(
        revision=1,
        recipe={"train": {"max_steps": 100}},
        model=SpecModel(name="tiny"),
        machine=machine,
        fingerprint="f",
        started_by="somebody",
        created_at=NOW_S,
    )


def vm(number: int, ended: SeenEnd | None = None, *, spot: bool = True, name: str | None = None) -> Claim:
    return Claim(
        number=number,
        kind="vm",
        claimed_at_s=NOW_S - 900,
        zone="z-a",
        vm=name or f"baton-x-00000000-a{number:04d}",
        machine_type="g2-standard-4",
        spot=spot,
        usd_per_hour=3.6,
        ended=ended,
    )


def head(status: Status = Status.RUNNING, attempt: int = 1, step: int = 10) -> Head:
    ref = CheckpointRef(folder=f"checkpoints/{step:06d}-0001-ab", step=step, attempt=1, manifest_crc32c=0)
    return Head(attempt=attempt, incarnation=0, status=status, checkpoint=ref, kept=(ref,), write_id="w")


def make(bucket: Bucket, *attempts: Claim, machine: Machine | None = MACHINE, status: Status = Status.RUNNING) -> None:
    """Writes it."""
    write_spec(bucket, spec(machine))
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": attempts}))
    bucket.write(HEAD, head(status, attempt=len(attempts) or 1).to_bytes())
