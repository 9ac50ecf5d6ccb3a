"""`baton status`."""

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json, print_table
from infra.cli.runs import open_run
from job.errors import NeedsPerson

if TYPE_CHECKING:
    from job.storage import Bucket

app = typer.Typer(add_completion=False)


@app.command()
def status(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all that the run keeps and recompute every checksum instead.")
    ] = False,
) -> None:
    """What a run does, how far it is, and how each attempt ended. Only reads.

    With --verify: ends with 3 when something is missing or has other bytes, and names it.
    """
    from job.views.status import read_status

    bucket = open_run(run)
    if verify:
        _verify(bucket, as_json=as_json)
        return
    found = read_status(bucket)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    from job.views.status_table import render

    print_table(render(found))


def _verify(bucket: "Bucket", *, as_json: bool) -> None:
    from job.views.verify import table, verify

    found = verify(bucket)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_table(table(found))
    if bad := [check for check in found.checks if check.bad]:
        raise NeedsPerson(
            f"{len(bad)} of {len(found.checks)} parts of {bucket.uri} are not what they should be: "
            + "; ".join(f"{check.name}: {check.bad[0]}" for check in bad[:3])
            + ("; ..." if len(bad) > 3 else "."),
            fix="Put the right bytes back (a copy of the bucket, its older object versions). Training goes on from "
            "the newest checkpoint that is good, if there is one.",
        )
