"""What a step is: something that has to be there, how to look for it, and which commands make it so. Pure."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

Found = Any
"""What a look brought, from gcloud's JSON; None where the thing is not there."""


@dataclass(frozen=True)
class Command:
    """One call of gcloud."""

    words: tuple[str, ...]
    stdin: SecretStr | None = None
    """What no command line may hold."""

    def __str__(self) -> str:
        """As a person would type it."""
        return shlex.join(("gcloud", *self.words)) + (" < the value" if self.stdin is not None else "")


def gcloud(*words: str, stdin: SecretStr | None = None) -> Command:
    """A call."""
    return Command(words, stdin)


def look(*words: str) -> Command:
    """A call that changes nothing and answers in JSON."""
    return Command((*words, "--format=json"))


@dataclass(frozen=True)
class Step:
    """One thing of the project."""

    what: str
    look: Command
    make: Callable[[Found], Sequence[Command]]
    """What is to be done, by what was found; nothing where all is as it should be."""
    undo: Callable[[Found], Sequence[Command]]
    """What takes it back, by what was found (never None)."""
    kept: str = ""
    """Why it stays when everything else is taken back."""
    at_once: bool = False
    """Whether its commands may run beside each other."""


def thing(what: str, describe: Command, create: Command, delete: Command | None = None, kept: str = "") -> Step:
    """Something that is there or not."""
    return Step(
        what,
        describe,
        lambda found: () if found is not None else (create,),
        lambda _: () if delete is None else (delete,),
        kept,
    )


def binding(what: str, on: tuple[str, ...], resource: str, member: str, role: str, condition: str = "") -> Step:
    """A role of an account on something. `on`: the group of commands, such as ("storage", "buckets").

    `condition`: "TITLE=EXPRESSION"; the expression has no comma in it.
    """
    title, _, expression = condition.partition("=")
    words: tuple[str, ...] = (f"--member={member}", f"--role={role}")
    if condition:
        words = (*words, f"--condition=title={title},expression={expression}")
    elif on == ("projects",):
        words = (*words, "--condition=None")  # has to be said where other bindings have one
    noun, *rest = shlex.split(resource)

    def has(found: Found) -> bool:
        return any(
            one.get("role") == role
            and member in one.get("members", ())
            and (one.get("condition") or {}).get("expression", "") == expression
            for one in (found or {}).get("bindings", ())
        )

    add = gcloud(*on, "add-iam-policy-binding", noun, *rest, *words)
    remove = gcloud(*on, "remove-iam-policy-binding", noun, *rest, *words)
    return Step(
        what,
        look(*on, "get-iam-policy", noun, *rest),
        lambda found: () if has(found) else (add,),
        lambda found: (remove,) if has(found) else (),
    )
