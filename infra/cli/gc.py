"""`baton gc`."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json, print_table
from infra.cli.runs import open_run, project_of
from job.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from infra.gc.collect import Waste

app = typer.Typer(add_completion=False)
MOST_ROWS = 200


@app.command()
def gc(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One run by URI or name (default: all runs of BATON_BUCKET).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists what is left over and deletes it when told so: VMs and disks that nobody wants, checkpoints that nobody
    refers to, parts of uploads that were killed.

    Of VMs and disks only those with this project's labels and the bucket's; what may still be in use is left alone.
    """
    from infra.cli.confirm import confirm
    from infra.cloud.access import open_cloud
    from infra.gc.waste import find_waste, remove
    from infra.naming import OF_BUCKET, OF_RUN, OWNER, hash8
    from infra.reading.runs import runs_of
    from job.run.spec import read_spec
    from job.settings import load_environment
    from job.views.status import read_status

    environment = load_environment()
    labels, uris = {OWNER: "run"}, tuple[str, ...]()
    if run is not None:
        bucket = open_run(run)
        read_status(bucket)  # refuses what is no run
        uris, spec = (bucket.uri,), read_spec(bucket)
        labels[OF_RUN] = hash8(bucket.uri)
        project = environment.project if spec is None or spec.machine is None else project_of(spec)
    elif environment.bucket:
        uris, project = runs_of(environment.bucket), environment.project
        labels[OF_BUCKET] = hash8(environment.bucket)
    else:
        raise UsageError("No run and no bucket is named.", fix="Name a run, or set BATON_BUCKET for all its runs.")
    is_in_cloud = (uris[0] if uris else environment.bucket or "").startswith("gs://")
    cloud = open_cloud(project) if is_in_cloud and project else None
    if is_in_cloud and cloud is None:
        typer.echo("VMs and disks are not looked at: no project is known (BATON_PROJECT).", err=True)
    waste = find_waste(uris, cloud, labels, time.time())
    if not as_json and waste:
        print_table(_table(waste))
    removed: Sequence[Waste] = ()
    if waste and not dry_run:
        confirm(f"Delete {_count(waste)}?", yes=yes)
        removed = remove(waste, cloud)
    if as_json:
        print_json({"found": [asdict(one) for one in waste], "deleted": [one.name for one in removed]})
    elif not waste:
        typer.echo("Nothing is left over.", err=True)
    elif not dry_run:
        typer.echo(f"{_count(removed)} deleted", err=True)


def _count(waste: "Sequence[Waste]") -> str:
    counts = {kind: sum(one.kind == kind for one in waste) for kind in ("vm", "disk", "object")}
    names = {"vm": "VM", "disk": "disk", "object": "object"}
    told = [f"{count} {names[kind]}{'' if count == 1 else 's'}" for kind, count in counts.items() if count]
    return ", ".join(told) or "nothing"


def _table(waste: "Sequence[Waste]") -> "RenderableType":
    from rich import box
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from job.views.text import printable

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("what", "name", "where", "bytes", "why"):
        shown.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
    for one in waste[:MOST_ROWS]:
        size = decimal(one.size_bytes) if one.size_bytes else ""
        shown.add_row(*(Text(printable(cell)) for cell in (one.kind, one.name, one.where, size, one.why)))
    if len(waste) > MOST_ROWS:
        shown.add_row("", f"... and {len(waste) - MOST_ROWS} more", "", "", "")
    return shown
