"""What the cloud remembers: VMs, and what was done to them. Both survive the server, as lines of a journal."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.localcloud.compute.catalog import MACHINE_TYPES, MachineType
from infra.localcloud.compute.errors import OperationError

PACIFIC_S = -8 * 3600
"""Compute Engine tells times as they are in California."""
ON = ("PROVISIONING", "STAGING", "RUNNING", "STOPPING")
"""States in which a VM holds its machine."""


@dataclass(frozen=True)
class Instance:
    """One VM."""

    id: int
    name: str
    zone: str
    machine_type: str
    resource: dict[str, Any]
    """As it was asked for, its defaults filled in."""
    status: str
    created_s: float
    started_s: float | None = None
    """When it last began to run."""
    stopped_s: float | None = None
    status_message: str = ""

    @property
    def scheduling(self) -> dict[str, Any]:
        """Its scheduling, as in the API."""
        found: dict[str, Any] = self.resource["scheduling"]
        return found

    @property
    def spot(self) -> bool:
        """Whether it may be preempted."""
        return bool(self.scheduling["preemptible"])

    @property
    def type(self) -> MachineType:
        """Its machine type."""
        return MACHINE_TYPES[self.machine_type]

    @property
    def gpus(self) -> tuple[str, int]:
        """(type, number) of its GPUs; ("", 0) without any."""
        for accelerator in self.resource.get("guestAccelerators", []):
            return last(accelerator["acceleratorType"]), int(accelerator["acceleratorCount"])
        return "", 0

    @property
    def deletes_itself(self) -> bool:
        """Whether preemption and the end of its time delete it; else they stop it."""
        return self.scheduling.get("instanceTerminationAction") == "DELETE"

    @property
    def max_run_s(self) -> float | None:
        """How long it may run."""
        return _seconds(self.scheduling.get("maxRunDuration"))

    @property
    def notice_s(self) -> float:
        """How long before the ACPI signal the metadata server tells of a preemption."""
        return _seconds(self.scheduling.get("preemptionNoticeDuration")) or 0.0

    @property
    def ends_at_s(self) -> float | None:
        """When its time is over; None for one that has no limit or does not run."""
        if self.max_run_s is None or self.started_s is None or self.status != "RUNNING":
            return None
        return self.started_s + self.max_run_s

    @property
    def attributes(self) -> dict[str, str]:
        """Its metadata."""
        items: list[dict[str, str]] = self.resource.get("metadata", {}).get("items", [])
        return {item["key"]: item.get("value", "") for item in items}

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.resource.get("labels", {}))

    @property
    def service_account(self) -> tuple[str | None, tuple[str, ...]]:
        """(address, scopes)."""
        for account in self.resource.get("serviceAccounts", []):
            return account["email"], tuple(account.get("scopes", ()))
        return None, ()


@dataclass(frozen=True)
class Operation:
    """Something that is done to a VM."""

    id: int
    name: str
    zone: str
    kind: str
    """operationType: insert, delete, compute.instances.preempted..."""
    target: str
    target_id: int
    user: str
    status: str
    inserted_s: float
    started_s: float | None = None
    ended_s: float | None = None
    error: OperationError | None = None
    request_id: str = ""
    status_message: str = ""

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self.status == "DONE"


@dataclass(frozen=True)
class Event:
    """What happened, for whoever follows it over /_control/events."""

    number: int
    at_s: float
    what: str
    vm: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return asdict(self)


def last(url: str) -> str:
    """The name at the end of a resource's URL."""
    return url.rstrip("/").rpartition("/")[2]


def timestamp(at_s: float) -> str:
    """RFC 3339, as Compute Engine writes it."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s + PACIFIC_S))
    return f"{whole}.{int(at_s * 1000) % 1000:03d}-08:00"


def operation_from_json(data: dict[str, Any]) -> Operation:
    """An operation of the journal."""
    error = data["error"]
    if error is not None:
        error = OperationError(**{**error, "details": tuple(error["details"])})
    return Operation(**{**data, "error": error})


def _seconds(duration: dict[str, Any] | None) -> float | None:
    return None if duration is None else float(duration.get("seconds", 0)) + int(duration.get("nanos", 0)) / 1e9
