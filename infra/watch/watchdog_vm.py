"""The bucket's watchdog VM: small, standard, no GPU; it runs `baton watchdog run --all` in the project's image."""

import time
import uuid
from collections.abc import Sequence

import infra.cloud.access
from infra.cloud.access import explained, explanation
from infra.cloud.types import CloudError, Operation, OperationKind, Trouble, TroubleKind, Vm, VmStatus
from infra.naming import watchdog_account, watchdog_labels, watchdog_name
from infra.watch.orders import watchdog_order, zones_near
from job.errors import Transient
from job.run.spec import SUBNET
from job.storage import open_bucket

LOOK_EVERY_S = 1.0
PATIENCE_S = 300.0
ELSEWHERE = (TroubleKind.STOCKOUT, TroubleKind.UNSUPPORTED)
"""Refusals that the next zone helps against."""


def find_watchdog(bucket_uri: str, project: str) -> Vm | None:
    """The watchdog VM of a bucket in whatever state, None where there is none. Raises BatonError."""
    with explained(project, "looking for the watchdog"):
        found = infra.cloud.access.open_cloud(project).list_vms(watchdog_labels(bucket_uri))
    name = watchdog_name(bucket_uri)
    return next((vm for vm in found.vms if vm.name == name), None)


def watches(vm: Vm | None) -> bool:
    """Whether it does, or is about to: one that stops or has stopped does not."""
    return vm is not None and vm.status in (VmStatus.STARTING, VmStatus.RUNNING)


def watchdog_zones(bucket_uri: str) -> tuple[str, ...]:
    """The zones of the bucket's region, where that is told; then those of another."""
    return zones_near(open_bucket(f"{bucket_uri}/runs").location())


def ensure_watchdog(bucket_uri: str, project: str, image: str, subnet: str = SUBNET) -> Vm | None:
    """Somebody watches before money is spent: the watchdog VM that had to be created, None where one watches already.
    Raises BatonError."""
    if watches(find_watchdog(bucket_uri, project)):
        return None
    account = watchdog_account(project)
    zones = watchdog_zones(bucket_uri)
    return create_watchdog(bucket_uri, project, zones, image=image, service_account=account, subnet=subnet)


def remove_watchdog(bucket_uri: str, project: str) -> None:
    """Deletes the watchdog VM in whatever state; returns when the cloud has none any more. Raises BatonError."""
    until_s = time.monotonic() + PATIENCE_S
    while (found := find_watchdog(bucket_uri, project)) is not None:
        if time.monotonic() > until_s:
            raise Transient(f"{found.name} is still being deleted.", fix="Look again: baton watchdog status")
        if found.status is not VmStatus.STOPPING:
            with explained(project, f"deleting {found.name}"):
                infra.cloud.access.open_cloud(project).delete(found.zone, found.name)
        time.sleep(LOOK_EVERY_S)


def create_watchdog(
    bucket_uri: str, project: str, zones: Sequence[str], *, image: str, service_account: str, subnet: str = SUBNET
) -> Vm:
    """Asks for it, in the first of these zones that has room, and waits until the cloud shows it running. One that has
    stopped makes way first. Raises BatonError; two at once make one.
    """
    found = find_watchdog(bucket_uri, project)
    if found is not None and not watches(found):
        remove_watchdog(bucket_uri, project)
    refused: Trouble | None = None
    for zone in zones:
        made = _create(bucket_uri.rstrip("/"), project, zone, image, service_account, subnet)
        if isinstance(made, Vm):
            return made
        refused = made
    assert refused is not None, "no zone was named"
    raise explanation(refused, project, f"creating {watchdog_name(bucket_uri)} in {', '.join(zones)}")


def _create(bucket: str, project: str, zone: str, image: str, service_account: str, subnet: str) -> Vm | Trouble:
    """The VM that runs in this zone, or that there is none to be had. Raises BatonError."""
    order = watchdog_order(
        bucket,
        project,
        zone,
        image=image,
        service_account=service_account,
        request_id=str(uuid.uuid4()),
        subnet=subnet,
    )
    cloud = infra.cloud.access.open_cloud(project)
    doing = f"creating {order.name} in {zone}"
    with explained(project, doing):
        trouble = cloud.insert(order).trouble
    until_s = time.monotonic() + PATIENCE_S
    while trouble is None:
        try:
            vm = cloud.get_vm(zone, order.name)
            if vm is not None and vm.status is VmStatus.RUNNING:
                return vm
            if vm is None:
                trouble = _refusal(cloud.operations(zone, order.name))
        except CloudError as error:
            if error.trouble.kind is not TroubleKind.UNAVAILABLE:
                trouble = error.trouble
        if time.monotonic() > until_s:
            raise Transient(f"{order.name} does not run yet.", fix="Look again: baton watchdog status")
        time.sleep(LOOK_EVERY_S)
    if trouble.kind in ELSEWHERE:
        return trouble
    raise explanation(trouble, project, doing)


def _refusal(operations: tuple[Operation, ...]) -> Trouble | None:
    """What the insert ended with."""
    inserts = [op for op in operations if op.kind is OperationKind.INSERT]
    return inserts[-1].trouble if inserts else None
