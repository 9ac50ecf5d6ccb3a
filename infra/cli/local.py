"""`baton local ...`: Google Cloud on this machine, and what may go wrong there, on demand."""

import os
import shlex
from typing import Annotated, Any

import typer

from infra.cli.output import print_json, print_table
from infra.localcloud.state import bring_down, bring_up, find, home_folder

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Compute Engine, its VMs and Cloud Storage on this machine: to try Baton without an account, and to see it "
    'survive what goes wrong. Begin with: baton local up && eval "$(baton local env)"',
)
PROJECT = "baton-local"
PASSED_ON = ("BATON_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")
"""Of this environment, what containers on the local cloud's VMs see as if their image set it."""
UNSET = ("GOOGLE_APPLICATION_CREDENTIALS",)
"""A person's own login is shown to Google only."""
Vm = Annotated[str, typer.Argument(metavar="VM", help="Name of the VM.")]
Over = Annotated[bool, typer.Option("--over", help="No more of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def up(
    scale: Annotated[
        float,
        typer.Option(min=0.1, max=1000, help="How many times faster than in Google Cloud things take their time."),
    ] = 1.0,
    project: Annotated[str, typer.Option(help="Its only project.")] = PROJECT,
    image_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What containers see as if their image set it. Repeatable."),
    ] = None,
    pull: Annotated[float, typer.Option(min=0, help="Seconds that `docker pull` takes on its VMs.")] = 0.0,
) -> None:
    """Starts the local cloud; returns when it is ready. One that runs already is no error.

    --scale makes boot, notice, ACPI grace and waits that many times shorter; programs, --pull and maxRunDuration take
    their real time.
    """
    passed_on = [f"{name}={os.environ[name]}" for name in PASSED_ON if os.environ.get(name)]
    flags = [flag for pair in (*passed_on, *(image_env or ())) for flag in ("--image-env", pair)]
    running, started = bring_up(home_folder(), project, scale, [*flags, "--pull-s", str(pull)])
    say = "The local cloud is up" if started else "The local cloud was up already"
    typer.echo(f"{say}: project {running.project}, bucket gs://{running.bucket}, scale {running.scale:g}.", err=True)
    typer.echo('Point this shell at it: eval "$(baton local env)"', err=True)


@app.command()
def down() -> None:
    """Ends the local cloud and all its VMs. Buckets stay for the next `up`; VMs then look as after a host error."""
    ran = bring_down(home_folder())
    typer.echo("The local cloud is down." if ran else "The local cloud was not up.", err=True)


@app.command()
def env(as_json: AsJson = False) -> None:
    """What points this shell's clients at it: baton, Google's libraries, gcloud. Use: eval "$(baton local env)"."""
    values = find(home_folder()).environment()
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"unset {' '.join(UNSET)}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Its VMs, and which troubles are armed."""
    found = find(home_folder()).look()
    if as_json:
        print_json(found)
    else:
        print_table(_table(found))


@app.command()
def preempt(
    vm: Vm,
    notice: Annotated[
        int | None,
        typer.Option(
            help="120: metadata, then ACPI; 30: ACPI only; 0: the power is cut. Default: what the VM asked for."
        ),
    ] = None,
) -> None:
    """Takes a spot VM back, as the platform does."""
    _order("preempt", f"{vm} is being preempted.", vm=vm, notice_s=notice)


@app.command()
def stockout(
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="A zone, or a pattern such as 'us-*' or '*'.")],
    machine_type: Annotated[str, typer.Option(help="Only of these machine types; a pattern.")] = "*",
    seconds: Annotated[float | None, typer.Option("--for", metavar="SECONDS", help="Only for so long.")] = None,
    over: Over = False,
) -> None:
    """No capacity there from now on. The newest that fits decides: stockout '*', then stockout --over ZONE."""
    words = f"{zone} {'has capacity again' if over else 'has no capacity'}."
    _order("stockout", words, zone=zone, machine_type=machine_type, for_s=seconds, over=over)


@app.command()
def quota(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="Such as PREEMPTIBLE_NVIDIA_L4_GPUS.")],
    limit: Annotated[float, typer.Option(min=0, help="The new limit.")] = 0.0,
    region: Annotated[str, typer.Option(help="A region, or a pattern.")] = "*",
    where: Annotated[
        str, typer.Option("--in", metavar="operation|http", help="Where an excess is told: there are both.")
    ] = "operation",
    over: Annotated[bool, typer.Option("--over", help="The usual limit again.")] = False,
) -> None:
    """Another limit for a quota; region and metric as Google Cloud names them."""
    words = f"{metric} has {'its usual limit' if over else f'the limit {limit:g}'}."
    _order("quota", words, metric=metric, limit=limit, region=region, where=where, over=over)


@app.command("host-error")
def host_error(vm: Vm) -> None:
    """The machine under a VM fails."""
    _order("host-error", f"The host of {vm} has failed.", vm=vm)


@app.command()
def partition(vm: Vm, over: Over = False) -> None:
    """Takes a VM's network away: storage, metadata and APIs are out of its reach, it runs on."""
    _order("partition", f"{vm} has {'its network back' if over else 'no network'}.", vm=vm, over=over)


@app.command()
def zombie(vm: Vm) -> None:
    """Reports a VM as preempted and gone while it runs on."""
    _order("zombie", f"{vm} is reported gone, and runs on.", vm=vm)


@app.command("sick-gpu")
def sick_gpu(vm: Vm) -> None:
    """The GPU of a VM fails; of one that is not there yet, once it boots."""
    _order("sick-gpu", f"The GPU of {vm} is sick.", vm=vm)


@app.command("out-of-memory")
def out_of_memory(vm: Vm) -> None:
    """The kernel of a VM kills its container for want of memory."""
    _order("out-of-memory", f"{vm} has run out of memory.", vm=vm)


@app.command("api-down")
def api_down(
    seconds: Annotated[float, typer.Argument(min=0, metavar="SECONDS", help="Real seconds; 0 ends it.")],
) -> None:
    """Compute Engine answers 503 for so long. VMs live on, Cloud Storage answers."""
    _order("api-down", f"Compute Engine is down for {seconds:g} s.", seconds=seconds)


@app.command()
def clear() -> None:
    """Disarms every stockout, quota and fault."""
    _order("clear", "Nothing is armed any more.")


def _order(do: str, words: str, **details: Any) -> None:
    given = {key: value for key, value in details.items() if value is not None}
    find(home_folder()).order(do, **given)
    typer.echo(words, err=True)


def _table(found: dict[str, Any]) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("VM", "zone", "machine type", "spot", "status"):
        table.add_column(name)
    for vm in found["vms"]:
        row = (vm["name"], vm["zone"], vm["machine_type"], "yes" if vm["spot"] else "no", vm["status"])
        table.add_row(*map(Text, row))
    armed = [f"{kind}: {each}" for kind, some in found["faults"].items() if some for each in _each(some)]
    return Group(table, *map(Text, armed or ["no troubles are armed"]))


def _each(some: Any) -> list[Any]:
    return list(some) if isinstance(some, list) else [some]
