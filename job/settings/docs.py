"""docs/configuration.md, from the settings tree itself.

python -m job.settings.docs           writes it
python -m job.settings.docs --check   exit 1 when it is not what would be written
"""

import json
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from job.settings.environment import Environment, Secrets
from job.settings.keys import Key, all_keys
from job.settings.tree import Section, Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
COMMAND = "python -m job.settings.docs"
INTRODUCTION = f"""<!-- Made by `{COMMAND}` from job/settings/tree.py: change that. -->

# Settings

A value is taken from the last of these that names it:

1. the recipe, a TOML file: `seed = 3` in the table `[train]`
2. `.env` in the working folder: `BATON__TRAIN__SEED=3`
3. the environment: `BATON__TRAIN__SEED=3`
4. the command line: `--set train.seed=3`

`baton config RECIPE` prints every value and where it is from. In 2 to 4 a list is written as in TOML
(`lora.targets=["q_proj", "v_proj"]`), and `none` unsets a setting that may be unset. A key that does not exist is
refused. Paths are relative to the folder that the command runs in.

A setting is *identity* when another value makes another run: on a run that exists a change is refused by name,
unless it is accepted with `--allow-changed KEY`. *Operational* ones may change between attempts.
"""
VARIABLES = """## Environment

Variables that are no settings of a run; each may stand in `.env` too. Secrets are never written to the bucket.
"""


def render() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    tables = {name.partition(".")[0] if "." in name else "" for name in all_keys()}
    for table in sorted(tables, key=list(_tables()).index):
        lines += [f"## {f'[{table}]' if table else 'Top level'}\n"]
        if table:
            lines += [f"{_section(table).__doc__}\n"]
        lines += ["| setting | values | default | kind | |", "|---|---|---|---|---|"]
        lines += [_row(key) for key in all_keys().values() if _table(key) == table]
        lines += [""]
    lines += [VARIABLES, "| variable | |", "|---|---|", *_variables(Environment), *_variables(Secrets)]
    return "\n".join(lines) + "\n"


def help_lines() -> list[str]:
    """One line per setting, for a terminal: name, what it is, values, default."""
    lines = []
    for key in all_keys().values():
        values = _values(key.field).replace("\\|", "|").replace("`", "")
        default = _default(key.field).replace("`", "")
        lines.append(f"{key.name}: {(key.field.description or '').replace('`', '')} ({values}; {default})")
    return lines


def main(argv: Sequence[str]) -> int:
    """Writes the page, or with --check compares it."""
    page = render()
    if "--check" not in argv:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"error: {PAGE.name} does not say what the settings are.\n  Run: {COMMAND}", file=sys.stderr)
    return 1


def _tables() -> Iterator[str]:
    yield ""
    yield from (name for name in Settings.model_fields if any(key.startswith(f"{name}.") for key in all_keys()))


def _table(key: Key) -> str:
    return key.name.rpartition(".")[0]


def _section(table: str) -> type[Section]:
    section = Settings.model_fields[table].annotation
    assert isinstance(section, type)
    assert issubclass(section, Section)
    return section


def _row(key: Key) -> str:
    kind = "identity" if key.identity else "operational"
    description = (key.field.description or "").replace("|", "\\|")
    return f"| `{key.name}` | {_values(key.field)} | {_default(key.field)} | {kind} | {description} |"


def _values(field: FieldInfo) -> str:
    """The type and its bounds, as in `whole number, 1 or more`."""
    bounds = ", ".join(filter(None, (_bound(one) for one in field.metadata)))
    return _type(field.annotation, bounds).replace("|", "\\|")


def _type(annotation: Any, bounds: str = "") -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner = [getattr(one, "metadata", None) or [one] for one in arguments[1:]]
        return _type(arguments[0], ", ".join(filter(None, (_bound(one) for many in inner for one in many))))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not types.NoneType)
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    names = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", dict: "table of numbers"}
    named = names.get(origin or annotation) or f"list of {_type(arguments[0])}"
    return f"{named}, {bounds}" if bounds else named


def _bound(one: object) -> str:
    match one:
        case Ge(ge=value):
            return f"{value:,} or more"
        case Gt(gt=value):
            return f"more than {value:,}"
        case Le(le=value):
            return f"at most {value:,}"
        case Lt(lt=value):
            return f"less than {value:,}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return "unset" if field.default is None else f"`{json.dumps(field.default)}`"


def _variables(group: type[BaseSettings]) -> Iterator[str]:
    prefix = group.model_config.get("env_prefix") or ""
    for name, field in group.model_fields.items():
        yield f"| `{f'{prefix}{name}'.upper()}` | {field.description} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
