"""The command line of one attempt: the same for a person (`baton train`) and the container (`python -m job`)."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from job.errors import UsageError
from job.run.uri import run_uri
from job.settings import load_environment
from job.settings.keys import find_key
from job.settings.load import unknown_key


@dataclass(frozen=True)
class Arguments:
    """What this process was asked to do, before anything is looked up."""

    recipe: Path | None
    run: str
    """URI of the run."""
    overrides: tuple[str, ...]
    allow_changed: tuple[str, ...]
    attempt: int | None
    """The number that was claimed for this process, None when it claims one by itself."""


def parse(argv: Sequence[str]) -> Arguments:
    """Reads the command line, then BATON_RUN, BATON_BUCKET and BATON_ATTEMPT. Raises UsageError."""
    parser = _Parser(prog="python -m job", description="One attempt at a run: claim, restore, train, publish.")
    parser.add_argument("recipe", nargs="?", type=Path, help="recipe TOML; an existing run needs none")
    parser.add_argument("--run", help="URI of the run, or its name in BATON_BUCKET (default: BATON_RUN)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="KEY",
        help="accept this difference to the run",
    )
    given = parser.parse_args(argv)
    environment = load_environment()
    run = given.run or environment.run
    if not run:
        raise UsageError(
            "No run is named.",
            fix="Add --run file:///path/of/the/run (or gs://BUCKET/runs/NAME), or set BATON_RUN.",
        )
    if given.set and given.recipe is None:
        raise UsageError("--set changes a recipe, and none is named.", fix="Name the recipe before --run.")
    for key in given.allow_changed:
        if find_key(key) is None:
            raise unknown_key(key, "--allow-changed")
    return Arguments(
        recipe=given.recipe,
        run=run_uri(run, environment.bucket),
        overrides=tuple(given.set),
        allow_changed=tuple(given.allow_changed),
        attempt=environment.attempt,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message + ".", fix="See `baton train --help`.")
