"""`baton doctor`."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json, print_table
from job.errors import NeedsPerson, Transient

if TYPE_CHECKING:
    from rich.console import RenderableType

    from infra.doctor.examine import Examined

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe TOML that is to run; it is looked at, too.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, as in train.seed=3. Repeatable."),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="The GPU that you mean to use (else any that is large enough).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Whether the project can run it: quota, bucket, network, rights, image, model; and how to mend what it lacks.

    Only reads, five seconds at most. Exit code 3 when something has to be done, 76 when something could not be told.
    """
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")  # else whoever has not logged in waits nine seconds
    from infra.cli.launch import project_of
    from infra.doctor.examine import examine
    from infra.doctor.finding import State
    from infra.doctor.place import Place
    from infra.machines import find_gpu, gpu_key
    from job.settings import load_environment, load_settings
    from job.settings.environment import DOTENV, SECRETS, read_variables

    environment = load_environment()
    if gpu is not None:
        find_gpu(gpu)
    variables = read_variables(None, DOTENV)
    place = Place(
        environment=environment,
        named_project=project_of(environment),
        set_in={name: variables[name][1] for name in SECRETS if name in variables},
        settings=None if recipe is None and not overrides else load_settings(recipe, overrides or ()).settings,
        gpu=None if gpu is None else gpu_key(gpu),
        now_s=time.time(),
    )
    found = examine(place)
    if as_json:
        print_json(
            [
                {
                    "check": one.check,
                    "state": one.finding.state.value,
                    "line": one.finding.line,
                    "fix": one.finding.fix.splitlines(),
                    "seconds": round(one.seconds, 3),
                }
                for one in found
            ]
        )
    else:
        print_table(table(found))
    undone = [one.check for one in found if one.finding.state is State.TO_DO]
    unknown = [one.check for one in found if one.finding.state is State.UNKNOWN]
    if undone:
        rest = f"; not known: {', '.join(unknown)}" if unknown else ""
        raise NeedsPerson(f"to do: {', '.join(undone)}{rest}.", fix="The commands are above.")
    if unknown:
        raise Transient(f"not known: {', '.join(unknown)}.", fix="Why is above; then try again.")


def table(found: "Sequence[Examined]") -> "RenderableType":
    """For people: each check with what it found, and below it the commands that mend it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from infra.doctor.finding import State
    from job.views.text import printable

    styles = {State.OK: "green", State.TO_DO: "bold red", State.UNKNOWN: "yellow", State.NOT_ASKED: "dim"}
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "", "found"):
        shown.add_column(name, overflow="fold", no_wrap=name != "found")
    for one in found:
        style = styles[one.finding.state]
        lines = Text(printable(one.finding.line))
        for command in one.finding.fix.splitlines():
            lines.append(f"\n  {printable(command)}", style="dim" if command.startswith("#") else "bold")
        shown.add_row(one.check, Text(one.finding.state.value, style=style), lines)
    return shown
