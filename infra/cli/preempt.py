"""`baton preempt`."""

from typing import Annotated

import typer

from infra.cli.output import print_json
from infra.cli.runs import open_run, project_of

app = typer.Typer(add_completion=False)


@app.command()
def preempt(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A drill: the run's spot VM is preempted as the platform would, to see the run go on elsewhere.

    Recorded in the run first, so that nobody takes it for the platform's own doing.
    """
    from infra.cli.confirm import confirm
    from infra.cloud.access import explained, open_cloud, who_asks
    from infra.cloud.types import VmStatus
    from infra.control import drill_target, drilled, refuse_finished
    from job.errors import UsageError
    from job.run.claims import read_claims, update_claims
    from job.run.head import read_head
    from job.run.spec import read_spec
    from job.views.status import read_status

    bucket = open_run(run)
    found = read_status(bucket)  # refuses what is no run
    refuse_finished(bucket.uri, read_head(bucket))
    claim = drill_target(read_claims(bucket), bucket.uri)
    assert claim.vm is not None
    assert claim.zone is not None
    cloud = open_cloud(project_of(read_spec(bucket)))
    with explained(cloud.project, f"looking at {claim.vm}"):
        vm = cloud.get_vm(claim.zone, claim.vm)
    if vm is None or vm.status is not VmStatus.RUNNING:
        is_now = "gone" if vm is None else vm.status.value
        raise UsageError(f"{claim.vm} is {is_now}: there is nothing to preempt.", fix=f"See: baton status {bucket.uri}")
    question = f"Preempt {claim.vm} in {claim.zone} (attempt {claim.number} of {bucket.uri})?"
    if found.looked is None or found.looked.overdue:
        question += " Nobody looks after the run at the moment: it goes on when a watchdog is started."
    confirm(question, yes=yes)
    who = who_asks()
    update_claims(bucket, lambda claims: drilled(claims, claim.number, who))
    with explained(cloud.project, f"preempting {claim.vm}"):
        cloud.preempt(claim.zone, claim.vm)
    if as_json:
        print_json({"uri": bucket.uri, "attempt": claim.number, "vm": claim.vm, "zone": claim.zone, "drill": who})
    else:
        typer.echo(f"{claim.vm} is being preempted; see it go on: baton attach {bucket.uri}", err=True)
