"""`baton watchdog run|up|down|status`."""

import time
from typing import Annotated

import typer

from infra.cli.output import print_json
from job.errors import NeedsPerson, Transient, UsageError
from job.settings import load_environment
from job.settings.environment import Environment

app = typer.Typer(
    add_completion=False, help="Looks after runs: recreates VMs that were preempted, holds the cap, leaves nothing."
)

Bucket = Annotated[str | None, typer.Option("--bucket", help="gs://BUCKET (default BATON_BUCKET).")]
Project = Annotated[str | None, typer.Option("--project", help="Google Cloud project (default BATON_PROJECT).")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("run")
def run_(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="URIs of runs, or their names in BATON_BUCKET.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs of the bucket, those to come included.")] = False,
    once: Annotated[bool, typer.Option("--once", help="One look, and what follows from it; for a scheduler.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=300, help="Seconds between two looks at the VMs.")] = 2.5,
    bucket: Bucket = None,
) -> None:
    """Looks after runs from here, in the foreground. Any number may do so at once; each may be killed at any time.

    With runs named it ends when they are finished, stopped or failed and nothing of them is left.
    """
    from infra.reading.runs import runs_of
    from infra.watch.process import go_on, until_signalled, watch_bucket, watch_runs
    from job.run.uri import run_uri

    environment = load_environment()
    if everything == bool(run):
        raise UsageError("Name runs, or give --all.", fix="baton watchdog run RUN, or: baton watchdog run --all")
    if everything:
        uri = _bucket(bucket, environment)
        watchdog = watch_bucket(uri, interval_s=interval)
        typer.echo(f"watching all runs of {uri}: {len(runs_of(uri))} now", err=True)
    else:
        uris = [run_uri(name, bucket or environment.bucket) for name in run or ()]
        watchdog = watch_runs(uris, interval_s=interval)
        typer.echo(f"watching {', '.join(uris)}", err=True)
    with until_signalled() as stopping:
        go_on(watchdog, lambda: once or (not everything and watchdog.is_over()), stopping)
    troubles = [f"{watched.uri}: {watched.trouble}" for watched in watchdog.watched.values() if watched.trouble]
    if once and troubles:
        raise Transient("; ".join(troubles))


@app.command()
def up(
    bucket: Bucket = None,
    project: Project = None,
    zone: Annotated[str | None, typer.Option(help="Where it is to be (default: in the bucket's region).")] = None,
    image: Annotated[str | None, typer.Option(help="Container, by digest or tag (default BATON_IMAGE).")] = None,
    service_account: Annotated[
        str | None, typer.Option(help="Whose rights it has (default baton-watchdog@PROJECT.iam.gserviceaccount.com).")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Creates the bucket's watchdog VM: small, standard, no GPU. One that is there already is left as it is."""
    from infra.cli.confirm import confirm
    from infra.machines import machines
    from infra.naming import watchdog_account
    from infra.registry.images import SOURCE, pin_image
    from infra.watch.watchdog_vm import create_watchdog, find_watchdog, watchdog_zones, watches
    from job.run.spec import SUBNET
    from job.views.text import printable

    environment = load_environment()
    uri, project = _bucket(bucket, environment), _project(project, environment)
    found = find_watchdog(uri, project)
    if found is None or not watches(found):
        wanted = image or environment.image
        if not wanted:
            raise UsageError("No image is named.", fix="Give --image, or set BATON_IMAGE.")
        container = pin_image(wanted, environment, source="--image" if image else SOURCE)
        typer.echo(printable(f"{container.image}: {container.known}"), err=True)
        where = (zone,) if zone else watchdog_zones(uri)
        small, usd = machines().watchdog, machines().watchdog_usd_per_hour
        confirm(
            f"Create a {small.machine_type} in {where[0]} that watches all runs of {uri} "
            f"(${usd:.3f}/h with its disk, ${24 * 30 * usd:.0f} a month)?",
            yes=yes,
        )
        account = service_account or watchdog_account(project)
        found = create_watchdog(
            uri,
            project,
            where,
            image=container.image,
            service_account=account,
            subnet=environment.subnet or SUBNET,
        )
    if as_json:
        print_json({"bucket": uri, "vm": found.name, "zone": found.zone, "status": found.status.value})
    else:
        typer.echo(f"{found.name} in {found.zone} watches {uri} ({found.status.value})", err=True)


@app.command()
def down(bucket: Bucket = None, project: Project = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Deletes the bucket's watchdog VM. Its runs go on; nobody recreates their VMs then."""
    from infra.cli.confirm import confirm
    from infra.watch.watchdog_vm import find_watchdog, remove_watchdog

    environment = load_environment()
    uri, project = _bucket(bucket, environment), _project(project, environment)
    found = find_watchdog(uri, project)
    if found is not None:
        confirm(f"Delete {found.name}? Nobody looks after the runs of {uri} then.", yes=yes)
        remove_watchdog(uri, project)
    if as_json:
        print_json({"bucket": uri, "deleted": None if found is None else found.name})
    else:
        typer.echo(f"there is no watchdog VM of {uri}" if found is None else f"{found.name} is deleted", err=True)


@app.command()
def status(bucket: Bucket = None, project: Project = None, as_json: AsJson = False) -> None:
    """Whether the bucket's watchdog VM is there, and when somebody last looked after each of its runs."""
    from infra.reading.runs import runs_of
    from infra.watch.watchdog_vm import find_watchdog
    from job.run.looked import read_looked
    from job.storage import open_bucket
    from job.views.progress import seconds
    from job.views.text import printable

    environment = load_environment()
    uri = _bucket(bucket, environment)
    vm = find_watchdog(uri, _project(project, environment))
    looked = {run: read_looked(open_bucket(run)) for run in runs_of(uri)}
    if as_json:
        state = None if vm is None else {"vm": vm.name, "zone": vm.zone, "status": vm.status.value}
        runs = {run: None if word is None else word.model_dump(mode="json") for run, word in looked.items()}
        print_json({"bucket": uri, "watchdog": state, "runs": runs})
        return
    typer.echo(f"{uri}: " + ("no watchdog VM" if vm is None else f"{vm.name} in {vm.zone}, {vm.status.value}"))
    for run, word in looked.items():
        if word is not None:
            note = f": {word.note}" if word.note else ""
            typer.echo(printable(f"{run}  {word.watcher} {seconds(max(0.0, time.time() - word.at_s))} ago{note}"))


def _bucket(given: str | None, environment: Environment) -> str:
    uri = given or environment.bucket
    if not uri:
        raise UsageError("No bucket is named.", fix="Give --bucket gs://BUCKET, or set BATON_BUCKET.")
    return uri.rstrip("/")


def _project(given: str | None, environment: Environment) -> str:
    project = given or environment.project
    if not project:
        raise NeedsPerson("No project is known.", fix="Give --project, or set BATON_PROJECT.")
    return project
