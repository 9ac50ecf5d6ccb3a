"""`baton attach`."""

from typing import Annotated

import typer

from infra.cli.runs import open_run

app = typer.Typer(add_completion=False)


@app.command()
def attach(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
) -> None:
    """Follows a run, from any machine: its attempts' phases with their seconds, then the training line. Only reads.

    Ctrl-C detaches; the run goes on. Ends with 0 when the run is finished, 3 when it has failed, 75 when it is stopped.
    """
    from infra.cli.follow import follow
    from job.views.status import read_status

    bucket = open_run(run)
    read_status(bucket)  # refuses what is no run
    raise typer.Exit(follow(bucket))
