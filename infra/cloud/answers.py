"""Compute Engine's answers in our types: VMs, operations, errors. Reads the client's messages, imports none of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from infra.cloud.errors import Said, classify, classify_all
from infra.cloud.types import Advice, Disk, Operation, OperationKind, Trouble, Vm, VmStatus

_STATUS = {
    "RUNNING": VmStatus.RUNNING,
    "PENDING": VmStatus.STARTING,
    "PROVISIONING": VmStatus.STARTING,
    "STAGING": VmStatus.STARTING,
    "REPAIRING": VmStatus.STARTING,
    "TERMINATED": VmStatus.STOPPED,
    "STOPPED": VmStatus.STOPPED,
    "SUSPENDED": VmStatus.STOPPED,
}
_KINDS = {
    "insert": OperationKind.INSERT,
    "compute.instances.insert": OperationKind.INSERT,
    "delete": OperationKind.DELETE,
    "stop": OperationKind.STOP,
    "start": OperationKind.START,
    "compute.instances.preempted": OperationKind.PREEMPTED,
    "compute.instances.hostError": OperationKind.HOST_ERROR,
    "compute.instances.terminateOnHostMaintenance": OperationKind.HOST_ERROR,
    "compute.instances.automaticRestart": OperationKind.HOST_ERROR,
    "compute.instances.guestTerminate": OperationKind.GUEST,
}


def advice_of(response: Any) -> Advice | None:
    """The first recommendation of a CapacityAdviceResponse; None where there is none."""
    for recommendation in response.recommendations:
        scores = recommendation.scores
        uptime = scores.estimated_uptime.removesuffix("s") if "estimated_uptime" in scores else ""
        return Advice(
            obtainability=min(1.0, max(0.0, scores.obtainability)) if "obtainability" in scores else None,
            uptime_s=float(uptime) if uptime.replace(".", "", 1).isdigit() else None,
        )
    return None


def vm_status(said: str) -> VmStatus:
    """What the service's word for the state of a VM means."""
    return _STATUS.get(said, VmStatus.STOPPING)


def vm_of(instance: Any) -> Vm:
    """An Instance."""
    return Vm(
        name=instance.name,
        zone=last_part(instance.zone),
        status=vm_status(instance.status),
        instance_id=str(instance.id),
        machine_type=last_part(instance.machine_type),
        spot=instance.scheduling.provisioning_model == "SPOT" or instance.scheduling.preemptible,
        labels=dict(instance.labels),
        created_s=_time(instance.creation_timestamp) or 0.0,
        started_s=_time(instance.last_start_timestamp),
        stopped_s=_time(instance.last_stop_timestamp),
    )


def disk_of(disk: Any) -> Disk:
    """A Disk."""
    return Disk(
        name=disk.name,
        zone=last_part(disk.zone),
        labels=dict(disk.labels),
        size_gb=int(disk.size_gb),
        created_s=_time(disk.creation_timestamp) or 0.0,
        users=tuple(last_part(user) for user in disk.users),
    )


def operation_of(found: Any) -> Operation:
    """An Operation, with why it failed once it is done."""
    kind = _KINDS.get(found.operation_type, OperationKind.OTHER)
    done = found.status == type(found).Status.DONE
    return Operation(
        name=found.name,
        kind=kind,
        done=done,
        user=found.user,
        instance_id=str(found.target_id) if found.target_id else "",
        at_s=_time(found.insert_time) or 0.0,
        ended_s=_time(found.end_time),
        trouble=_operation_trouble(found, creating=kind is OperationKind.INSERT) if done else None,
        request_id=found.client_operation_id,
    )


def http_trouble(error: Any, *, creating: bool) -> Trouble:
    """What a GoogleAPICallError means. `creating`: of an insert."""
    status = None if error.code is None else int(error.code)
    said = [
        Said(str(one.get("reason") or ""), str(one.get("message") or error.message), status)
        for one in error.errors
        if isinstance(one, Mapping)
    ]
    found = classify_all(said, creating=creating)
    return found if found is not None else classify(Said("", str(error.message), status), creating=creating)


def last_part(url: str) -> str:
    """The name at the end of a URL."""
    return url.rstrip("/").rpartition("/")[2]


def _operation_trouble(found: Any, *, creating: bool) -> Trouble | None:
    said = [_said(error, found.http_error_status_code) for error in found.error.errors]
    if not said and found.http_error_status_code >= 400:
        said = [Said("", found.http_error_message, found.http_error_status_code)]
    return classify_all(said, creating=creating)


def _said(error: Any, status: int) -> Said:
    quota = next((detail.quota_info for detail in error.error_details if detail.quota_info.metric_name), None)
    return Said(
        error.code,
        error.message,
        status or None,
        metric=None if quota is None else quota.metric_name,
        limit=None if quota is None else quota.limit,
        dimensions={} if quota is None else dict(quota.dimensions),
    )


def _time(text: str) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
