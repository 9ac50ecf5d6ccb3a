"""What each of our accounts may do, in one table. infra/setup.sh grants it, the local cloud enforces it, and
tests/story/test_rights.py holds that it is what the code uses: no more, and no less.

Rights on objects go by their names. Listing is a right on a whole bucket, or on a managed folder, so no condition on
names can narrow it: reading is granted on the managed folder `runs/`, writing on the bucket under a condition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

VM, WATCHDOG, CI, BUILD = "baton-vm", "baton-watchdog", "baton-ci", "baton-build"
"""Accounts, before the @. BUILD is for those who have images built by Cloud Build."""
RUNS = "runs/"
WATCHDOG_ROLE, WRITER_ROLE = "batonWatchdog", "batonObjectWriter"
VIEWER = "roles/storage.objectViewer"
READ, WRITE = frozenset({"get", "list"}), frozenset({"create", "delete"})
"""Verbs of storage.objects: what VIEWER has, and what WRITER_ROLE has. Whoever writes an object over deletes it."""


@dataclass(frozen=True)
class Names:
    """Names of objects, and the same set as IAM's conditions say it."""

    title: str
    prefix: str
    """As the local cloud's policy has it: `*` stands for anything."""
    expression: str
    """In IAM's CEL, {bucket} to be filled in. `extract` gives "" where the template does not fit."""

    def condition(self, bucket: str) -> str:
        """The expression for a bucket."""
        return self.expression.replace("{bucket}", f"projects/_/buckets/{bucket}/objects/")


CONTROL = Names(
    "control of runs",
    "runs/*/control/",
    'resource.name.startsWith("{bucket}runs/") && resource.name.extract("{bucket}runs/{run}/control/") != ""',
)
ALL_BUT_CONTROL = Names(
    "runs without their control",
    "runs/",
    'resource.name.startsWith("{bucket}runs/") && resource.name.extract("{bucket}runs/{run}/control/") == ""',
)
WATCHDOGS_OWN = Names("the watchdog's console", "watchdog/", 'resource.name.startsWith("{bucket}watchdog/")')
WRITES: Mapping[str, tuple[Names, ...]] = MappingProxyType({VM: (ALL_BUT_CONTROL,), WATCHDOG: (CONTROL, WATCHDOGS_OWN)})
"""Where each account writes. Both read everything below `runs/`."""

COMPUTE = frozenset(
    {
        "compute.disks.create",
        "compute.disks.setLabels",
        "compute.images.useReadOnly",
        "compute.instances.create",
        "compute.instances.delete",
        "compute.instances.get",
        "compute.instances.list",
        "compute.instances.setLabels",
        "compute.instances.setMetadata",
        "compute.instances.setServiceAccount",
        "compute.instances.stop",
        "compute.subnetworks.use",
        "compute.zoneOperations.list",
    }
)
"""Of the watchdog, in WATCHDOG_ROLE: the calls that it makes. The VM of an attempt has none of compute."""
ONLY_OURS = (
    'resource.type != "compute.googleapis.com/Instance" || '
    'resource.name.extract("/instances/{name}").startsWith("baton-")'
)
"""Under which the watchdog has it: no VM with another name is touched, whatever the watchdog is talked into."""
ACTS_AS: Mapping[str, tuple[str, ...]] = MappingProxyType({WATCHDOG: (VM,)})
"""Whose rights the VMs have that an account makes."""


def policy_rules(account: str, bucket: str) -> Sequence[Mapping[str, object]]:
    """The account's rights on objects as rules of the local cloud's policy, of which the first that fits decides."""
    writes = WRITES[account]
    places = sorted({CONTROL.prefix, RUNS, *(names.prefix for names in writes)}, key=len, reverse=True)
    return [{"bucket": bucket, "prefix": place, "allow": sorted(_allowed(place, writes))} for place in places]


def _allowed(place: str, writes: Sequence[Names]) -> frozenset[str]:
    reads = READ if place.startswith(RUNS) else frozenset()
    return reads | (WRITE if any(names.prefix == place for names in writes) else frozenset())
