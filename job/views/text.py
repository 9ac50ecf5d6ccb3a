"""Text that a model, a judge, a file or another process wrote is hostile wherever it is shown: made harmless here."""

import contextlib
import sys
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Format characters that several scripts and emoji need; they cannot reorder or hide anything."""


def printable(text: str, limit: int | None = None) -> str:
    """`text` as one line that moves no cursor, sets no colour and reorders nothing, cut to `limit` characters.

    Line ends and tabs become spaces; control, bidirectional and unassigned characters and lone surrogates become
    U+FFFD.
    """
    shown = "".join(_harmless(character) for character in text)
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…"


def printable_lines(text: str) -> list[str]:
    """The lines of `text`, each `printable`; a carriage return ends a line too."""
    return [printable(line) for line in text.splitlines()]


def print_error(text: str) -> None:
    """The lines of `text` on stderr, after `error: `. For where there is no Progress to say them."""
    with contextlib.suppress(OSError):  # nobody can read it any more; the exit code still tells
        for line in printable_lines(f"error: {text}"):
            print(line, file=sys.stderr)


def _harmless(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if unicodedata.category(character) in ("Zs", "Zl", "Zp") or character in "\t\n\r\v\f" else REPLACEMENT
