"""`baton status`."""

from typing import Annotated

import typer

from infra.cli.output import print_json, print_table
from infra.cli.runs import open_run

app = typer.Typer(add_completion=False)


@app.command()
def status(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a run does, how far it is, and how each attempt ended. Only reads."""
    from job.views.status import read_status

    found = read_status(open_run(run))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    from job.views.status_table import render

    print_table(render(found))
