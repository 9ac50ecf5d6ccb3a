"""`baton ls`."""

import time
from typing import Annotated

import typer

from infra.cli.output import print_json, print_table
from job.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def ls(
    bucket: Annotated[
        str | None,
        typer.Argument(
            metavar="BUCKET", help="gs://BUCKET or file:///folder, runs are under runs/ (else BATON_BUCKET)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """All runs of a bucket: what each one does, how far it is, what it has cost. Only reads."""
    from infra.reading.runs import runs_of
    from job.settings import load_environment
    from job.views.overview import read_overview, table

    uri = bucket or load_environment().bucket
    if not uri:
        raise UsageError("No bucket is named.", fix="Name it (gs://BUCKET, file:///folder), or set BATON_BUCKET.")
    lines = read_overview(runs_of(uri), time.time())
    if as_json:
        print_json([line.model_dump(mode="json") for line in lines])
    elif lines:
        print_table(table(lines))
    else:
        typer.echo(f"There are no runs in {uri}.", err=True)
