"""What infra/setup.sh makes: read, and given to the very steps that would make it. What they would do is the fix."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pydantic import SecretStr

from infra.doctor.finding import Finding, NotKnown, not_asked, ok, to_do
from infra.doctor.looks import read
from infra.doctor.place import Place
from infra.naming import SCHEME
from infra.setup.accounts import account_steps
from infra.setup.network import network_steps
from infra.setup.project import project_steps
from infra.setup.registry import registry_steps
from infra.setup.run import Planned, planned
from infra.setup.secret_steps import secret_steps
from infra.setup.steps import Step
from infra.setup.wanted import Wanted, all_regions
from job.run.model_source import TINY
from job.run.spec import SUBNET
from job.storage.parallel import in_parallel

AT_ONCE = 8
MOST_COMMANDS = 3
"""That are shown one by one; where more is missing, setup makes all of it."""
REGION = "us-central1"
"""infra/setup.sh's own, for what there is no bucket of yet."""
SERVICE = ".googleapis.com"
REGISTRY = "-docker.pkg.dev"


def look_at_services(place: Place) -> Finding:
    """Whether the APIs are enabled."""
    wanted = wanted_of(place)
    found = look_at(project_steps(wanted)[:1], place)
    missing = [word for one in found for each in one.commands for word in each.words if word.endswith(SERVICE)]
    if missing:
        names = ", ".join(word.removesuffix(SERVICE) for word in missing)
        return to_do(f"not enabled: {names}", "\n".join(_typed(found[0], wanted)))
    return ok(f"{found[0].step.what} are enabled")


def look_at_bucket(place: Place) -> Finding:
    """Whether the bucket is there, where GPUs are, private, and keeps no copies that are paid for."""
    if not place.environment.bucket:
        return to_do(
            "no bucket is named", f"# runs are kept in one: set BATON_BUCKET=gs://..., or\n{setup(wanted_of(place))}"
        )
    if not place.environment.bucket.startswith(SCHEME):
        fix = f"# set BATON_BUCKET=gs://..., or\n{setup(wanted_of(place))}"
        return to_do(f"{place.environment.bucket} is not in Cloud Storage, and VMs reach nothing else", fix)
    wanted, found = wanted_of(place), place.bucket_resource
    location = "" if found is None else str(found.get("location", "")).lower()
    if found is not None and location not in all_regions():
        elsewhere = f"gs://{place.bucket} is in {location}, where no GPU is rented: VMs pay for every checkpoint's way"
        return to_do(elsewhere, f"infra/setup.sh --project {wanted.project} --region {REGION} --bucket ANOTHER")
    steps = [planned(step, found) for step in project_steps(wanted)[1:]]
    if steps[0].commands:
        what = f"gs://{place.bucket} is not there" if found is None else _settings(place.bucket, steps[0])
        return to_do(what, "\n".join(_typed(steps[0], wanted)))
    return ok(f"{wanted.bucket} in {location}: private, nothing deleted is kept, leftovers of uploads for a day")


def look_at_network(place: Place) -> Finding:
    """Whether VMs have a subnet without addresses outside, a way to Google, and one to the Hub where they need it."""
    named = place.environment.subnet
    if named not in (None, SUBNET):
        raise NotKnown(f"BATON_SUBNET={named} is of your own making")
    wanted = wanted_of(place)
    reach = "Google and the world outside" if wanted.nat else "Google only"
    made = f"subnet {SUBNET} in {len(wanted.regions)} regions, no addresses outside; VMs reach {reach}"
    return judge(look_at(network_steps(wanted), place), wanted, made)


def look_at_accounts(place: Place) -> Finding:
    """Whether the VMs' accounts are there, and have the rights that the code uses."""
    if (named := place.environment.service_account) is not None:
        raise NotKnown(f"BATON_SERVICE_ACCOUNT={named} is of your own making")
    wanted = wanted_of(place)
    return judge(look_at(account_steps(wanted), place), wanted, "accounts, roles and rights as they should be")


