"""Data on stdout: JSON for programs, tables for people."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDE = 240  # columns where there is no terminal: whoever reads it later wants all of it


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_table(renderable: "RenderableType", *, err: bool = False) -> None:
    """A table on stdout (`err`: on stderr), as wide as the terminal, never cut where there is none."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    Console(width=None if stream.isatty() else WIDE, highlight=False, stderr=err).print(renderable)
