"""`baton train`: becomes `python -m job`, the agent of one attempt."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="Recipe TOML; a run that exists needs none.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, as in train.seed=3. Repeatable."),
    ] = None,
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Accept that this setting differs from the run's. Repeatable."),
    ] = None,
) -> None:
    """One attempt at a run, here: starts it, or goes on where it stopped.

    Ends with 0 finished, 2 usage, 3 needs a person, 4 another attempt owns the run, 75 stopped and safe (the same
    command goes on), 76 trouble that may pass. Ctrl-C saves and ends with 75; a second one ends at once.
    """
    arguments = [] if recipe is None else [str(recipe)]
    arguments += [] if run is None else ["--run", run]
    for override in overrides or ():
        arguments += ["--set", override]
    for key in allow_changed or ():
        arguments += ["--allow-changed", key]
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a folder named `job` in the working folder is the user's, not ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "job", *arguments])
