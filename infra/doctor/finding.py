"""What a check finds. There is no green light for what could not be told."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it is."""

    OK = "ok"
    TO_DO = "to do"
    """Somebody has to do something before, or while, runs go on."""
    UNKNOWN = "not known"
    """Nobody answered, or one may not look."""
    NOT_ASKED = "not asked"
    """Nothing here needs it."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    state: State
    line: str
    fix: str = ""
    """Commands, one a line; a line that begins with # is for people."""


def ok(line: str) -> Finding:
    """As it should be."""
    return Finding(State.OK, line)


def to_do(line: str, fix: str) -> Finding:
    """Something to be mended, and how."""
    return Finding(State.TO_DO, line, fix)


def not_known(line: str, fix: str = "") -> Finding:
    """Could not be told, and why."""
    return Finding(State.UNKNOWN, line, fix)


def not_asked(line: str) -> Finding:
    """Was not looked at, and why that is right."""
    return Finding(State.NOT_ASKED, line)


class NotKnown(Exception):
    """Raised by whatever reads, where there is no answer; it becomes the finding of its check."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.fix = fix
