"""The shell of `baton launch`: asks, writes what was agreed to, and sees to it that a VM comes."""

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import typer

from infra.billing import access_of, cache_folder, live_prices
from infra.cli.confirm import confirm
from infra.cli.follow import follow
from infra.cli.launch import project_of, show_plan, surroundings
from infra.cli.output import print_json
from infra.cloud.access import explained, open_cloud, who_asks
from infra.compute import OVERRIDE
from infra.expected import advised
from infra.launch.first_vm import FirstVm
from infra.launch.planning import Asked, LaunchPlan, make_plan
from infra.launch.prepare import Prepared, pin_model, prepare, prepared_of
from infra.launch.starting import begin, claim_vm, go_on, refuse_busy, refuse_taken
from infra.launch.words import plan_data
from infra.machines import find_gpu, machines
from infra.naming import bucket_of
from infra.plan import LivePrices
from infra.reading.zones import ask_advice, history
from infra.registry.images import SOURCE, Container, pin_image
from infra.registry.reference import parse_reference
from infra.watch.looks import Clock, Looks
from infra.watch.process import go_on as watch_on
from infra.watch.process import watch_runs
from infra.watch.watchdog_vm import ensure_watchdog
from infra.watchdog import Watchdog
from job.errors import ExitCode, NeedsPerson, UsageError
from job.run.claims import read_claims
from job.run.head import Status, read_head
from job.run.spec import Spec, SpecModel
from job.settings import Environment, load_secrets
from job.storage import Bucket, open_bucket
from job.views.text import printable

LAUNCHING_S = 60.0  # for the first watchdog to look
INTERVAL_S = 1.0  # between two looks at a VM that somebody waits for


