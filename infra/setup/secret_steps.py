"""Secret Manager: values go in by standard input, VMs read them by the number of their version."""

from collections.abc import Sequence

from infra.setup.grants import VM
from infra.setup.steps import Command, Found, Step, binding, gcloud, look, thing
from infra.setup.wanted import Wanted
from job.settings.environment import SECRETS

ACCESSOR = "roles/secretmanager.secretAccessor"


def secret_id(variable: str) -> str:
    """`baton-hf-token` of HF_TOKEN."""
    return f"baton-{variable.lower().replace('_', '-')}"


def secret_steps(wanted: Wanted) -> Sequence[Step]:
    """For each secret that there is a value for: a place, a version, and that the VM of an attempt may read it."""
    return [step for name in SECRETS if name in wanted.secrets for step in _steps(wanted, name)]


def undo_steps() -> Sequence[Step]:
    """All of them, whoever has set them up."""
    return [_place(name, "") for name in SECRETS]


def versions_look(variable: str) -> Command:
    """The newest version that is in force, in a list of one."""
    flags = ("--filter=state=ENABLED", "--sort-by=~createTime", "--limit=1")
    return look("secrets", "versions", "list", secret_id(variable), *flags)


def _place(variable: str, region: str) -> Step:
    name = secret_id(variable)
    create = gcloud("secrets", "create", name, "--replication-policy=user-managed", f"--locations={region}")
    return thing(f"secret {name}", look("secrets", "describe", name), create, gcloud("secrets", "delete", name))


def _steps(wanted: Wanted, variable: str) -> Sequence[Step]:
    name = secret_id(variable)
    add = gcloud("secrets", "versions", "add", name, "--data-file=-", stdin=wanted.secrets[variable])

    def make(found: Found) -> Sequence[Command]:
        return () if found and variable not in wanted.rotate else (add,)

    return (
        _place(variable, wanted.region),
        Step(f"its value, from {variable}", versions_look(variable), make, lambda _: ()),
        binding(f"{VM}@ reads it", ("secrets",), name, wanted.member(VM), ACCESSOR),
    )
