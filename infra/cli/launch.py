"""`baton launch`, which `infra/launch.sh` is."""

import os
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json, print_table
from job.errors import UsageError

if TYPE_CHECKING:
    from infra.launch.planning import Asked, LaunchPlan, Surroundings
    from infra.registry.images import Container
    from job.settings import Environment

app = typer.Typer(add_completion=False)
RECIPE = Path(__file__).parents[2] / "recipes/demo.toml"
"""Of a new run for which none is named."""
UNSET_IMAGE = f"host/project/repository/train@sha256:{'0' * 64}"
"""Stands for BATON_IMAGE in a dry run."""


@app.command()
def launch(
    gpu: Annotated[str, typer.Option(help="l4, a100, a100-80gb, h100, h200, b200, rtx6000 or t4.")],
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe TOML; without it --run goes on, else the demo's.")
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Spot VMs; without it on-demand ones.")] = False,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else RECIPE-TIME).")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, as in train.seed=3. Repeatable."),
    ] = None,
    zone: Annotated[list[str] | None, typer.Option(help="Where VMs may be, now and later. Repeatable.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Where VMs may be, now and later. Repeatable.")] = None,
    max_usd: Annotated[
        float | None,
        typer.Option(min=0.01, help="What all VMs of the run may cost together (default: twice the estimate)."),
    ] = None,
    on_demand: Annotated[
        str,
        typer.Option(metavar="never|after:T|deadline", help="When an on-demand VM may be taken instead of a spot one."),
    ] = "never",
    deadline: Annotated[
        datetime | None, typer.Option(help="When it has to be finished, local time unless it says another.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once a VM runs, or none is to be had now.")] = False,
    watch_here: Annotated[
        bool, typer.Option("--watch-here", help="Watch from this process instead of the bucket's watchdog VM.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan and requests; needs neither credentials nor network.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Starts a run on a VM, which is replaced when it is preempted, until the run is finished.

    Shows offers, cost, what is created and who receives data, asks, and follows the VM to its first steps. Ctrl-C
    detaches: the run goes on.
    """
    from infra.launch.fall_back import fall_back_of, seconds_of
    from infra.launch.planning import Asked, run_name
    from job.settings import load_environment

    if detach and watch_here:
        raise UsageError("--detach leaves, --watch-here stays.", fix="Give one of them.")
    environment = load_environment()
    named = run or environment.run
    if overrides and recipe is None and named:
        raise UsageError("--set changes a recipe, and none is named.", fix="A run that exists keeps its settings.")
    asked = Asked(
        gpu,
        spot,
        tuple(zone or ()),
        tuple(region or ()),
        max_usd,
        watch_here,
        fall_back_of(on_demand),
        seconds_of(deadline, time.time()),
    )
    new = recipe if recipe is not None else None if named else RECIPE
    uri = _uri(named or run_name(new or RECIPE, time.time()), environment, dry_run=dry_run)
    if dry_run:
        _dry_run(asked, uri, new, overrides or [], environment, as_json=as_json)
        return
    from infra.cli.launching import launch_run

    launch_run(asked, uri, new, overrides or [], environment, yes=yes, detach=detach, as_json=as_json)


def _dry_run(
    asked: "Asked", uri: str, recipe: Path | None, overrides: list[str], environment: "Environment", *, as_json: bool
) -> None:
    """The plan and the exact first requests. Contacts nothing."""
    from infra.cloud.vm_request import insert_request
    from infra.compute import OVERRIDE, endpoint
    from infra.launch.planning import first_order, make_plan, watcher_order
    from infra.launch.prepare import prepare
    from infra.launch.words import plan_data, request_lines

    if recipe is None:
        raise UsageError(f"what {uri} is made of is in the bucket.", fix="Name the recipe; or leave out --dry-run.")
    prepared = prepare(recipe, overrides)
    around = surroundings(uri, environment, unresolved(environment.image), bucket_region=None)
    plan = make_plan(asked, prepared, around)
    orders = [order for order in (watcher_order(plan, str(uuid.uuid4())), first_order(plan)) if order is not None]
    requests, at = [insert_request(order, around.project) for order in orders], endpoint(os.environ.get(OVERRIDE, ""))
    if as_json:
        asks = [{"method": "POST", "url": f"{at}{asked.path}", "body": asked.body} for asked in requests]
        print_json({"plan": plan_data(plan), "requests": asks})
        return
    show_plan(plan)
    for unset in ("bucket", "project", "image"):
        if getattr(environment, unset) is None and not (unset == "bucket" and "://" in uri):
            typer.echo(f"note     BATON_{unset.upper()} is not set: a name that stands for it is shown")
    *watchdog, first = requests
    for request in watchdog:
        typer.echo("\nthe watchdog VM's request, where the bucket has none yet (nothing was sent):")
        typer.echo("\n".join(request_lines(request, at)))
    typer.echo("\nthe first attempt's request (nothing was sent):")
    typer.echo("\n".join(request_lines(first, at)))


def show_plan(plan: "LaunchPlan", *, err: bool = False) -> None:
    """What is about to happen, for people."""
    from infra.launch.words import offers_table, plan_lines
    from job.views.text import printable

    for line in plan_lines(plan):
        typer.echo(printable(line), err=err)
    print_table(offers_table(plan.ranked), err=err)


def unresolved(image: str | None) -> "Container":
    """The container of a plan that asks no registry: a tag, and none at all, has a digest that stands for it. Raises
    UsageError for what is no name of one."""
    from infra.registry.images import SOURCE, Container
    from infra.registry.reference import parse_reference

    if image is None:
        return Container(UNSET_IMAGE, "")
    reference = parse_reference(image, SOURCE)
    if reference.digest is not None:
        return Container(reference.pinned(reference.digest), "as given; not looked up in a dry run")
    return Container(
        reference.pinned(f"sha256:{'0' * 64}"), f"stands for {reference}, which a launch resolves and wants attested"
    )


def surroundings(
    uri: str, environment: "Environment", container: "Container", bucket_region: str | None
) -> "Surroundings":
    """Where it happens, with names that stand for what is not set."""
    from infra.compute import OVERRIDE, endpoint
    from infra.launch.planning import Surroundings
    from infra.machines import machines
    from job.run.spec import SUBNET
    from job.settings import load_secrets

    project = project_of(environment) or "PROJECT"
    storage = os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
    return Surroundings(
        uri=uri,
        project=project,
        image=container.image,
        image_known=container.known,
        boot_image=environment.boot_image or machines().boot_image,
        service_account=environment.service_account or f"baton-vm@{project}.iam.gserviceaccount.com",
        bucket_region=bucket_region,
        endpoints=(endpoint(os.environ.get(OVERRIDE, "")), storage if "://" in storage else f"http://{storage}"),
        has_hub_token=load_secrets().hf_token is not None,
        subnet=environment.subnet or SUBNET,
        secrets=environment.secrets(),
    )


def project_of(environment: "Environment") -> str | None:
    """The project that VMs are created in: BATON_PROJECT, else what Google's own tools go by."""
    return (
        environment.project or os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("CLOUDSDK_CORE_PROJECT") or None
    )


def _uri(name: str, environment: "Environment", *, dry_run: bool) -> str:
    from infra.naming import bucket_of
    from job.run.uri import run_uri

    uri = run_uri(name, environment.bucket or ("gs://BUCKET" if dry_run else None))
    bucket_of(uri)
    return uri
