"""Runs one command: what it raises becomes a line on stderr and an exit code."""

import os
import sys
from collections.abc import Sequence

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from infra.cli.commands import make_group
from job.errors import BatonError, ExitCode

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
        print(f"error: {error.format_message()}", file=sys.stderr)
        print(f"  See `{context.command_path if context is not None else 'baton'} --help`.", file=sys.stderr)
        return ExitCode.USAGE
    except BatonError as error:
        _debug()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return code if isinstance(code, int) else ExitCode.FINISHED


def _debug() -> None:
    if os.environ.get("BATON_DEBUG") == "1":
        import traceback

        traceback.print_exc()
