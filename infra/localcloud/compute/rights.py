"""What each call takes, by Compute Engine's documentation, and what accounts have: infra/setup/grants.py says it for
those of VMs, the laptop's user may everything. What was used is remembered, for whoever asks what is needed."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from infra.localcloud.callers import LAPTOP
from infra.localcloud.compute.errors import forbidden
from infra.localcloud.compute.records import last
from infra.setup.grants import ACTS_AS, COMPUTE, WATCHDOG

ACT_AS = "iam.serviceAccounts.actAs"
OURS = "baton-"
"""What the names of VMs begin with that a watchdog's account may touch."""


class Rights:
    """Who may what. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: defaultdict[str, set[str]] = defaultdict(set)

    def require(self, account: str, permissions: Iterable[str], path: str, vm: str = "") -> None:
        """Raises 403 unless the account has all of them, on a VM of that name where one is meant."""
        for permission in permissions:
            instance = permission.startswith("compute.instances.") and vm
            mine = not instance or vm.startswith(OURS)
            if account != LAPTOP and (permission not in granted(account) or not mine):
                raise forbidden(account, permission, path)
            with self._lock:
                self._used[account].add(permission)

    def require_acting(self, account: str, other: str, path: str) -> None:
        """Raises 403 unless the account may give a VM the rights of the other."""
        name = other.partition("@")[0]
        if account != LAPTOP and name not in ACTS_AS.get(account.partition("@")[0], ()):
            raise forbidden(account, ACT_AS, path)
        with self._lock:
            self._used[account].add(f"{ACT_AS} {name}")

    def used(self) -> dict[str, list[str]]:
        """What each account has used of its rights."""
        with self._lock:
            return {account: sorted(permissions) for account, permissions in self._used.items()}


def granted(account: str) -> frozenset[str]:
    """What the account of a VM may do with VMs."""
    return COMPUTE if account.partition("@")[0] == WATCHDOG else frozenset()


def of_insert(body: Mapping[str, Any]) -> frozenset[str]:
    """What instances.insert takes, by what is asked for (its documentation, IAM permissions); pure."""
    needed = {"compute.instances.create"}
    parts = {
        "metadata": "setMetadata",
        "labels": "setLabels",
        "serviceAccounts": "setServiceAccount",
        "tags": "setTags",
    }
    needed |= {f"compute.instances.{verb}" for part, verb in parts.items() if body.get(part)}
    for disk in body.get("disks", ()):
        asked = disk.get("initializeParams", {})
        needed |= {"compute.disks.create"} if asked else {"compute.disks.use"}
        needed |= {"compute.disks.setLabels"} if asked.get("labels") else set()
        needed |= {"compute.images.useReadOnly"} if asked.get("sourceImage") else set()
    for interface in body.get("networkInterfaces", ()):
        needed.add("compute.subnetworks.use" if interface.get("subnetwork") else "compute.networks.use")
        needed |= {"compute.subnetworks.useExternalIp"} if interface.get("accessConfigs") else set()
    return frozenset(needed)


def acted_as(body: Mapping[str, Any]) -> list[str]:
    """Whose rights the VM is to have."""
    return [last(str(one.get("email", ""))) for one in body.get("serviceAccounts", ())]
