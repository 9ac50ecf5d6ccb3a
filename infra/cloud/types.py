"""What the cloud is asked for and what it answers, in our words: the border between infra/compute.py and whoever
decides. No file but infra/compute.py knows how Google says these things."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class VmStatus(StrEnum):
    """Google's words for the state of a VM, joined where nobody here needs the difference."""

    STARTING = "starting"
    """PENDING, PROVISIONING, STAGING, REPAIRING."""
    RUNNING = "running"
    STOPPING = "stopping"
    """PENDING_STOP, STOPPING, SUSPENDING, DEPROVISIONING: it may still run, and write."""
    STOPPED = "stopped"
    """TERMINATED, STOPPED, SUSPENDED: nothing runs, the disk is paid for."""


@dataclass(frozen=True)
class Vm:
    """One VM as a list or a look shows it."""

    name: str
    zone: str
    status: VmStatus
    instance_id: str
    """The cloud's number: another VM of the same name has another one."""
    machine_type: str
    spot: bool
    labels: Mapping[str, str]
    created_s: float
    """Seconds since the epoch, as all times here, by the cloud's clock."""
    started_s: float | None = None
    """When it was last started (lastStartTimestamp): from then on it is paid for."""
    stopped_s: float | None = None
    """When it last stopped (lastStopTimestamp)."""


@dataclass(frozen=True)
class VmList:
    """All VMs with a label, in all zones, by one request."""

    vms: tuple[Vm, ...]
    unreachable: frozenset[str] = frozenset()
    """Zones and regions that did not answer: what is not listed there may be there all the same."""


class OperationKind(StrEnum):
    """What was done to a VM."""

    INSERT = "insert"
    DELETE = "delete"
    STOP = "stop"
    START = "start"
    PREEMPTED = "preempted"
    """compute.instances.preempted."""
    HOST_ERROR = "host error"
    """compute.instances.hostError, terminateOnHostMaintenance, automaticRestart."""
    GUEST = "guest"
    """compute.instances.guestTerminate: it was powered off from inside."""
    OTHER = "other"


class TroubleKind(StrEnum):
    """Why the cloud does not do what it is asked, by what there is to do about it."""

    STOCKOUT = "stockout"
    """No capacity in the zone: another zone, and this one later."""
    UNSUPPORTED = "unsupported"
    """The zone has no such machine: never ask there again."""
    QUOTA = "quota"
    """Of the region: another region, and a person asks for more."""
    QUOTA_EVERYWHERE = "quota everywhere"
    """Of the project: no region helps."""
    RATE_LIMIT = "rate limit"
    """Asked too often: later, and slower."""
    NOT_READY = "not ready"
    """Something of that name is still going away: later."""
    PREEMPTED = "preempted"
    """Taken back while it was being created."""
    TAKEN = "taken"
    """The name is in use (409). insert adopts its own VM; this is somebody else's."""
    NOT_FOUND = "not found"
    """No such VM."""
    CREDENTIALS = "credentials"
    """Missing or expired (401): a person signs in again."""
    FORBIDDEN = "forbidden"
    """A role is missing (403): a person grants it."""
    INVALID = "invalid"
    """The request itself is wrong (400): the same one never succeeds."""
    UNAVAILABLE = "unavailable"
    """5xx, time-outs, no network: nothing is known of what was asked."""


@dataclass(frozen=True)
class Trouble:
    """An answer that is none, or a refusal; of an HTTP reply or inside an operation."""

    kind: TroubleKind
    code: str
    """The cloud's own, e.g. ZONE_RESOURCE_POOL_EXHAUSTED."""
    message: str
    """The cloud's words, for people."""
    metric: str | None = None
    """Of a quota."""
    region: str | None = None
    limit: float | None = None


class CloudError(Exception):
    """Raised by every method of Cloud, and by nothing else."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(f"{trouble.code}: {trouble.message}")
        self.trouble = trouble


@dataclass(frozen=True)
class Operation:
    """Something that was done to a VM, or is being done."""

    name: str
    kind: OperationKind
    done: bool
    user: str
    """Who asked: an account's address; `system` for the platform."""
    instance_id: str
    """Of the VM; empty where the cloud does not say."""
    at_s: float
    """When it was asked for."""
    ended_s: float | None = None
    trouble: Trouble | None = None
    """Why it failed; None when it succeeded or is not done."""
    request_id: str = ""
    """The request's own, where it named one."""

    @property
    def by_platform(self) -> bool:
        """Whether no person and no watchdog asked for it."""
        return self.user in ("", "system")


