"""Which commands there are. The module of a command is imported only when that command is called."""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from job.errors import UsageError

LOCAL_CLOUD = "infra.localcloud"

COMMANDS = {
    "demo": "The whole story on this machine: launch, be preempted, go on elsewhere, compare the weights.",
    "train": "One attempt at a run, here: starts it, or goes on where it stopped.",
    "ls": "All runs of a bucket: what each one does, how far it is, what it has cost.",
    "setup": "Makes a project on Google Cloud ready for runs, or takes that back.",
    "doctor": "Whether a project can run a recipe, and the command that mends what it lacks.",
    "launch": "Starts a run on a VM that is replaced when it is preempted, until the run is finished.",
    "status": "What a run does, how far it is, and how each attempt ended.",
    "cost": "What a run cost, what that bought, and what it would have cost on demand.",
    "attach": "Follows a run: phases with their seconds, then the training line.",
    "logs": "What a run said: its attempts' lines and the consoles of their VMs.",
    "get": "Downloads the result of a finished run, every file verified.",
    "stop": "Stops a run: its attempt saves everything and leaves.",
    "resume": "Lets a run go on that was stopped or has failed; changes image, cap or place.",
    "preempt": "A drill: preempts the run's spot VM as the platform would.",
    "watchdog": "Looks after runs: recreates VMs that were preempted, holds the cap, leaves nothing.",
    "down": "Stops a run and deletes its VMs, now.",
    "gc": "Lists what is left over, VMs, disks and objects, and deletes it when told so.",
    "local": "Google Cloud on this machine: VMs, storage, and what goes wrong there on demand.",
    "report": "A run as one HTML page: verdict, reward, attempts, samples, lineage.",
    "config": "The settings that a recipe comes to, and where each value is from.",
}
"""Name, which is also the module's in infra.cli, and line in the help."""


class LazyGroup(TyperGroup):
    """Lists commands by their line above; a command that is called is imported then."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself instead of its line."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else load(name), rest


def make_group() -> LazyGroup:
    """`baton`."""
    app = typer.Typer(
        cls=LazyGroup,
        help="GRPO fine-tuning at spot price that never loses its place.",
        epilog="RUN is a URI (gs://BUCKET/runs/NAME, file:///path) or a NAME in the bucket of BATON_BUCKET.",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
    )
    app.callback()(_nothing)
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    for name, line in COMMANDS.items():
        group.add_command(TyperCommand(name, help=line), name)
    return group


def load(name: str) -> Any:
    """The command of that name, from the `app` of its module. Raises UsageError for one that the image has not."""
    try:
        return get_command(importlib.import_module(f"infra.cli.{name}").app)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(LOCAL_CLOUD):
            raise
        raise UsageError(
            f"baton {name} is not in the image, which has no local cloud.", fix="It works in a clone: make setup."
        ) from None


def _nothing() -> None:
    pass
