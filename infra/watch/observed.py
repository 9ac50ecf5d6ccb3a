"""What a watchdog knows of a run at one moment. Each look is a value, or says that it failed: unknown is not gone."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from infra.cloud.types import Operation, OperationKind, Vm
from infra.expected import NETWORK_SHARE, UNKNOWN_WORK, Work
from infra.plan import Offer
from job.run.claims import Claim, Claims
from job.run.costs import TAIL_S
from job.run.exit import ContainerExit
from job.run.head import Head
from job.run.spec import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """A look that failed. Nothing follows from it."""

    why: str = ""


@dataclass(frozen=True)
class Damaged:
    """An object that is no such record. A VM wrote it: it stops or delays that VM, at most."""

    why: str = ""


@dataclass(frozen=True)
class Foreign:
    """A VM of the claim's name without its labels: somebody else's, or our own whose labels somebody took off. It is
    never touched."""

    vm: Vm


@dataclass(frozen=True)
class Dated(Generic[T]):
    """A record and the bucket's time of its last write."""

    record: T
    at_s: float


@dataclass(frozen=True)
class Wanted:
    """What control/spec says of the run's VMs, and what the allow-list offers for it."""

    run_uri: str
    machine: Machine | None
    """None: a run of processes that people start; watchdogs leave it alone."""
    spot: tuple[Offer, ...] = ()
    """The best first."""
    on_demand: tuple[Offer, ...] = ()
    max_steps: int | None = None
    """For the deadline; None where it is not known."""
    work: Work = UNKNOWN_WORK
    """All of the run, as its cost depends on it."""


@dataclass(frozen=True)
class Observed:
    """All that was seen in one look."""

    now_s: float
    claims: Claims
    claims_at_s: float
    """When they were last written, by the bucket's clock."""
    vms: tuple[Vm, ...] | Unknown
    """All with the run's label, in all zones."""
    unreachable: frozenset[str] = frozenset()
    """Zones and regions that the list could not reach."""
    operations: tuple[Operation, ...] | Unknown = Unknown("not asked for")
    """On the newest claim's VM."""
    looked_up: Vm | Foreign | Unknown | None = Unknown("not asked for")
    """The newest claim's VM, asked for by its name, where the list does not have it."""
    head: Dated[Head] | Unknown | Damaged | None = None
    heartbeat_s: float | Unknown | None = None
    """When the newest claim's attempt last gave a sign of life, by the bucket's clock. What it says is not asked."""
    exit: Dated[ContainerExit] | Unknown | Damaged | None = None
    """Of the newest claim."""

    def vm_of(self, claim: Claim) -> Vm | Unknown | None:
        """The claim's VM by the list; unknown also where its zone was not reached."""
        if isinstance(self.vms, Unknown):
            return self.vms
        for vm in self.vms:
            if vm.name == claim.vm and vm.zone == claim.zone:
                return vm
        zone = claim.zone or ""
        if zone in self.unreachable or zone.rpartition("-")[0] in self.unreachable:
            return Unknown(f"{zone} did not answer")
        return None

    def with_own_exit(self, vm: Vm | Unknown | None) -> "Observed":
        """Without an exit.json from before `vm`, the newest claim's: another VM wrote it, and tells nothing of this."""
        asked = [] if isinstance(self.operations, Unknown) else self.operations
        began_s = [vm.created_s] if isinstance(vm, Vm) else [o.at_s for o in asked if o.kind is OperationKind.INSERT]
        foreign = isinstance(self.exit, Dated) and began_s and self.exit.at_s < min(began_s)
        return replace(self, exit=None) if foreign else self

    def head_record(self) -> Head | None:
        """Head where it could be read."""
        return self.head.record if isinstance(self.head, Dated) else None


@dataclass(frozen=True)
class Policy:
    """How patient a watchdog is. Seconds, but for what is named otherwise."""

    boot_s: float = 1200.0
    """From a VM's start to its first sign of life: an image of 20 GB is pulled and unpacked in it."""
    superfluous_s: float = 600.0
    """After which a VM with our labels that no claim knows is deleted: one boot."""
    silent_s: float = 300.0
    """Without a sign of life, while the VM runs. Heartbeats come every 10 s."""
    doubt_s: float = 60.0
    """Between the look that first misses something and the one that believes it."""
    fresh_s: float = 45.0
    """Age of a heartbeat that proves that a VM lives, whatever the cloud says."""
    grace_s: float = 600.0
    """For which an open claim whose VM nobody has seen is asked for again, and nothing else is."""
    insert_s: float = 1800.0
    """For which an insert that is under way is waited for."""
    leave_s: float = 60.0
    """For a VM to be gone after its end: the platform's own 30 s, then a little."""
    finish_s: float = 60.0
    """For a VM to power off by itself after head says finished."""
    stop_s: float = 180.0
    """For an attempt to hear that it is not wanted, save what it has and go."""
    failures: int = 3
    """In a row, without a new durable step between them: the run has failed."""
    stockout_s: float = 600.0
    """For which a zone without capacity is left alone; half as long again each time, up to three times."""
    shunned_s: float = 1800.0
    """For which a zone is liked less that preempted, or had a sick GPU or host."""
    quota_s: float = 6 * 3600.0
    """For which a region without quota is left alone; a person's resume ends it."""
    unsupported_s: float = 7 * 24 * 3600.0
    """For which a zone is left alone that has no such machine."""
    retry_s: float = 60.0
    """Before the next try after an end that nobody explains; doubled each time."""
    retry_most_s: float = 1800.0
    waiting_s: float = 300.0
    """After exit 76; doubled each time up to `waiting_most_s`, which also bounds what a head may ask for."""
    waiting_most_s: float = 3600.0
    tail_s: float = TAIL_S
    """That a VM is paid for after its end was recorded, at most."""
    shortest_s: float = 600.0
    """Boot, restore and a step: a VM that the cap would end earlier is not worth its money."""
    spot_again_s: float = 4 * 3600.0
    """After which an on-demand VM that was taken for want of a spot one makes way for another try."""
    network_share: float = NETWORK_SHARE
    """Of the machine's price, what checkpoints to a bucket elsewhere may cost in traffic (docs/design.md)."""
    deadline_margin: float = 1.25
    """How much longer than at the pace so far the rest may take."""


@dataclass(frozen=True)
class Blocked:
    """Where no VM is asked for now, until when, and why."""

    where: str
    until_s: float
    why: str
