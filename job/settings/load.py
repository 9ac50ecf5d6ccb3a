"""From recipe, `.env`, environment and `--set` to one checked tree that knows where every value is from."""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from job.errors import UsageError
from job.settings.environment import DOTENV, read_variables
from job.settings.keys import Key, all_keys, find_key, flatten, nest
from job.settings.tree import Settings

PREFIX = "BATON__"
"""BATON__TRAIN__SEED is train.seed."""
DEFAULT = "default"
_NONE = ("none", "null")
_SEE = "docs/configuration.md lists all settings."


@dataclass(frozen=True)
class Resolved:
    """Settings, and where each value is from."""

    settings: Settings
    origins: dict[str, str]
    """By dotted key: `recipe FILE`, `.env VARIABLE`, `environment VARIABLE`, `--set` or `default`."""


@dataclass(frozen=True)
class _Given:
    """One value as somebody gave it."""

    key: Key
    value: Any
    origin: str


def load_settings(
    recipe: Path | None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    dotenv: Path | None = DOTENV,
) -> Resolved:
    """Recipe TOML < `.env` < environment < `--set KEY=VALUE`; `env` None: this process's environment.

    Raises UsageError: file missing or not TOML, unknown key (names the nearest one), value out of bounds,
    settings that do not fit together.
    """
    given: dict[str, _Given] = {}
    for name, value, origin in _layers(recipe, overrides, env, dotenv):
        key = find_key(name)
        if key is None:
            raise unknown_key(name, origin)
        if key.name == name and key.named_parts:  # a whole table replaces its parts
            given = {other: one for other, one in given.items() if one.key.name != key.name}
        given[name] = _Given(key, value, origin)
    settings = _validate(given)
    names = flatten(settings.model_dump())
    return Resolved(settings, {name: given[name].origin if name in given else _origin(name, given) for name in names})


def _layers(
    recipe: Path | None, overrides: Sequence[str], env: Mapping[str, str] | None, dotenv: Path | None
) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, origin), the weakest first."""
    if recipe is not None:
        for name, value in flatten(_read_toml(recipe)).items():
            yield name, value, f"recipe {recipe}"
    for variable, (text, origin) in read_variables(env, dotenv).items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower().replace("__", ".")
            yield name, _from_text(name, text, origin), origin
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {override}: that is not KEY=VALUE.", fix="Write for example --set train.seed=3.")
        yield name.strip(), _from_text(name.strip(), text.strip(), "--set"), "--set"


def _read_toml(recipe: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(recipe.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no recipe {recipe}.", fix="recipes/ has those that come with Baton.") from None
    except OSError as error:
        raise UsageError(
            f"The recipe {recipe} cannot be read: {error.strerror}.", fix="Name a TOML file that you may read."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The recipe {recipe} is not TOML: {error}.", fix="Correct that place.") from None


def _from_text(name: str, text: str, origin: str) -> Any:
    """What a variable or `--set` says, in the setting's type; left as it is where it has no such value."""
    key = find_key(name)
    if key is None:
        return text
    if key.optional and text.lower() in _NONE:
        return None
    if text.startswith(("[", "{")):
        try:
            return tomllib.loads(f"value = {_as_toml(text)}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise UsageError(
                f"{origin}: {name} is {text}, which is neither a TOML list nor a TOML table.",
                fix='Write for example ["q_proj", "v_proj"] or {correctness = 1.0}.',
            ) from error
    wanted: Any = float if key.named_parts and key.name != name else key.field.annotation
    try:
        return TypeAdapter(wanted).validate_python(text)
    except ValidationError:
        return _scalar(text)


def _scalar(text: str) -> Any:
    """A number or truth value as what it is, so that the message says why it is refused."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _as_toml(text: str) -> str:
    """JSON's colon is accepted too: {"correctness": 1.0}."""
    return text.replace('":', '" =') if text.startswith("{") else text


def _validate(given: Mapping[str, _Given]) -> Settings:
    tables: dict[str, Any] = {name.partition(".")[0]: {} for name in all_keys() if "." in name}
    try:
        return Settings.model_validate(tables | nest({name: one.value for name, one in given.items()}))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        name, key = _locate(problems[0]["loc"])
        one = given.get(name) or given.get(key.name if key else name)
        others = len({_locate(problem["loc"])[0] for problem in problems}) - 1
        if problems[0]["type"] == "missing":
            raise UsageError(f"{name} is not set.", fix=f"{_promise(key)} Set it in the recipe.") from None
        if one is None:
            raise UsageError(f"{name}: {_reason(problems)}.", fix=_SEE) from None
        raise UsageError(
            f"{one.origin}: {name} = {json.dumps(one.value, default=str)} is refused: {_reason(problems)}.",
            fix=_promise(key) + (f" ({others} more values are refused.)" if others else ""),
        ) from None


def _locate(location: tuple[int | str, ...]) -> tuple[str, Key | None]:
    """The dotted name at a place that pydantic names, without the branches of unions that it adds."""
    parts = [str(part) for part in location]
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if (key := find_key(name)) is not None:
            return name, key
    return ".".join(parts), None


def _reason(problems: Sequence[Any]) -> str:
    """Why the first value is refused; a union says what each of its branches would take."""
    place = _locate(problems[0]["loc"])[0]
    said = [problem["msg"] for problem in problems if _locate(problem["loc"])[0] == place]
    return ", or ".join(dict.fromkeys(_plain_words(text) for text in said))


def _plain_words(text: str) -> str:
    """pydantic's message in a recipe's words."""
    words = (
        text.replace("Input should", "it should")
        .replace("String should", "it should")
        .replace("Tuple", "a list")
        .replace("tuple", "list")
    )
    return words.removesuffix(" after validation, not 0")


def _promise(key: Key | None) -> str:
    return _SEE if key is None or key.field.description is None else f"{key.name}: {key.field.description}"


def unknown_key(name: str, origin: str) -> UsageError:
    """What to say of a key that is no setting: names the nearest one."""
    if inside := [key for key in all_keys() if key.startswith(f"{name}.")]:
        return UsageError(f"{origin}: {name} is a table of settings, not a value.", fix=f"One of them is {inside[0]}.")
    return UsageError(f"{origin}: there is no setting {name}.", fix=_nearest(name))


def _nearest(name: str) -> str:
    """The setting that was probably meant."""
    known = list(all_keys())
    last = name.rpartition(".")[2]
    by_last = {key.rpartition(".")[2]: key for key in reversed(known)}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    close = close or [by_last[leaf] for leaf in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.75)]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else _SEE


def _origin(name: str, given: Mapping[str, _Given]) -> str:
    """Where a value is from that nobody gave by its own name: from its table, given whole, or nowhere."""
    parent = given.get(name.rpartition(".")[0])
    return DEFAULT if parent is None else parent.origin
