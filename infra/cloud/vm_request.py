"""The one request that spends money, as it goes over the wire: instances.insert of Compute Engine v1 as plain JSON.

infra/compute.py sends exactly this; `baton launch --dry-run` prints it. Whole numbers of 64 bits are strings there.
"""

from dataclasses import dataclass
from typing import Any

from infra.cloud.types import VmOrder
from infra.naming import region_of

SERVICE = "https://compute.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""Rights are the account's roles; a narrower scope would hide Secret Manager and Artifact Registry."""
LOGIN = {"block-project-ssh-keys": "TRUE", "enable-oslogin": "TRUE"}
"""Who may log in says IAM; keys that lie in the project's metadata open nothing."""


@dataclass(frozen=True)
class InsertRequest:
    """What instances.insert is asked."""

    project: str
    zone: str
    request_id: str
    body: dict[str, Any]

    @property
    def path(self) -> str:
        """Path and query."""
        return f"/compute/v1/projects/{self.project}/zones/{self.zone}/instances?requestId={self.request_id}"


def insert_request(order: VmOrder, project: str) -> InsertRequest:
    """The request for an order; pure."""
    attributes = {**LOGIN, **order.attributes}
    body: dict[str, Any] = {
        "name": order.name,
        "machineType": f"zones/{order.zone}/machineTypes/{order.machine_type}",
        "labels": dict(order.labels),
        "scheduling": _scheduling(order),
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {
                    "sourceImage": image_path(order.boot_image),
                    "diskSizeGb": str(order.boot_disk_gb),
                    "diskType": f"zones/{order.zone}/diskTypes/{order.boot_disk_type}",
                    "labels": dict(order.labels),
                },
            }
        ],
        # Without accessConfigs it has no external address.
        "networkInterfaces": [{"subnetwork": f"regions/{region_of(order.zone)}/subnetworks/{order.subnet}"}],
        "serviceAccounts": [{"email": order.service_account, "scopes": [SCOPE]}],
        "metadata": {"items": [{"key": key, "value": attributes[key]} for key in sorted(attributes)]},
    }
    if order.accelerator is not None:
        kind = f"zones/{order.zone}/acceleratorTypes/{order.accelerator}"
        body["guestAccelerators"] = [{"acceleratorType": kind, "acceleratorCount": 1}]
    return InsertRequest(project, order.zone, order.request_id, body)


def advice_request(zone: str, machine_type: str) -> dict[str, Any]:
    """What advice.capacity is asked of one spot VM in one zone, in the client's words; pure."""
    return {
        "region": zone.rpartition("-")[0],
        "capacity_advice_request_resource": {
            "size": 1,
            "instance_properties": {"scheduling": {"provisioning_model": "SPOT"}},
            "instance_flexibility_policy": {"instance_selections": {"one": {"machine_types": [machine_type]}}},
            "distribution_policy": {"target_shape": "ANY_SINGLE_ZONE", "zones": [{"zone": f"zones/{zone}"}]},
        },
    }


def image_path(boot_image: str) -> str:
    """`project/family` as the newest image of that family; a full name as it is."""
    if boot_image.startswith("projects/"):
        return boot_image
    project, _, family = boot_image.partition("/")
    return f"projects/{project}/global/images/family/{family}"


def _scheduling(order: VmOrder) -> dict[str, Any]:
    """Nothing that the platform restarts by itself beside us, and nothing that stays to be paid for."""
    if order.max_run_s is None and not order.spot:
        return {"provisioningModel": "STANDARD", "automaticRestart": True, "onHostMaintenance": "MIGRATE"}
    scheduling: dict[str, Any] = {
        "provisioningModel": "SPOT" if order.spot else "STANDARD",
        "instanceTerminationAction": "DELETE",
        "automaticRestart": False,
        "onHostMaintenance": "TERMINATE",
    }
    if order.spot and order.notice_s:
        scheduling["preemptionNoticeDuration"] = {"seconds": str(order.notice_s)}
    if order.max_run_s is not None:
        scheduling["maxRunDuration"] = {"seconds": str(order.max_run_s)}
    return scheduling
