"""Finds what infra/gc/collect.py says may go, and deletes it: reads first, deletes only what was listed."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from infra.cloud.access import explained
from infra.cloud.types import Disk, HandsOn, Vm
from infra.gc.collect import Facts, Waste, unwanted_disks, unwanted_objects, unwanted_vms
from infra.naming import hash8
from job.run.claims import Claims
from job.run.head import Head
from job.run.layout import CLAIMS, HEAD
from job.run.records import AT_ONCE
from job.storage import PreconditionFailed, open_bucket
from job.storage.parallel import in_parallel


def find_waste(uris: Sequence[str], cloud: HandsOn | None, labels: Mapping[str, str], now_s: float) -> list[Waste]:
    """What nobody wants: VMs and disks with these labels (no `cloud`: none), objects of the runs `uris`.

    VMs are listed before the runs are read: each was claimed before it was made, so its claim is seen. Raises
    NeedsPerson for a run that is not understood: nothing is known of what it wants.
    """
    vms: Sequence[Vm] = ()
    disks: Sequence[Disk] = ()
    if cloud is not None:
        with explained(cloud.project, "listing VMs and disks"):
            vms, disks = cloud.list_vms(labels).vms, cloud.list_disks(labels)
    read = in_parallel((partial(_read, uri, now_s) for uri in uris), AT_ONCE)
    runs = {hash8(facts.uri): facts for facts, _ in read}
    found = [*unwanted_vms(vms, runs, now_s), *unwanted_disks(disks, now_s)]
    for _, objects in read:
        found += objects
    return found


def remove(waste: Iterable[Waste], cloud: HandsOn | None) -> list[Waste]:
    """Deletes what was found; returns what is gone. An object that was written again meanwhile stays."""
    gone = []
    for one in waste:
        if one.kind == "object":
            with contextlib.suppress(PreconditionFailed):
                open_bucket(one.where).delete(one.name, if_generation=one.generation)
                gone.append(one)
            continue
        assert cloud is not None
        with explained(cloud.project, f"deleting {one.name}"):
            (cloud.delete if one.kind == "vm" else cloud.delete_disk)(one.where, one.name)
        gone.append(one)
    return gone


def _read(uri: str, now_s: float) -> tuple[Facts, list[Waste]]:
    """A run, and what of its objects may go."""
    bucket = open_bucket(uri)
    objects = [*bucket.list("")]
    claims, head = Claims.read(bucket, CLAIMS), Head.read(bucket, HEAD)
    changed_s = max((found[1].updated_s for found in (claims, head) if found is not None), default=0.0)
    facts = Facts(
        uri=bucket.uri,
        claims=Claims() if claims is None else claims[0],
        head=None if head is None else head[0],
        changed_s=changed_s,
    )
    return facts, unwanted_objects(bucket.uri, facts.head, objects, now_s)
