"""`baton report`."""

import re
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer

from infra.cli.output import print_json
from infra.cli.runs import open_run
from job.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def report(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page is written (default: NAME-report.html here; - is stdout)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the page says as JSON; no page is written.")] = (
        False
    ),
) -> None:
    """A run as one HTML page: verdict, reward, attempts, samples, lineage. Of a run that goes on: as it is now.

    The page needs no server and no network: open it, mail it, keep it. Prints its path. Only reads the run.
    """
    from job.views.report import render
    from job.views.report_data import read_report

    bucket = open_run(run)
    found = read_report(bucket)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    page = render(found)
    if out == Path("-"):
        sys.stdout.write(page)
        return
    path = Path(f"{_file_name(bucket.uri)}-report.html") if out is None else out
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", fix="Name another file: --out FILE.") from None
    print(path)


def _file_name(uri: str) -> str:
    """The run's name as a file may be called everywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", unquote(uri.rstrip("/").rpartition("/")[2]))[:100].strip("-.") or "run"
