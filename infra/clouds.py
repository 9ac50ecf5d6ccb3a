"""The cloud that a command asks, and its refusals as errors for people."""

import contextlib
import os
import socket
from collections.abc import Iterator

from infra.cloud_types import CloudError, HandsOn, Trouble, TroubleKind
from job.errors import BatonError, NeedsPerson, Transient, UsageError
from job.run.revise import this_user

OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"


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
    """What a person is told of a refusal; pure but for the name of the endpoint."""
    said = f"{doing}: {trouble.message or trouble.code}".rstrip(".") + "."
    match trouble.kind:
        case TroubleKind.CREDENTIALS:
            return NeedsPerson(said, fix="Sign in: gcloud auth application-default login")
        case TroubleKind.FORBIDDEN:
            return NeedsPerson(
                said,
                fix="A role is missing. Whoever owns the project grants it: gcloud projects add-iam-policy-binding "
                f"{project} --member=user:YOU --role=roles/compute.instanceAdmin.v1",
            )
        case TroubleKind.UNAVAILABLE if (override := os.environ.get(OVERRIDE)) and "refused" in trouble.code:
            return UsageError(
                f"{doing}: nothing answers at {override}.",
                fix=f"Start the local cloud (baton local up), or unset {OVERRIDE} to use Google Cloud.",
            )
        case TroubleKind.UNAVAILABLE | TroubleKind.RATE_LIMIT | TroubleKind.NOT_READY:
            return Transient(said, fix="Try again.")
    return NeedsPerson(said, fix=f"Check the project {project} and the request.")


def who_asks() -> str:
    """The person and the machine that a command runs for, as records name them."""
    return f"{this_user()}@{socket.gethostname()}"
