"""What a run's money bought: each VM's seconds as boot, restore, progress, work made again and the rest, in dollars.

VMs are told by claims, that is by the cloud's times; what happened within a VM's life is told by the attempt itself, so
it is cut to fit in.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

from infra.plan import offers
from job.run.claims import Claim, Claims, read_claims
from job.run.spec import Machine, Spec, read_spec
from job.storage import Bucket
from job.storage.prices import operations_usd
from job.views.attempts import AttemptView, View, where_words
from job.views.status import RunStatus, read_status

RESTORING = ("look", "restore", "import", "check", "model")
TRAINING = "train"
Part = Literal["boot", "restore", "progress", "lost", "other"]
PARTS: Mapping[Part, str] = {
    "boot": "creating, booting, pulling",
    "restore": "restore, imports, model",
    "progress": "steps that count",
    "lost": "steps made again",
    "other": "saving, leaving, waiting",
}


class AttemptCost(View):
    """One attempt with a VM."""

    number: int
    where: str
    how: str
    seconds: float
    """For which the VM is paid; of one that goes on, since its claim."""
    usd_per_hour: float | None
    usd: float | None
    on_demand_usd_per_hour: float | None
    """Of the same machine there, or where it is cheapest; None where no price is known."""
    seconds_by_part: dict[Part, float]


class RunCost(View):
    """What `baton cost` shows, and prints as JSON."""

    uri: str
    status: str
    durable_step: int | None
    usd: float
    """All that is below."""
    machines_usd: float
    usd_by_part: dict[Part, float]
    """Of `machines_usd`."""
    boot_disks_usd: float
    """Of `machines_usd`: the disks that VMs had. None is idle: each goes with its VM."""
    idle_disks_usd: float
    network_usd: float
    """Traffic between regions, by list prices."""
    storage_operations_usd: float
    judge_usd: float
    max_usd: float | None
    usd_per_step: float | None
    on_demand_usd: float | None
    """What on-demand VMs would have cost: one start, and the steps that count."""
    saved_share: float | None
    """Of that."""
    attempts: tuple[AttemptCost, ...]


def read_cost(bucket: Bucket) -> RunCost:
    """Looks at a run, reading only. Raises UsageError where there is no run."""
    return describe_cost(read_status(bucket), read_claims(bucket), read_spec(bucket))


def describe_cost(run: RunStatus, claims: Claims, spec: Spec | None) -> RunCost:
    """Puts together what was read; pure."""
    machine = None if spec is None else spec.machine
    claimed = {claim.number: claim for claim in claims.attempts}
    lost = {before.number: after.lost_steps for before, after in pairwise(run.attempts)}
    attempts = tuple(
        _attempt(attempt, claimed[attempt.number], lost.get(attempt.number, 0), machine)
        for attempt in run.attempts
        if attempt.kind == "vm" and attempt.number in claimed
    )
    by_part = {part: sum(_usd(a.seconds_by_part[part], a.usd_per_hour) for a in attempts) for part in PARTS}
    machines_usd = sum(attempt.usd or 0.0 for attempt in attempts)
    operations = operations_usd(run.storage)
    network = max(0.0, run.storage_usd - operations)
    usd = machines_usd + operations + network
    on_demand = _on_demand_usd(attempts)
    return RunCost(
        uri=run.uri,
        status=run.status,
        durable_step=run.durable_step,
        usd=usd,
        machines_usd=machines_usd,
        usd_by_part=by_part,
        boot_disks_usd=sum(_usd(a.seconds, _disk_usd(claimed[a.number], machine)) for a in attempts),
        idle_disks_usd=0.0,
        network_usd=network,
        storage_operations_usd=operations,
        judge_usd=0.0,
        max_usd=run.max_usd,
        usd_per_step=usd / run.durable_step if run.durable_step else None,
        on_demand_usd=on_demand,
        saved_share=None if not on_demand else 1 - usd / on_demand,
        attempts=attempts,
    )


def _attempt(attempt: AttemptView, claim: Claim, lost_steps: int, machine: Machine | None) -> AttemptCost:
    return AttemptCost(
        number=attempt.number,
        where=where_words(attempt),
        how=attempt.how,
        seconds=attempt.billed_s,
        usd_per_hour=claim.usd_per_hour,
        usd=attempt.usd,
        on_demand_usd_per_hour=_on_demand_usd_per_hour(claim, machine),
        seconds_by_part=seconds_by_part(attempt, claim, lost_steps),
    )


def seconds_by_part(attempt: AttemptView, claim: Claim, lost_steps: int) -> dict[Part, float]:
    """The seconds that are paid, all of them, each once; pure. `lost_steps`: that the next attempt made again."""
    left_s = attempt.billed_s

    def take(wanted_s: float) -> float:
        nonlocal left_s
        taken_s = min(max(0.0, wanted_s), left_s)
        left_s -= taken_s
        return taken_s

    began = attempt.incarnation is not None
    paid_from_s = claim.claimed_at_s
    if claim.ended is not None and claim.ended.ran_from_s is not None:
        paid_from_s = claim.ended.ran_from_s
    boot_s = take(attempt.started_at_s - paid_from_s if began else attempt.billed_s)
    restore_s = take(sum(attempt.phases_s.get(phase, 0.0) for phase in RESTORING))
    trained_s = attempt.phases_s.get(TRAINING, 0.0)
    kept = max(0, (attempt.last_step or 0) - (attempt.from_step or 0))
    made = kept + lost_steps
    lost_s = take(trained_s * lost_steps / made if made else trained_s)
    progress_s = take(trained_s - lost_s)
    return {"boot": boot_s, "restore": restore_s, "progress": progress_s, "lost": lost_s, "other": left_s}


def _on_demand_usd(attempts: tuple[AttemptCost, ...]) -> float | None:
    """One start, the dearest, and the steps that count, at on-demand prices; None where one is not known."""
    running = [attempt for attempt in attempts if attempt.seconds > 0]
    if not running or any(attempt.on_demand_usd_per_hour is None for attempt in running):
        return None
    worked = sum(_usd(a.seconds_by_part["progress"], a.on_demand_usd_per_hour) for a in running)
    starts = [_usd(a.seconds_by_part["boot"] + a.seconds_by_part["restore"], a.on_demand_usd_per_hour) for a in running]
    return worked + max(starts)


def _on_demand_usd_per_hour(claim: Claim, machine: Machine | None) -> float | None:
    if machine is None or claim.machine_type is None:
        return None
    if claim.spot is False:
        return claim.usd_per_hour
    known = offers(machine.gpu, False, machine_types=(claim.machine_type,), boot_disk_gb=machine.boot_disk_gb)
    here = [offer.usd_per_hour for offer in known if offer.zone == claim.zone]
    return min(here or [offer.usd_per_hour for offer in known], default=None)


def _disk_usd(claim: Claim, machine: Machine | None) -> float:
    """Of the VM's boot disk, an hour."""
    if machine is None or claim.machine_type is None:
        return 0.0
    places = () if claim.zone is None else (claim.zone,)
    types, gb = (claim.machine_type,), machine.boot_disk_gb
    known = offers(machine.gpu, claim.spot is not False, places, machine_types=types, boot_disk_gb=gb)
    return known[0].disk_usd if known else 0.0


def _usd(seconds: float, usd_per_hour: float | None) -> float:
    return (usd_per_hour or 0.0) * seconds / 3600
