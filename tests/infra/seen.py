"""A run as a watchdog sees it, for the tests of what is decided: all well, but for what a test says."""

from dataclasses import replace
from typing import Any

from infra.cloud.types import Operation, OperationKind, Trouble, TroubleKind, Vm, VmStatus
from infra.naming import request_id, run_labels, vm_name
from infra.plan import Offer
from infra.watch.observed import Dated, Observed, Policy, Wanted
from job.run.claims import Claim, Claims, SeenEnd
from job.run.exit import ContainerExit
from job.run.head import CheckpointRef, Head, Status, Waiting
from job.run.spec import Machine

NOW_S = 1_790_000_000.0
URI = "gs://bucket/runs/mine"
POLICY = Policy()
ZONE, REGION = "us-central1-a", "us-central1"
MACHINE = Machine(
    gpu="l4",
    project="p",
    image=f"us-docker.pkg.dev/p/r/baton@sha256:{'a' * 64}",
    boot_image="deeplearning-platform-release/common",
    boot_disk_gb=100,
    service_account="a",
    max_usd=20.0,
)


def offer(zone: str = ZONE, usd: float = 0.4, *, spot: bool = True, usd_per_gib: float = 0.0) -> Offer:
    return Offer(
        machine_type="g2-standard-4",
        zone=zone,
        region=zone[:-2],
        spot=spot,
        usd_per_hour=usd,
        gpu_usd=usd,
        host_usd=0.0,
        disk_usd=0.0,
        date="2026-11",
        basis="listed",
        disk="pd-balanced",
        accelerator=None,
        usd_per_gib=usd_per_gib,
    )


SPOT = (offer(), offer("us-central1-b", 0.41), offer("us-east4-a", 0.38, usd_per_gib=0.02))
ON_DEMAND = (offer(usd=0.8, spot=False), offer("us-central1-b", 0.8, spot=False))


def wanted(machine: Machine | None = MACHINE, **changes: Any) -> Wanted:
    """What the spec says; `changes` of Machine's fields."""
    if machine is not None and changes:
        machine = machine.model_copy(update=changes)
    return Wanted(URI, machine, SPOT, ON_DEMAND, max_steps=100)


def claim(number: int = 1, *, ago_s: float = 3600.0, ended: SeenEnd | None = None, **changes: Any) -> Claim:
    made = Claim(
        number=number,
        kind="vm",
        claimed_at_s=NOW_S - ago_s,
        zone=ZONE,
        vm=vm_name(URI, number),
        request_id=request_id(URI, number, NOW_S - ago_s),
        machine_type="g2-standard-4",
        spot=True,
        usd_per_hour=0.4,
        instance_id="1001",
        ended=ended,
    )
    return made.model_copy(update=changes)


def end(how: Any = "preempted", *, ago_s: float = 100.0, ran_s: float | None = 1000.0, **changes: Any) -> SeenEnd:
    at_s = NOW_S - ago_s
    made = SeenEnd(how=how, at_s=at_s, durable_step=10, ran_from_s=None if ran_s is None else at_s - ran_s)
    return made.model_copy(update=changes)


def vm(number: int = 1, status: VmStatus = VmStatus.RUNNING, *, ago_s: float = 3500.0, **changes: Any) -> Vm:
    made = Vm(
        name=vm_name(URI, number),
        zone=ZONE,
        status=status,
        instance_id="1001",
        machine_type="g2-standard-4",
        spot=True,
        labels=run_labels(URI, number),
        created_s=NOW_S - ago_s - 20,
        started_s=NOW_S - ago_s,
    )
    return replace(made, **changes)


def head(
    status: Status = Status.RUNNING, *, attempt: int = 1, step: int | None = 10, ago_s: float = 5.0, **more: Any
) -> Dated[Head]:
    kept = () if step is None else (CheckpointRef(folder="c", step=step, attempt=1, manifest_crc32c=0),)
    made = Head(
        attempt=attempt,
        incarnation=0,
        status=status,
        checkpoint=kept[0] if kept else None,
        kept=kept,
        write_id="w",
        waiting=Waiting(until_s=NOW_S + 400, why="the judge is down") if status is Status.WAITING else None,
    )
    return Dated(made.model_copy(update=more), NOW_S - ago_s)


def operation(kind: OperationKind, user: str = "system", *, ago_s: float = 10.0, **changes: Any) -> Operation:
    return replace(Operation(f"op-{kind.value}", kind, True, user, "1001", NOW_S - ago_s, NOW_S - ago_s), **changes)


INSERTED = operation(OperationKind.INSERT, "w", ago_s=3550.0)
PREEMPTED = operation(OperationKind.PREEMPTED)


def refused(kind: TroubleKind, **changes: Any) -> Operation:
    return replace(INSERTED, trouble=replace(Trouble(kind, "CODE", "words"), **changes))


def last(code: int = 75, reason: Any = "exit", detail: str = "", *, ago_s: float = 4.0) -> Dated[ContainerExit]:
    return Dated(ContainerExit(exit_code=code, reason=reason, detail=detail, at_s=0.0), NOW_S - ago_s)


def seen(*claims: Claim, vms: Any = None, **changes: Any) -> Observed:
    """All is well: the newest claim's VM runs, beats, trains. `claims`: one open claim where none is given."""
    claims = claims or (claim(),)
    record = Claims(
        attempts=claims, **{key: changes.pop(key) for key in ("want", "reason", "resumed_at_s") if key in changes}
    )
    made = Observed(
        now_s=NOW_S,
        claims=record,
        claims_at_s=NOW_S - 3000,
        vms=(vm(claims[-1].number),) if vms is None else vms,
        head=head(attempt=claims[-1].number),
        heartbeat_s=NOW_S - 8,
    )
    return replace(made, **changes)
