"""`baton setup`, which `infra/setup.sh` is."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from job.errors import NeedsPerson

if TYPE_CHECKING:
    from pydantic import SecretStr

    from infra.setup.run import Gcloud, Planned
    from infra.setup.steps import Step
    from infra.setup.wanted import Wanted

app = typer.Typer(add_completion=False)
REGION = "us-central1"


@app.command()
def setup(
    project: Annotated[str | None, typer.Option(help="The project's id (default BATON_PROJECT).")] = None,
    region: Annotated[str, typer.Option(help="Of bucket and registry: where most of your VMs will be.")] = REGION,
    bucket: Annotated[str | None, typer.Option(help="Name of the bucket (default PROJECT-baton).")] = None,
    nat: Annotated[
        bool, typer.Option("--nat", help="A way out for VMs: for models of the Hugging Face Hub, and for W&B.")
    ] = False,
    github: Annotated[
        str | None, typer.Option(metavar="OWNER/REPO", help="Repository whose CI pushes images, without a key.")
    ] = None,
    github_id: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Its number: gh api repos/OWNER/REPO --jq .id")
    ] = None,
    cloud_build: Annotated[
        bool, typer.Option("--cloud-build", help="Let Cloud Build make images: `make image-cloud`.")
    ] = False,
    rotate: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE", help="Store a new value of this secret. Repeatable.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what setup has made; runs and images stay.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands for an empty project. Contacts nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Makes a project on Google Cloud ready for runs: services, bucket, network, accounts, registry, secrets.

    Looks what is there, shows what it would make, asks, makes it, and writes where things are to .env. Run again, it
    makes what is missing. HF_TOKEN, GEMINI_API_KEY, OPENAI_API_KEY and WANDB_API_KEY, from the environment, .env or
    asked for, go to Secret Manager.
    """
    from infra.setup.plan import plan, undo_plan
    from infra.setup.run import Gcloud
    from infra.setup.wanted import Wanted, all_regions, check_wanted
    from job.settings import load_environment

    named = project or load_environment().project
    if named is None and not dry_run:
        raise NeedsPerson("No project is named.", fix="infra/setup.sh --project PROJECT   (gcloud projects list)")
    named = named or "my-project"
    wanted = Wanted(
        project=named,
        region=region,
        bucket=(bucket or f"{named}-baton").removeprefix("gs://").rstrip("/"),
        regions=all_regions(),
        nat=nat,
        github=github,
        github_id=github_id,
        cloud_build=cloud_build,
        rotate=_known(rotate or []),
    )
    check_wanted(wanted)
    if dry_run:
        wanted = replace(wanted, secrets=_given(ask=False))
        _print_all(undo_plan(wanted) if undo else plan(wanted), wanted, undo=undo)
        return
    cloud = Gcloud(named)
    wanted = replace(wanted, number=_number(cloud))
    if undo:
        _take_back(wanted, cloud, yes=yes)
        return
    wanted = replace(wanted, secrets=_given(ask=sys.stdin.isatty() and not yes))
    _make(wanted, cloud, yes=yes)


def _make(wanted: "Wanted", cloud: "Gcloud", *, yes: bool) -> None:
    from infra.cli.confirm import confirm
    from infra.setup.plan import plan
    from infra.setup.run import carry_out, look_at

    steps = plan(wanted)
    found = look_at(steps, cloud)
    _show(found)
    if any(one.commands for one in found):
        confirm(f"Change the project {wanted.project} so?", yes=yes)
        services, *others = found
        if services.commands:  # only now can be seen what is there of them
            carry_out([services], cloud, _say)
            others = look_at(steps[1:], cloud)
        carry_out(others, cloud, _say)
    values = _where_things_are(wanted, cloud)
    write_dotenv(Path(".env"), values)
    _say(f".env names project, bucket{', image' if 'BATON_IMAGE' in values else ''} and the versions of the secrets.")
    for line in ci_lines(wanted):
        _say(line)
    _say("The project is ready. Next: infra/launch.sh --gpu l4 --spot")


def _take_back(wanted: "Wanted", cloud: "Gcloud", *, yes: bool) -> None:
    from infra.cli.confirm import confirm
    from infra.setup.plan import undo_plan
    from infra.setup.run import carry_out, look_at

    found = look_at(undo_plan(wanted), cloud, undo=True)
    _show(found, undo=True)
    if not any(one.commands for one in found):
        _say("Nothing of it is left.")
        return
    confirm(
        f"Take this back from the project {wanted.project}? VMs must be gone: baton ls, baton watchdog down.", yes=yes
    )
    carry_out(found, cloud, lambda what: _say(f"gone: {what}"))


