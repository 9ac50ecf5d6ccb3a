"""The tokens of VMs, and what their accounts may do: written into the storage server's policy file."""

import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.setup.grants import VM, WATCHDOG, policy_rules


def rights_of(account: str, bucket: str) -> Sequence[Mapping[str, object]]:
    """An account's rights on the objects of a bucket; whoever is not a watchdog has those of attempts."""
    return policy_rules(WATCHDOG if account.partition("@")[0] == WATCHDOG else VM, bucket)


class Tokens:
    """One token for each VM. What else is in the file stays; its tokens of before are none any more."""

    def __init__(self, policy: Path, bucket: str = "*") -> None:
        self._policy = policy
        self._bucket = bucket
        self._lock = threading.Lock()
        self._given: dict[str, tuple[str, str]] = {}  # VM to (token, account)
        self._content: dict[str, Any] = {"accounts": {}}
        if policy.exists():
            self._content |= json.loads(policy.read_text())
        self._write()

    def of(self, vm: str, account: str) -> str:
        """The VM's token; made, and known to the storage server, when it is first asked for."""
        with self._lock:
            if vm not in self._given:
                self._given[vm] = (f"ya29.{secrets.token_urlsafe(32)}", account)
                self._content["accounts"][account] = rights_of(account, self._bucket)
                self._write()
            return self._given[vm][0]

    def take_back(self, vm: str) -> None:
        """The VM's token is worth nothing from now on."""
        with self._lock:
            if self._given.pop(vm, None) is not None:
                self._write()

    def account(self, token: str) -> str | None:
        """Whose token it is."""
        with self._lock:
            return dict(self._given.values()).get(token)

    def _write(self) -> None:
        tokens = {token: {"account": account} for token, account in self._given.values()}
        fresh = self._policy.with_name(f".{self._policy.name}.new")
        fresh.write_text(json.dumps(self._content | {"tokens": tokens}, indent=2))
        fresh.chmod(0o600)
        fresh.replace(self._policy)
