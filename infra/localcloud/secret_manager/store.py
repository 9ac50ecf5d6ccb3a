"""The secrets, in a file that only its owner may read, and that survives the cloud's end."""

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.localcloud.errors import Refusal

ENABLED, DISABLED, DESTROYED = "ENABLED", "DISABLED", "DESTROYED"


@dataclass
class Version:
    """One value."""

    data: str
    """base64; empty once it is destroyed."""
    created_s: float
    state: str = ENABLED


@dataclass
class Secret:
    """One secret: its versions, the first is number 1, and its policy."""

    created_s: float
    replication: dict[str, Any] = field(default_factory=dict)
    bindings: list[dict[str, Any]] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)

    def allows(self, role: str, account: str) -> bool:
        """Whether the policy gives the account the role."""
        members = (f"serviceAccount:{account}", f"user:{account}")
        return any(one["role"] == role and set(members) & set(one.get("members", ())) for one in self.bindings)


class Store:
    """All secrets of the project. Whoever changes something holds `lock` and calls `keep`."""

    def __init__(self, file: Path) -> None:
        self.lock = threading.RLock()
        self._file = file
        self.secrets: dict[str, Secret] = {}
        if file.exists():
            for name, kept in json.loads(file.read_text()).items():
                versions = [Version(**one) for one in kept.pop("versions")]
                self.secrets[name] = Secret(**kept, versions=versions)

    def keep(self) -> None:
        """Writes all of it."""
        fresh = self._file.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_text(json.dumps({name: asdict(one) for name, one in self.secrets.items()}))
        fresh.replace(self._file)

    def create(self, name: str, replication: dict[str, Any]) -> Secret:
        """A new one, without a version. Raises 409."""
        if name in self.secrets:
            raise Refusal(409, "alreadyExists", f"Secret [{name}] already exists.")
        self.secrets[name] = found = Secret(time.time(), replication)
        return found

    def get(self, name: str) -> Secret:
        """One that is there. Raises 404."""
        if name not in self.secrets:
            raise Refusal(404, "notFound", f"Secret [{name}] not found.")
        return self.secrets[name]

    def version(self, name: str, wanted: str) -> tuple[int, Version]:
        """A version by its number, or `latest`. Raises 404."""
        versions = self.get(name).versions
        number = len(versions) if wanted == "latest" else int(wanted) if wanted.isdecimal() else 0
        if not 1 <= number <= len(versions):
            raise Refusal(404, "notFound", f"Secret Version [{name}/versions/{wanted}] not found.")
        return number, versions[number - 1]
