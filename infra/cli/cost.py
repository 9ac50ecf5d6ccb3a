"""`baton cost`."""

from typing import Annotated

import typer

from infra.cli.output import print_json, print_table
from infra.cli.runs import open_run

app = typer.Typer(add_completion=False)


@app.command()
def cost(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a run cost so far, what that bought, and what it would have cost on demand. Only reads.

    VMs by the cloud's times and the prices of their claims, storage by list prices. The bill may differ: discounts,
    taxes, the watchdog VM, the bucket's own storage.
    """
    from infra.reading.costs import read_cost

    found = read_cost(open_run(run))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    from infra.reading.cost_table import render

    print_table(render(found))
