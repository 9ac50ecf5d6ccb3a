"""The VMs that are created: from control/ and the project's own allow-list, from nothing else. Pure but for reading the
files that every VM boots with."""

import re

from infra.cloud.types import VmOrder
from infra.machines import machine_types, machines
from infra.naming import region_of, run_labels, watchdog_labels, watchdog_name
from infra.plan import offers
from infra.vm import boot_attributes
from job.errors import NeedsPerson
from job.run.claims import Claim
from job.run.spec import SUBNET, Machine

PINNED = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")
_BOOT_IMAGE = re.compile(r"(?:projects/)?(?P<project>[a-z][a-z0-9.:-]*)/(?:global/images/)?[a-z][a-z0-9-]*")
_SUBNET = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LONGEST_RUN_S = 120 * 24 * 3600
"""What maxRunDuration takes at most."""
SHORTEST_RUN_S = 30
ANYWHERE = "us-central1"
MOST_USD_PER_HOUR = 25.0
"""The dearest machine with one GPU costs less than half of it; one that is dearer is a mistake, or worse."""


def attempt_order(run_uri: str, machine: Machine, claim: Claim, max_run_s: int) -> VmOrder:
    """The VM of a claim. Raises NeedsPerson for what is not on the allow-list: machine, images, price."""
    assert claim.vm is not None
    assert claim.zone is not None
    assert claim.request_id is not None
    known = machine_types().get(claim.machine_type or "")
    if known is None or known.gpus != 1:
        raise _refused(run_uri, claim, f"{claim.machine_type} is no machine of machines.toml with one GPU")
    if not PINNED.fullmatch(machine.image):
        raise _refused(run_uri, claim, f"{machine.image!r} is not a container image by its digest")
    image = _BOOT_IMAGE.fullmatch(machine.boot_image)
    if image is None or image["project"] not in (machine.project, machines().boot_image.partition("/")[0]):
        raise _refused(run_uri, claim, f"the boot image {machine.boot_image!r} is neither the project's nor Google's")
    if claim.usd_per_hour is None or not 0 < claim.usd_per_hour <= MOST_USD_PER_HOUR:
        raise _refused(run_uri, claim, f"${claim.usd_per_hour} an hour is no price of a machine with one GPU")
    if not _SUBNET.fullmatch(machine.subnet):
        raise _refused(run_uri, claim, f"{machine.subnet!r} is not the name of a subnet")
    spot = claim.spot is not False
    return VmOrder(
        name=claim.vm,
        zone=claim.zone,
        machine_type=known.type,
        spot=spot,
        boot_image=machine.boot_image,
        boot_disk_gb=machine.boot_disk_gb,
        boot_disk_type=known.disk,
        service_account=machine.service_account,
        subnet=machine.subnet,
        request_id=claim.request_id,
        labels=run_labels(run_uri, claim.number),
        accelerator=known.accelerator,
        notice_s=machine.notice_s if spot else 0,
        max_run_s=min(max(max_run_s, SHORTEST_RUN_S), LONGEST_RUN_S),
        attributes={
            **boot_attributes(),
            "baton-role": "attempt",
            "baton-run": run_uri,
            "baton-attempt": str(claim.number),
            "baton-image": machine.image,
            "baton-gpu": machine.gpu,
        },
    )


def watchdog_order(
    bucket: str, project: str, zone: str, *, image: str, service_account: str, request_id: str, subnet: str = SUBNET
) -> VmOrder:
    """The small VM that watches all runs of a bucket. Raises NeedsPerson for an image without digest."""
    if not PINNED.fullmatch(image):
        raise NeedsPerson(
            f"{image!r} is not a container image by its digest.",
            fix="Set BATON_IMAGE=HOST/PROJECT/REPO/NAME@sha256:...",
        )
    small = machines().watchdog
    return VmOrder(
        name=watchdog_name(bucket),
        zone=zone,
        machine_type=small.machine_type,
        spot=False,
        boot_image=machines().boot_image,
        boot_disk_gb=small.boot_disk_gb,
        boot_disk_type=small.disk,
        service_account=service_account,
        subnet=subnet,
        request_id=request_id,
        labels=watchdog_labels(bucket),
        attributes={
            **boot_attributes(),
            "baton-role": "watchdog",
            "baton-bucket": bucket,
            "baton-project": project,
            "baton-image": image,
            "baton-gpu": "none",
        },
    )


def zones_near(location: str | None) -> tuple[str, ...]:
    """Where a watchdog VM is tried: the zones of a region, then those of another."""
    known = sorted({offer.zone for spot in (True, False) for gpu in ("l4", "t4") for offer in offers(gpu, spot)})
    here = tuple(zone for zone in known if region_of(zone) == (location or "").lower())
    anywhere = tuple(zone for zone in known if region_of(zone) == ANYWHERE and zone not in here)
    return here + anywhere


def _refused(run_uri: str, claim: Claim, why: str) -> NeedsPerson:
    return NeedsPerson(
        f"attempt {claim.number} of {run_uri} gets no VM: {why}.",
        fix="control/ of the run asks for something that this version never creates: look who wrote it.",
    )