def look_at_registry(place: Place) -> Finding:
    """Whether the project's repositories are there, and VMs may pull from them."""
    host = (place.environment.image or "").partition("/")[0]
    if host and not host.endswith(REGISTRY):
        return not_asked(f"images are from {host}: VMs pull without the project's rights")
    wanted = wanted_of(place, region=host.removesuffix(REGISTRY) or None)
    return judge(look_at(registry_steps(wanted), place), wanted, f"repositories in {wanted.region}; VMs may pull")


def look_at_secrets(place: Place) -> Finding:
    """Whether the versions that are named for VMs can be read there."""
    versions = place.environment.secrets()
    if not versions:
        return not_asked("no BATON_SECRET_... names one")
    for name, version in versions.items():
        found = place.google.get("secretmanager", version)
        state = "not there" if found is None else str(found.get("state", "")).lower()
        if state != "enabled":
            fix = f"infra/setup.sh --project {place.project} --rotate {name}   # stores it anew, names it in .env"
            return to_do(f"{name}: {version} is {state}", fix)
    wanted = wanted_of(place, secrets=dict.fromkeys(versions, SecretStr("")))
    return judge(look_at(secret_steps(wanted), place), wanted, f"VMs read {', '.join(versions)}")


def wanted_of(place: Place, *, region: str | None = None, secrets: dict[str, SecretStr] | None = None) -> Wanted:
    """What setup would be asked for. Raises NotKnown where no project is named."""
    settings = place.settings
    try:
        bucket = place.bucket
    except NotKnown:
        bucket = f"{place.project}-baton"
    regions = all_regions()
    where = region or place.region
    return Wanted(
        project=place.project,
        region=where if where in regions else REGION,
        bucket=bucket,
        regions=regions,
        nat=settings is not None and settings.model.name != TINY,
        secrets=secrets or {},
    )


def look_at(steps: Sequence[Step], place: Place) -> list[Planned]:
    """Each step as it is found, each look once, several at once. Raises NotKnown."""
    looks = list(dict.fromkeys(step.look for step in steps))
    jobs: list[Callable[[], object]] = [partial(read, look, place.google, place.project) for look in looks]
    found = dict(zip(looks, in_parallel(jobs, AT_ONCE), strict=True))
    return [planned(step, found[step.look]) for step in steps]


def judge(steps: Sequence[Planned], wanted: Wanted, good: str) -> Finding:
    """By what setup would do; pure."""
    missing = [one for one in steps if one.commands]
    if not missing:
        return ok(good)
    commands = [command for one in missing for command in _typed(one, wanted)]
    names = [one.step.what for one in missing]
    what = names[0] + (f", and {len(names) - 1} more of {len(steps)}" if len(names) > 1 else "")
    return to_do(
        f"missing or wrong: {what}", "\n".join(commands if len(commands) <= MOST_COMMANDS else [setup(wanted)])
    )


def setup(wanted: Wanted) -> str:
    """The command that makes whatever is missing."""
    nat = " --nat" if wanted.nat else ""
    return f"infra/setup.sh --project {wanted.project} --region {wanted.region} --bucket {wanted.bucket}{nat}"


def _typed(step: Planned, wanted: Wanted) -> list[str]:
    """Its commands, for whatever project gcloud has been told of."""
    named = f"--project={wanted.project}"
    commands = [one if named in one.words else replace(one, words=(*one.words, named)) for one in step.commands]
    return [str(one) for one in commands]


def _settings(bucket: str, step: Planned) -> str:
    """What is wrong with a bucket that is there, by the flags that would mend it."""
    words = {
        "--uniform-bucket-level-access": "objects have rights of their own",
        "--public-access-prevention": "it can be made public",
        "--clear-soft-delete": "what is deleted is kept, and paid for",
        "--no-versioning": "what is written over is kept, and paid for",
        "--lifecycle-file": "parts of uploads that were cut off are kept for ever",
    }
    flags = [word.partition("=")[0] for command in step.commands for word in command.words]
    return f"gs://{bucket}: " + "; ".join(words.get(flag, flag) for flag in flags if flag in words)