def _show(found: Sequence["Planned"], *, undo: bool = False) -> None:
    for one in found:
        if undo and one.found is None:
            continue
        word = ("undo" if undo else "make") if one.commands else "keep" if undo else "ok"
        _say(f"{word:<6}{one.step.what}" + (f" ({one.step.kept})" if word == "keep" and one.step.kept else ""))
        for command in one.commands:
            _say(f"        {command}")


def _print_all(steps: "Sequence[Step]", wanted: "Wanted", *, undo: bool) -> None:
    from infra.setup.run import planned

    for step in steps:
        if undo:
            typer.echo(f"# {step.what}" + (f": stays, {step.kept}" if step.kept else ""))
            continue
        typer.echo(f"# {step.what}")
        for command in planned(step, None).commands:
            typer.echo(str(command))
    typer.echo(f"# nothing was asked, nothing was changed; {wanted.project} is taken for an empty project", err=True)


def _where_things_are(wanted: "Wanted", cloud: "Gcloud") -> dict[str, str]:
    from infra.setup.registry import released_image
    from infra.setup.secret_steps import secret_id, versions_look
    from job.settings import load_environment
    from job.settings.environment import SECRETS

    values = {"BATON_PROJECT": wanted.project, "BATON_BUCKET": f"gs://{wanted.bucket}"}
    if load_environment().image is None and (repository := _clone_of()) is not None:
        from importlib.metadata import version

        values["BATON_IMAGE"] = released_image(wanted, repository, version("baton"))
    for name in SECRETS:
        found = cloud.find(versions_look(name)) if name in wanted.secrets else None
        if found:
            number = found[0]["name"].rpartition("/")[2]
            values[f"BATON_SECRET_{name}"] = f"projects/{wanted.project}/secrets/{secret_id(name)}/versions/{number}"
    return values


def write_dotenv(file: Path, values: dict[str, str]) -> None:
    """Puts these into the file, which is then its owner's only."""
    from infra.setup.dotenv import merged

    text = file.read_text(encoding="utf-8") if file.exists() else ""
    fresh = file.with_name(f"{file.name}.new")
    fresh.touch(0o600)
    fresh.write_text(merged(text, values), encoding="utf-8")
    fresh.replace(file)


def ci_lines(wanted: "Wanted") -> list[str]:
    """What a repository on GitHub has to be told, and what builds need; pure."""
    from infra.setup.accounts import POOL, PROVIDER
    from infra.setup.grants import CI

    lines = []
    if wanted.github is not None:
        home = f"projects/{wanted.number}/locations/global/workloadIdentityPools/{POOL}/providers/{PROVIDER}"
        values = {
            "BATON_PROJECT": wanted.project,
            "BATON_REGION": wanted.region,
            "BATON_WIF_PROVIDER": home,
            "BATON_CI_SERVICE_ACCOUNT": wanted.account(CI),
        }
        lines += [f"gh variable set {name} --repo {wanted.github} --body {value}" for name, value in values.items()]
    if wanted.cloud_build:
        lines.append(f"make image-cloud TARGET=train REGISTRY={wanted.registry} BUCKET={wanted.bucket}")
    return lines


def _given(*, ask: bool) -> "dict[str, SecretStr]":
    from pydantic import SecretStr

    from job.settings.environment import DOTENV, SECRETS, read_variables

    known = read_variables(None, DOTENV)
    found = {name: known[name][0] for name in SECRETS if name in known}
    for name in SECRETS if ask else ():
        if name not in found:
            value = typer.prompt(f"{name} (Enter: none)", default="", hide_input=True, show_default=False, err=True)
            found |= {name: value} if value else {}
    return {name: SecretStr(value.strip()) for name, value in found.items()}


def _known(names: Sequence[str]) -> tuple[str, ...]:
    from job.errors import UsageError
    from job.settings.environment import SECRETS

    for name in names:
        if name not in SECRETS:
            raise UsageError(f"--rotate {name}: no such secret.", fix=f"One of {', '.join(SECRETS)}.")
    return tuple(names)


def _number(cloud: "Gcloud") -> str:
    from infra.setup.steps import look

    found = cloud.find(look("projects", "describe", cloud.project))
    if found is None:
        raise NeedsPerson(
            f"There is no project {cloud.project}, or you may not see it.",
            fix="gcloud auth login; gcloud projects list",
        )
    return str(found["projectNumber"])


def _clone_of() -> str | None:
    from infra.registry.signer import signer_of
    from job.errors import UsageError

    try:
        return signer_of(None).repository
    except UsageError:
        return None


def _say(text: str) -> None:
    from job.views.text import printable

    typer.echo(printable(text), err=True)
