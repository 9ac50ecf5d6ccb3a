"""The cloud that a command asks, and its refusals as errors for people."""

import contextlib
import os
import socket
from collections.abc import Iterator

from infra.cloud.types import CloudError, HandsOn, Trouble
from infra.cloud.words import cloud_problem
from job.errors import BatonError
from job.run.revise import this_user


def open_cloud(project: str) -> HandsOn:
    """Compute Engine in a project; nothing is asked before the first call."""
    from infra.compute import ComputeEngine

    return ComputeEngine(project)


@contextlib.contextmanager
def explained(project: str, doing: str) -> Iterator[None]:
    """Turns CloudError into an error for people; `doing` says what was asked for."""
    try:
        yield
    except CloudError as error:
        raise explanation(error.trouble, project, doing) from None


def explanation(trouble: Trouble, project: str, doing: str) -> BatonError:
    """What a person is told of a refusal of what was asked for."""
    from infra.compute import OVERRIDE, endpoint

    told = cloud_problem(trouble, project, endpoint(os.environ.get(OVERRIDE, "")))
    return type(told)(f"{doing}: {told.what}", fix=told.fix)


def who_asks() -> str:
    """The person and the machine that a command runs for, as records name them."""
    return f"{this_user()}@{socket.gethostname()}"
