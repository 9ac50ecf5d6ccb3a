"""Settings as plain data, and whether two of them are the same run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from job.errors import NeedsPerson
from job.settings.keys import find_key, flatten
from job.settings.tree import Settings


def to_plain(settings: Settings) -> dict[str, Any]:
    """The whole tree as what JSON can hold. There are no secrets in it."""
    return settings.model_dump(mode="json")


def from_plain(plain: Mapping[str, Any]) -> Settings:
    """The inverse of `to_plain`. Raises NeedsPerson for a tree that this version does not understand."""
    try:
        return Settings.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NeedsPerson(
            f"the run's settings do not fit this version of baton: {where}: {first['msg']}.",
            fix="Use the version that the run was started with (its commit is in control/spec).",
        ) from None


def identity_differences(old: Settings, new: Settings) -> list[tuple[str, Any, Any]]:
    """(key, old, new value) of every setting that makes it another run; None for a part that is not there."""
    before, after = _identity(old), _identity(new)
    keys = list(before) + [key for key in after if key not in before]
    changed = ((key, before.get(key), after.get(key)) for key in keys)
    return [(key, old_value, new_value) for key, old_value, new_value in changed if old_value != new_value]


def fingerprint(settings: Settings) -> str:
    """sha256, in hex, of all settings that are part of the run's identity."""
    canonical = json.dumps(_identity(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _identity(settings: Settings) -> dict[str, Any]:
    flat = flatten(to_plain(settings))
    return {name: value for name, value in flat.items() if (key := find_key(name)) is not None and key.identity}
