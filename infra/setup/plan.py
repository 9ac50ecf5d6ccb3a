"""Everything that is made, in its order. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from infra.setup.accounts import account_steps, build_steps, ci_steps
from infra.setup.network import network_steps
from infra.setup.project import project_steps
from infra.setup.registry import registry_steps
from infra.setup.secret_steps import secret_steps, undo_steps
from infra.setup.steps import Step
from infra.setup.wanted import Wanted


def plan(wanted: Wanted) -> Sequence[Step]:
    """What there has to be; each step may rest on those before it."""
    return (
        *project_steps(wanted),
        *network_steps(wanted),
        *account_steps(wanted),
        *ci_steps(wanted),
        *build_steps(wanted),
        *registry_steps(wanted),
        *secret_steps(wanted),
    )


def undo_plan(wanted: Wanted) -> Sequence[Step]:
    """What there may be, whatever was asked for then; the last first."""
    github, number = wanted.github or "OWNER/REPO", wanted.github_id or "0"
    most = replace(wanted, nat=True, cloud_build=True, github=github, github_id=number, secrets={})
    return tuple(reversed((*plan(most), *undo_steps())))
