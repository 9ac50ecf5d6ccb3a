"""Where machine and bucket are, and what the traffic between them costs."""

import contextlib
import urllib.request
from dataclasses import dataclass

from rich.filesize import decimal

from job.preemption import metadata_host
from job.storage import Bucket
from job.storage.prices import GIB, traffic_usd_per_gib

ZONE_PATH = "/computeMetadata/v1/instance/zone"
METADATA_S = 2.0


@dataclass(frozen=True)
class Traffic:
    """What lies between the machine and its bucket."""

    region: str = ""
    location: str = ""
    """The bucket's."""
    usd_per_gib: float = 0.0


def traffic_to(bucket: Bucket) -> Traffic:
    """Asks both for their place. Free where either is not known: a guess would be a wrong bill."""
    region = machine_region()
    location = bucket.location() if region else None
    if not region or not location:
        return Traffic()
    return Traffic(region, location, traffic_usd_per_gib(region, location))


def traffic_lines(traffic: Traffic, checkpoint_bytes: int) -> list[str]:
    """The warning that checkpoints leave the region, and what each costs; pure."""
    if not traffic.usd_per_gib:
        return []
    usd = checkpoint_bytes / GIB * traffic.usd_per_gib
    return [
        f"warning: the bucket is in {traffic.location.lower()}, this machine in {traffic.region}: sending a checkpoint "
        f"({decimal(checkpoint_bytes)}) costs ${usd:.4f}, and so does restoring one. They are made less often, so that "
        "they cost at most 5 % of attempt.machine_usd_per_hour; a bucket in the machine's region costs nothing"
    ]


def machine_region() -> str | None:
    """The region of this VM, None on a machine that is none, or where the metadata server does not answer."""
    host = metadata_host()
    if host is None:
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine
    request = urllib.request.Request(f"http://{host}{ZONE_PATH}", headers={"Metadata-Flavor": "Google"})
    with contextlib.suppress(OSError, ValueError), opener.open(request, timeout=METADATA_S) as reply:
        return region_of(reply.read().decode().strip())
    return None


def region_of(zone: str) -> str | None:
    """The region in the metadata server's words for a zone (projects/1/zones/us-central1-a); pure."""
    name, _, letter = zone.rpartition("/")[2].rpartition("-")
    return name if "-" in name and letter else None