def launch_run(
    asked: Asked,
    uri: str,
    recipe: Path | None,
    overrides: list[str],
    environment: Environment,
    *,
    yes: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Everything but the dry run. `recipe` None: the run exists and goes on."""
    find_gpu(asked.gpu)  # what is wrong in the command line is said before anything is contacted
    _require(environment, new=recipe is not None)
    prepared = None if recipe is None else prepare(recipe, overrides)
    bucket = open_bucket(uri)
    spec: Spec | None = None
    if prepared is None:
        spec = refuse_busy(bucket)
        prepared = prepared_of(spec)
    else:
        refuse_taken(bucket)
    container = _container(uri, spec, environment)
    plan = _plan(asked, uri, prepared, environment, bucket, container)
    model = spec.model if spec is not None else pin_model(prepared.settings)
    show_plan(plan, err=True)
    confirm(f"Start {uri} for at most ${plan.machine.max_usd:.2f}?", yes=yes)
    if not asked.watch_here:
        _ensure_watchdog(plan)
    watchdog = _start(bucket, plan, prepared, spec, model)
    code = _see_it_come(bucket, plan, watchdog, detach=detach, watch_here=asked.watch_here)
    if as_json:
        print_json({"plan": plan_data(plan), "claims": read_claims(bucket).model_dump(mode="json")})
    raise typer.Exit(code)


def _see_it_come(bucket: Bucket, plan: LaunchPlan, watchdog: Watchdog, *, detach: bool, watch_here: bool) -> int:
    """Ticks until a VM runs, then follows the run, or leaves; the exit code."""
    stopping = threading.Event()
    ticking = threading.Thread(target=watch_on, args=(watchdog, watchdog.is_over, stopping), daemon=True)
    try:
        FirstVm(plan.uri, plan.machine.project, watchdog, _say).wait(patient=not detach)
        if detach:
            _say(f"detached; the run goes on. See it: baton attach {plan.uri}")
            return ExitCode.FINISHED
        if watch_here:
            ticking.start()
        code = follow(bucket)
        if watch_here and _is_over(bucket):
            ticking.join()  # its VM is deleted, too
    except KeyboardInterrupt:
        _say(f"detached; the run goes on. See it: baton attach {plan.uri}")
        code = ExitCode.FINISHED
    if watch_here and not watchdog.is_over():
        _say(f"nobody watches it from here any more: baton watchdog run {plan.uri}, or: baton watchdog up")
    stopping.set()
    return code


def _is_over(bucket: Bucket) -> bool:
    """Whether nothing is to come of the run: a person who detached left it before that."""
    head = read_head(bucket)
    return read_claims(bucket).want != "run" or (head is not None and head.status is Status.FINISHED)


def _container(uri: str, spec: Spec | None, environment: Environment) -> Container:
    """What the VMs run: a run that has VMs keeps its digest, whatever its tag has come to mean. Raises BatonError."""
    if spec is None or spec.machine is None:
        return pin_image(_image(environment), environment)
    fix = f"Another one, for the attempts to come: baton resume {uri} --image"
    try:
        kept = pin_image(spec.machine.image, environment, source="the run's container")
    except UsageError as error:
        raise UsageError(error.what, fix=f"{fix} ...") from None
    return Container(kept.image, f"the run's own, {kept.known}. {fix}")


def _plan(
    asked: Asked, uri: str, prepared: Prepared, environment: Environment, bucket: Bucket, container: Container
) -> LaunchPlan:
    """With what only the cloud knows: where the bucket is, which image is booted, where spot VMs are to be had."""
    around = surroundings(uri, environment, container, bucket_region=(bucket.location() or "").lower() or None)
    cloud = open_cloud(around.project)
    with explained(around.project, "looking up the boot image"):
        image = cloud.dated_image(environment.boot_image or machines().boot_image)
    around = replace(around.booting(image), live=_todays_prices(around.project))
    known = history(bucket_of(uri))
    plan = make_plan(asked, prepared, around, known)
    if not asked.spot:
        return plan
    return make_plan(asked, prepared, around, advised(known, ask_advice(cloud.advice, plan.ranked)))


def _todays_prices(project: str) -> LivePrices | None:
    """Of the billing catalog, read once a day; None where it cannot be read: the file's count, with their date."""
    key = load_secrets().baton_billing_key
    secret = None if key is None else key.get_secret_value()
    access = access_of(os.environ, project, secret, elsewhere=bool(os.environ.get(OVERRIDE)))
    return live_prices(access, None if access is None else cache_folder(os.environ), f"{datetime.now(UTC):%Y-%m-%d}")


def _start(bucket: Bucket, plan: LaunchPlan, prepared: Prepared, spec: Spec | None, model: SpecModel) -> Watchdog:
    """Files and spec, claim, and a watchdog of this process's own."""
    began_s = time.monotonic()
    if spec is None:
        begin(bucket, plan, prepared, model)
    else:
        go_on(bucket, spec, plan)
    clock = Clock()
    Looks(plan.uri, bucket, clock).tell_looked(who_asks(), "launching", clock.time_s() + LAUNCHING_S)
    claim_vm(bucket, plan, clock.time_s())  # the bucket's time: the cap is counted from here
    _say(phase_line("claim", time.monotonic() - began_s))
    return watch_runs([plan.uri], interval_s=INTERVAL_S)


def _ensure_watchdog(plan: LaunchPlan) -> None:
    began_s = time.monotonic()
    vm = ensure_watchdog(bucket_of(plan.uri), plan.machine.project, plan.machine.image, plan.machine.subnet)
    if vm is not None:
        _say(f"{vm.name} runs in {vm.zone} and watches")
        _say(phase_line("watchdog", time.monotonic() - began_s))


def phase_line(phase: str, seconds: float) -> str:
    """A phase that is over, as `baton attach` writes them."""
    return f"  {phase:<12}{seconds:7.1f} s"


def _require(environment: Environment, *, new: bool) -> None:
    """Raises NeedsPerson for what a VM cannot do without; UsageError for what is no name of a container. `new`: the run
    has no container of its own yet."""
    if project_of(environment) is None:
        raise NeedsPerson("No project is known: VMs are created in one.", fix="Set BATON_PROJECT=PROJECT.")
    if new:
        parse_reference(_image(environment), SOURCE)


def _image(environment: Environment) -> str:
    if not environment.image:
        raise NeedsPerson(
            "No container image is named: VMs run one.",
            fix="Set BATON_IMAGE=HOST/PROJECT/REPO/NAME:TAG, or ...NAME@sha256:...",
        )
    return environment.image


def _say(text: str) -> None:
    for line in text.splitlines():
        typer.echo(printable(line), err=True)
