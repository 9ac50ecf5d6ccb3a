"""`baton get`."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer

from infra.cli.output import print_json
from infra.cli.runs import open_run

app = typer.Typer(add_completion=False)


@app.command()
def get(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to (default: a folder of the run's name here).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Downloads the result of a finished run, each file verified by its sha256. Prints the folder.

    Cut off, the same command goes on. A folder that holds anything else is refused.
    """
    from infra.reading.fetch import check_folder, fetch_result, read_result
    from job.views.status import read_status
    from job.views.text import printable

    bucket = open_run(run)
    read_status(bucket)  # refuses what is no run
    manifest = read_result(bucket)
    target = folder or Path(file_name(bucket.uri))
    check_folder(target, manifest)
    fetch_result(bucket, manifest, target, lambda line: typer.echo(printable(line), err=True))
    if as_json:
        files = {name: file.model_dump(mode="json") for name, file in sorted(manifest.files.items())}
        print_json({"uri": bucket.uri, "folder": str(target), "step": manifest.step, "files": files})
    else:
        typer.echo(str(target))


def file_name(uri: str) -> str:
    """The run's name as a folder may be called everywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", unquote(uri.rstrip("/").rpartition("/")[2]))[:100].strip("-.") or "result"
