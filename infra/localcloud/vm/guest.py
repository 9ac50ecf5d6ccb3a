"""What a VM's metadata server knows of it, as the tree of paths below /computeMetadata/v1/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

UNIVERSE = "googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
Tree = Mapping[str, Any]
"""Names to texts, lists of texts, or further trees."""


@dataclass
class Guest:
    """One VM, as it may ask about itself."""

    name: str
    project: str
    zone: str
    machine_type: str = "e2-small"
    instance_id: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    scheduling: Mapping[str, Any] = field(default_factory=dict)
    service_account: str | None = None
    scopes: Sequence[str] = ()
    preempted: bool = False

    @property
    def project_number(self) -> int:
        """Made of the project's name."""
        return 10**11 + crc32(self.project.encode())

    def tree(self) -> Tree:
        """Everything but the token, which is made when it is asked for."""
        place = f"projects/{self.project_number}"
        instance: dict[str, Any] = {
            "attributes": dict(self.attributes),
            "cpu-platform": "Intel Cascade Lake",
            "hostname": f"{self.name}.{self.zone}.c.{self.project}.internal",
            "id": str(self.instance_id),
            "machine-type": f"{place}/machineTypes/{self.machine_type}",
            "maintenance-event": "NONE",
            "name": self.name,
            "preempted": str(self.preempted).upper(),
            "scheduling": {
                "automatic-restart": str(bool(self.scheduling.get("automaticRestart", False))).upper(),
                "on-host-maintenance": str(self.scheduling.get("onHostMaintenance", "TERMINATE")),
                "preemptible": str(self.scheduling.get("provisioningModel") == "SPOT").upper(),
            },
            "service-accounts": self._accounts(),
            "zone": f"{place}/zones/{self.zone}",
        }
        project = {"attributes": {}, "numeric-project-id": str(self.project_number), "project-id": self.project}
        return {"instance": instance, "project": project, "universe": {"universe-domain": UNIVERSE}}

    def _accounts(self) -> Tree:
        if self.service_account is None:
            return {}
        account = {"aliases": ["default"], "email": self.service_account, "scopes": list(self.scopes or SCOPES)}
        return {"default": account, self.service_account: account}


def find(tree: Tree, path: str) -> Any:
    """What is at `instance/zone`, say; None where nothing is."""
    found: Any = tree
    for name in filter(None, path.split("/")):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def as_text(found: Any) -> str:
    """As the server shows it unless JSON is asked for: a folder lists its names, those of folders with a slash."""
    if isinstance(found, Mapping):
        return "".join(f"{name}/\n" if isinstance(value, Mapping) else f"{name}\n" for name, value in found.items())
    return found if isinstance(found, str) else "".join(f"{line}\n" for line in found)


def as_json(found: Any, path: str = "") -> Any:
    """As `recursive=true` shows it: names in camel case, but for those that people chose."""
    if not isinstance(found, Mapping):
        return found
    chosen = path.rstrip("/").endswith(("attributes", "service-accounts"))
    return {name if chosen else _camel(name): as_json(value, name) for name, value in found.items()}


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(other.capitalize() for other in others)