@dataclass(frozen=True)
class VmOrder:
    """A VM to be created, whole; infra/watch/orders.py makes it from control/ and the allow-list."""

    name: str
    zone: str
    machine_type: str
    spot: bool
    boot_image: str
    """`project/family` or full name."""
    boot_disk_gb: int
    service_account: str
    subnet: str
    """Of that name in every region: no VM has an address outside it."""
    request_id: str
    """UUID: asking twice makes one VM."""
    labels: Mapping[str, str]
    accelerator: str | None = None
    """Type of the GPU where the machine type does not imply it (n1 + nvidia-tesla-t4)."""
    boot_disk_type: str = "pd-balanced"
    notice_s: int = 0
    """preemption_notice_duration; 0 or 120, spot only."""
    max_run_s: int | None = None
    """After which the platform deletes it; None: never (a watchdog's own VM)."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Instance metadata: startup-script, baton-role, baton-run, baton-attempt, baton-image, baton-gpu. No secrets."""


class Cloud(Protocol):
    """What is asked of Compute Engine, in one project. Every method raises CloudError, and only that.

    None of them waits for an operation: whoever decides looks again. All of them may be called twice.
    """

    project: str

    def list_vms(self, labels: Mapping[str, str]) -> VmList:
        """All VMs with these labels, whatever their zone, by one aggregated list (as many pages as it has)."""

    def get_vm(self, zone: str, name: str) -> Vm | None:
        """One VM; None when the cloud says that there is none of that name in that zone."""

    def operations(self, zone: str, name: str, instance_id: str | None = None) -> tuple[Operation, ...]:
        """What was done to the VM of that name, oldest first, also when it is gone. With `instance_id`: to that one
        only, the platform's own doings included (those are found by the number only)."""

    def insert(self, order: VmOrder) -> Operation:
        """Asks for a VM. The same request_id gives the same operation; a VM of that name that carries the order's
        labels is adopted: its operation is done. Raises CloudError with TAKEN for one that does not."""

    def delete(self, zone: str, name: str) -> None:
        """Asks for the end of a VM and its disks; one that is gone, or on its way, is no error."""

    def stop(self, zone: str, name: str) -> None:
        """Asks a VM to stop, by ACPI first; one that is gone or has stopped is no error."""


@dataclass(frozen=True)
class Disk:
    """One persistent disk as a list shows it."""

    name: str
    zone: str
    labels: Mapping[str, str]
    size_gb: int
    created_s: float
    users: tuple[str, ...] = ()
    """Names of the VMs that it is attached to."""


@dataclass(frozen=True)
class Advice:
    """What the cloud estimates of spot VMs of one machine type in one zone, now. Best effort, it says."""

    obtainability: float | None
    """How likely one is to be had: 0.7 and more is high, 0.3 and less low."""
    uptime_s: float | None
    """That most of them run at least before they are preempted: 3600, 600 or 60."""


class HandsOn(Cloud, Protocol):
    """What the commands of people ask for beside: no watchdog ever does."""

    def dated_image(self, boot_image: str) -> str:
        """The image that `project/family` means today, by its full name; a full name as it is."""

    def preempt(self, zone: str, name: str) -> None:
        """Has the platform treat a spot VM as at a preemption: notice where it was asked for, stop, end
        (instances.simulateMaintenanceEvent). Returns when that is asked for."""

    def list_disks(self, labels: Mapping[str, str]) -> tuple[Disk, ...]:
        """All disks with these labels, attached or not, whatever their zone."""

    def delete_disk(self, zone: str, name: str) -> None:
        """Asks for the end of a disk; one that is gone is no error. One that is attached is refused."""

    def advice(self, zone: str, machine_type: str) -> Advice | None:
        """How likely a spot VM is to be had there now, and to last (advice.capacity); None where it does not say."""
