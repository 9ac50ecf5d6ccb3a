"""The tree seen as dotted keys: which there are, and what each may hold."""

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo

from job.settings.tree import OPERATIONAL, Section, Settings


@dataclass(frozen=True)
class Key:
    """One setting."""

    name: str
    """Dotted, as in `train.seed`."""
    field: FieldInfo

    @property
    def identity(self) -> bool:
        """Whether it is part of the fingerprint."""
        return OPERATIONAL not in self.field.metadata

    @property
    def optional(self) -> bool:
        """Whether it may be unset."""
        return types.NoneType in typing.get_args(self.field.annotation)

    @property
    def named_parts(self) -> bool:
        """Whether it is a table of the user's own names: `reward.weights.NAME`."""
        return typing.get_origin(self.field.annotation) is dict


@cache
def all_keys() -> Mapping[str, Key]:
    """Every setting, in the order of the tree."""
    return types.MappingProxyType({key.name: key for key in _walk(Settings, "")})


def find_key(name: str) -> Key | None:
    """The setting that a name means, also by a part of it (`reward.weights.format`); None for an unknown one."""
    found = all_keys().get(name)
    if found is None:
        parent = all_keys().get(name.rpartition(".")[0])
        found = parent if parent is not None and parent.named_parts else None
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; an empty table keeps its own key."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *tables, last = key.split(".")
        table = tree
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return tree


def _walk(section: type[Section], prefix: str) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield Key(f"{prefix}{name}", field)
