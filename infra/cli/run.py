"""Runs one command: what it raises becomes a line on stderr and an exit code."""

import os
from collections.abc import Sequence

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from infra.cli.commands import make_group
from job.errors import BatonError, ExitCode
from job.views.text import print_error

INTERRUPTED = 130  # by Ctrl-C: 128 + SIGINT, as shells have it


def run(argv: Sequence[str]) -> int:
    """The exit code of `baton ARGV...`. With BATON_DEBUG=1 expected errors show their traceback too."""
    command: TyperGroup = make_group()
    try:
        code = command.main(list(argv) or ["--help"], prog_name="baton", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except TyperException as error:
        _debug()
        context = getattr(error, "ctx", None)
        see = f"See `{context.command_path if context is not None else 'baton'} --help`."
        print_error(f"{error.format_message()}\n  {see}")
        return ExitCode.USAGE
    except BatonError as error:
        _debug()
        print_error(str(error))
        return error.exit_code
    return code if isinstance(code, int) else ExitCode.FINISHED


def _debug() -> None:
    if os.environ.get("BATON_DEBUG") == "1":
        import traceback

        traceback.print_exc()
