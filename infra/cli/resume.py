"""`baton resume`."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json
from infra.cli.runs import open_run
from job.errors import UsageError

if TYPE_CHECKING:
    from job.run.spec import Machine

app = typer.Typer(add_completion=False)


@app.command()
def resume(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Container of the next attempts, by digest or tag.")] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0.01, help="What all VMs of the run may cost together, those before included.")
    ] = None,
    spot: Annotated[
        bool | None, typer.Option("--spot/--no-spot", help="Which VMs the next attempts get (default: as before).")
    ] = None,
    on_demand: Annotated[
        str | None,
        typer.Option(metavar="never|after:T|deadline", help="When an on-demand VM may be taken instead of a spot one."),
    ] = None,
    zone: Annotated[list[str] | None, typer.Option(help="Where VMs may be from now on. Repeatable.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Where VMs may be from now on. Repeatable.")] = None,
    deadline: Annotated[
        datetime | None, typer.Option(help="When it has to be finished, local time unless it says another.")
    ] = None,
    watch_here: Annotated[
        bool, typer.Option("--watch-here", help="Watch from this process instead of the bucket's watchdog VM.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lets a run that was stopped, or has failed, go on where it stopped; with options also one that is under way.

    What changes becomes a new revision of the run's spec, for the attempts to come. The bucket's watchdog VM, started
    where there is none, creates the run's VM; a run of processes goes on by `baton train`.
    """
    from infra.cli.confirm import confirm
    from infra.cloud.access import who_asks
    from infra.control import Changes, refuse_finished, refuse_spent, revised, wanted_again
    from infra.launch.fall_back import fall_back_of, seconds_of
    from infra.launch.planning import Asked, check_places
    from infra.registry.images import pin_image
    from job.run.claims import read_claims, update_claims
    from job.run.head import read_head
    from job.run.revise import this_commit
    from job.run.spec import read_spec, write_spec
    from job.settings import load_environment
    from job.views.status import read_status
    from job.views.text import printable

    bucket = open_run(run)
    read_status(bucket)  # refuses what is no run
    refuse_finished(bucket.uri, read_head(bucket))
    spec, claims, now_s = read_spec(bucket), read_claims(bucket), time.time()
    if spec is None:
        raise UsageError(
            f"{bucket.uri} has no spec: nothing says what to train.", fix="`baton train RECIPE` writes one."
        )
    container = None
    if image is not None and spec.machine is not None:
        container = pin_image(image, load_environment(), source="--image")
        typer.echo(printable(f"{container.image}: {container.known}"), err=True)
    fall_back = None if on_demand is None else fall_back_of(on_demand)
    changes = Changes(
        image=image if container is None else container.image,
        max_usd=max_usd,
        spot=spot,
        on_demand=None if fall_back is None else fall_back.when,
        on_demand_after_s=None if fall_back is None else fall_back.after_s,
        zones=tuple(zone or ()),
        regions=tuple(region or ()),
        deadline_s=seconds_of(deadline, now_s),
        secrets=None if spec.machine is None else load_environment().secrets() or None,  # they may have been rotated
    )
    if spec.machine is not None and (zone or region):
        check_places(spec.machine.gpu, Asked(spec.machine.gpu, spec.machine.spot, changes.zones, changes.regions))
    revision = revised(spec, changes, who=who_asks(), commit=this_commit(), now_s=now_s)
    if claims.want == "run" and revision is None:
        raise UsageError(f"the run {bucket.uri} is under way already: nothing to resume, nothing to change.")
    machine = (revision or spec).machine
    if machine is not None:
        left_usd = refuse_spent(machine, claims.attempts, now_s, bucket.uri)
        confirm(
            f"Let {bucket.uri} go on? Its VMs may cost ${left_usd:.2f} more (cap ${machine.max_usd:.2f}). "
            f"{_who_watches(watch_here=watch_here)}",
            yes=yes,
        )
        watched_by = "this process" if watch_here else _ensure_watchdog(bucket.uri, machine)
    if revision is not None:
        write_spec(bucket, revision)
    update_claims(bucket, lambda claims: wanted_again(claims, now_s))
    if as_json:
        accepted = [] if revision is None else list(revision.accepted)
        print_json({"uri": bucket.uri, "want": "run", "revision": (revision or spec).revision, "changed": accepted})
    changed = "" if revision is None else f" by revision {revision.revision} ({', '.join(revision.accepted)})"
    typer.echo(f"{bucket.uri} is wanted again{changed}", err=True)
    if machine is None:
        typer.echo(f"  it goes on by: baton train --run {bucket.uri}", err=True)
        return
    typer.echo(f"  {watched_by} watches it", err=True)
    if watch_here:
        _watch(bucket.uri)


def _who_watches(*, watch_here: bool) -> str:
    from infra.machines import machines

    if watch_here:
        return "This process watches it, as long as it runs."
    usd = machines().watchdog_usd_per_hour
    return f"The bucket's watchdog VM watches it (${usd:.3f}/h for all runs together), started when it is not there."


def _ensure_watchdog(uri: str, machine: "Machine") -> str:
    """Somebody watches before the run is wanted: an attempt that nobody replaces would be its last."""
    from infra.naming import bucket_of, watchdog_name
    from infra.watch.watchdog_vm import ensure_watchdog

    bucket = bucket_of(uri)
    vm = ensure_watchdog(bucket, machine.project, machine.image, machine.subnet)
    return watchdog_name(bucket) if vm is None else f"{vm.name}, which was started in {vm.zone},"


def _watch(uri: str) -> None:
    """Until the run is over and nothing of it is left, or a signal comes."""
    from infra.watch.process import go_on, until_signalled, watch_runs

    watchdog = watch_runs([uri])
    with until_signalled() as stopping:
        go_on(watchdog, watchdog.is_over, stopping)
    if not watchdog.is_over():
        typer.echo(f"nobody watches it from here any more: baton watchdog run {uri}, or: baton watchdog up", err=True)
