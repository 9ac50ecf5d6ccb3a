"""`baton down`."""

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json
from infra.cli.runs import open_run, project_of
from job.errors import Transient

if TYPE_CHECKING:
    from infra.cloud.types import HandsOn, Vm
    from job.run.claims import Claims
    from job.storage import Bucket

app = typer.Typer(add_completion=False)
LOOK_EVERY_S = 2.0
PATIENCE_S = 300.0


@app.command()
def down(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Stops a run and deletes its VMs, now. What is durable stays in the bucket; `baton resume` goes on.

    A VM that works is told by its power button first: its attempt saves what it has, as at a preemption.
    """
    from infra.cli.confirm import confirm
    from infra.cloud.access import explained, open_cloud, who_asks
    from infra.naming import OF_RUN, OWNER, hash8
    from job.run.claims import update_claims
    from job.run.spec import read_spec
    from job.views.status import read_status

    bucket = open_run(run)
    read_status(bucket)  # refuses what is no run
    who, spec = who_asks(), read_spec(bucket)
    vms: tuple[Vm, ...] = ()
    unreachable: frozenset[str] = frozenset()
    cloud = None
    if bucket.uri.startswith("gs://") and spec is not None and spec.machine is not None:
        cloud = open_cloud(project_of(spec))
        with explained(cloud.project, "listing the run's VMs"):
            found = cloud.list_vms({OWNER: "run", OF_RUN: hash8(bucket.uri)})
        vms, unreachable = found.vms, found.unreachable
    for vm in vms:
        typer.echo(f"  {vm.name}  {vm.zone}  {vm.machine_type}  {vm.status.value}", err=True)
    confirm(f"Stop {bucket.uri} and delete {_count(len(vms))}?", yes=yes)
    update_claims(bucket, lambda claims: _not_wanted(claims, who))
    if cloud is not None:
        for vm in vms:
            with explained(cloud.project, f"deleting {vm.name}"):
                cloud.delete(vm.zone, vm.name)
        _wait_and_record(bucket, cloud, vms, who)
    if as_json:
        print_json({"uri": bucket.uri, "want": "stop", "deleted": [vm.name for vm in vms]})
    else:
        typer.echo(f"{bucket.uri} is stopped; {_count(len(vms))} deleted", err=True)
    if unreachable:
        raise Transient(
            f"{', '.join(sorted(unreachable))} did not answer: VMs there are not known of.", fix="Run it again later."
        )


def _not_wanted(claims: "Claims", who: str) -> "Claims":
    if claims.want != "run":
        return claims
    return claims.model_copy(update={"want": "stop", "reason": f"by {who} (baton down)"})


def _wait_and_record(bucket: "Bucket", cloud: "HandsOn", vms: "tuple[Vm, ...]", who: str) -> None:
    """Until every VM is gone, which is then written to its claim: what it cost does not grow any more."""
    from infra.cloud.access import explained
    from infra.control import ended_by_hand
    from infra.naming import attempt_of
    from job.run.claims import SeenEnd, update_claims
    from job.run.head import read_head

    until_s = time.monotonic() + PATIENCE_S
    for vm in vms:
        while True:
            with explained(cloud.project, f"looking at {vm.name}"):
                seen = cloud.get_vm(vm.zone, vm.name)
            if seen is None or seen.instance_id != vm.instance_id:
                break
            if time.monotonic() > until_s:
                raise Transient(
                    f"{vm.name} is still {seen.status.value}.", fix="It is being deleted; look again later."
                )
            time.sleep(LOOK_EVERY_S)
        named, head = attempt_of(vm.name), read_head(bucket)
        if named is None:
            continue
        end = SeenEnd(
            how="stopped",
            at_s=vm.stopped_s or time.time(),
            detail=f"deleted by {who} (baton down)",
            durable_step=None if head is None or head.checkpoint is None else head.checkpoint.step,
            ran_from_s=vm.started_s or vm.created_s,
        )
        update_claims(bucket, partial(ended_by_hand, number=named[1], end=end))


def _count(vms: int) -> str:
    return "no VM" if vms == 0 else f"{vms} VM{'s' if vms > 1 else ''}"
