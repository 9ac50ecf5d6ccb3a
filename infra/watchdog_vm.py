"""The bucket's watchdog VM: small, standard, no GPU; it runs `baton watchdog run --all` in the project's image."""

import time
import uuid

import infra.clouds
from infra.cloud_types import CloudError, Operation, OperationKind, TroubleKind, Vm, VmStatus
from infra.clouds import explained, explanation
from infra.naming import region_of, watchdog_labels, watchdog_name
from infra.orders import watchdog_order
from infra.plan import offers
from job.errors import Transient
from job.storage import open_bucket

LOOK_EVERY_S = 1.0
PATIENCE_S = 300.0
ANYWHERE = "us-central1-a"


def find_watchdog(bucket_uri: str, project: str) -> Vm | None:
    """The watchdog VM of a bucket, None where there is none. Raises BatonError."""
    with explained(project, "looking for the watchdog"):
        found = infra.clouds.open_cloud(project).list_vms(watchdog_labels(bucket_uri))
    name = watchdog_name(bucket_uri)
    return next((vm for vm in found.vms if vm.name == name and vm.status is not VmStatus.STOPPING), None)


def watchdog_zone(bucket_uri: str) -> str:
    """A zone in the bucket's region; any where its location is none, or is not told."""
    location = (open_bucket(f"{bucket_uri}/runs").location() or "").lower()
    known = sorted({offer.zone for spot in (True, False) for gpu in ("l4", "t4") for offer in offers(gpu, spot)})
    here = [zone for zone in known if region_of(zone) == location]
    return here[0] if here else ANYWHERE


def create_watchdog(bucket_uri: str, project: str, zone: str, *, image: str, service_account: str) -> Vm:
    """Asks for it and waits until the cloud shows it running. Raises BatonError; two at once make one."""
    bucket = bucket_uri.rstrip("/")
    order = watchdog_order(
        bucket, project, zone, image=image, service_account=service_account, request_id=str(uuid.uuid4())
    )
    cloud = infra.clouds.open_cloud(project)
    doing = f"creating {order.name} in {zone}"
    with explained(project, doing):
        operation = cloud.insert(order)
    if operation.trouble is not None:
        raise explanation(operation.trouble, project, doing)
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        try:
            vm = cloud.get_vm(zone, order.name)
            if vm is not None and vm.status is VmStatus.RUNNING:
                return vm
            if vm is None:
                _raise_refusal(cloud.operations(zone, order.name), project, doing)
        except CloudError as error:
            if error.trouble.kind is not TroubleKind.UNAVAILABLE:
                raise explanation(error.trouble, project, doing) from None
        time.sleep(LOOK_EVERY_S)
    raise Transient(f"{order.name} does not run yet.", fix="Look again: baton watchdog status")


def _raise_refusal(operations: tuple[Operation, ...], project: str, doing: str) -> None:
    inserts = [op for op in operations if op.kind is OperationKind.INSERT]
    if inserts and inserts[-1].trouble is not None:
        raise explanation(inserts[-1].trouble, project, doing)
