"""Who may do what: bearer tokens name accounts, and rules by prefix say what each may do.

The policy is a JSON file, read again whenever it changes, so that whoever hands out tokens writes them there:

    {"tokens":   {"TOKEN": {"account": "vm@project", "expires_s": 1790000000}},
     "accounts": {"vm@project": [{"prefix": "runs/*/control/", "allow": ["get", "list"]},
                                 {"prefix": "runs/", "allow": ["get", "list", "create", "delete", "update"]}]}}

The first rule whose bucket (where it names one) and prefix fit decides; where none fits, nothing is allowed. Tokens
that are not in the file are unknown: 401. An account without rules may do everything; so may `anonymous`, who sends no
token, unless the file has rules for it. Without a policy every token is `anonymous`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from infra.localcloud.errors import ANONYMOUS, invalid_credentials
from infra.localcloud.storage.errors import forbidden

ALLOWED = frozenset({"get", "list", "create", "delete", "update", "buckets"})


@dataclass(frozen=True)
class Rule:
    """What is allowed under one prefix."""

    prefix: str
    allow: frozenset[str]
    bucket: str = "*"

    def fits(self, bucket: str, name: str) -> bool:
        """Whether the object is under the prefix; `*` stands for anything, slashes too."""
        return fnmatchcase(bucket, self.bucket) and fnmatchcase(name, f"{self.prefix}*")


@dataclass(frozen=True)
class Policy:
    """One reading of the file."""

    accounts: dict[str, tuple[Rule, ...]]
    tokens: dict[str, tuple[str, float]]
    """Token to (account, when it runs out)."""

    def allows(self, account: str, permission: str, bucket: str, name: str) -> bool:
        """Whether the account has, say, `create` on the object; for `list` the name is the prefix that is listed.

        All permissions on buckets themselves (`buckets.get` and so on) go together, as `buckets` under the prefix "".
        """
        if account not in self.accounts:
            return True
        rule = self.rule(account, bucket, name)
        return rule is not None and permission.partition(".")[0] in rule.allow

    def rule(self, account: str, bucket: str, name: str) -> Rule | None:
        """The rule of the account that decides about the object, None where there is none."""
        return next((rule for rule in self.accounts.get(account, ()) if rule.fits(bucket, name)), None)


class Gate:
    """The policy in force."""

    def __init__(self, path: Path | None, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._read_at = -1
        self._policy = Policy({}, {})
        self._used: set[tuple[str, str, str]] = set()
        self._current()  # a file that cannot be used is said at once

    def account(self, authorization: str | None) -> str:
        """Whose token it is. Raises 401 for one that is unknown or has run out."""
        if authorization is None or self._path is None:
            return ANONYMOUS
        account, expires_s = self._current().tokens.get(authorization.removeprefix("Bearer "), ("", 0.0))
        if not account or expires_s <= self._now():
            raise invalid_credentials()
        return account

    def require(self, account: str, permission: str, bucket: str, name: str) -> None:
        """Raises 403 unless the account may."""
        rule = self._current().rule(account, bucket, name)
        if self.allows(account, permission, bucket, name):
            if rule is not None:
                with self._lock:
                    self._used.add((account, rule.prefix, permission))
            return
        full = f"storage.{permission}" if permission.startswith("buckets.") else f"storage.objects.{permission}"
        raise forbidden(account, full, "object" if name else "bucket")

    def used(self) -> dict[str, dict[str, list[str]]]:
        """What each account with rules has used of its rights, by the rule's prefix."""
        found: dict[str, dict[str, list[str]]] = {}
        with self._lock:
            for account, prefix, permission in sorted(self._used):
                found.setdefault(account, {}).setdefault(prefix, []).append(permission)
        return found

    def allows(self, account: str, permission: str, bucket: str, name: str) -> bool:
        """Whether the account may."""
        return self._current().allows(account, permission, bucket, name)

    def _current(self) -> Policy:
        if self._path is None:
            return self._policy
        with self._lock:
            if (written_at := self._path.stat().st_mtime_ns) != self._read_at:
                try:
                    self._policy = parse_policy(json.loads(self._path.read_text()))
                except json.JSONDecodeError:
                    if self._read_at < 0:
                        raise
                    return self._policy  # half of it is written: the rest is there at the next look
                self._read_at = written_at
            return self._policy


def parse_policy(data: dict[str, Any]) -> Policy:
    """The policy in a file's JSON. Raises ValueError for what it does not understand: a typing error grants nothing."""
    if unknown := data.keys() - {"accounts", "tokens"}:
        raise ValueError(f"a policy has accounts and tokens, not {', '.join(sorted(unknown))}")
    accounts = {account: tuple(_rules(account, rules)) for account, rules in data.get("accounts", {}).items()}
    tokens = {
        token: (str(value["account"]), float(value.get("expires_s", "inf")))
        for token, value in data.get("tokens", {}).items()
    }
    return Policy(accounts, tokens)


def _rules(account: str, rules: list[dict[str, Any]]) -> Iterable[Rule]:
    for rule in rules:
        if unknown := rule.keys() - {"prefix", "allow", "bucket"}:
            raise ValueError(f"a rule of {account} has prefix, allow and bucket, not {', '.join(sorted(unknown))}")
        if unknown := set(rule["allow"]) - ALLOWED:
            raise ValueError(f"a rule of {account} allows {', '.join(sorted(unknown))}: not one of {sorted(ALLOWED)}")
        yield Rule(rule["prefix"], frozenset(rule["allow"]), rule.get("bucket", "*"))
