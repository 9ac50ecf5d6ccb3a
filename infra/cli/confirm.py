"""Asking before money is spent or something is deleted."""

import sys

import typer

from job.errors import ExitCode, UsageError
from job.views.text import printable


def confirm(question: str, *, yes: bool) -> None:
    """Returns when a person agrees, or `--yes` was given. A no ends the command with 2: nothing was changed.

    Raises UsageError where nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"{printable(question)} Nobody can be asked here: there is no terminal.",
            fix="--yes agrees to it beforehand.",
        )
    if not typer.confirm(printable(question), err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(ExitCode.USAGE)
