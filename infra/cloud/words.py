"""What a person is told of the cloud's trouble, and what to do about it: the words for infra/cloud/types.py. Pure."""

import re

from infra.cloud.types import Trouble, TroubleKind
from infra.cloud.vm_request import SERVICE
from job.errors import BatonError, NeedsPerson, Transient

_PERMISSION = re.compile(r"[Rr]equired '?([a-z]+\.[A-Za-z.]+)'? permission")
_ROLES = {
    "compute.": "roles/compute.instanceAdmin.v1",
    "iam.serviceAccounts.actAs": "roles/iam.serviceAccountUser",
    "serviceusage.": "roles/serviceusage.serviceUsageConsumer",
    "storage.": "roles/storage.objectUser",
}
LOGIN = "gcloud auth application-default login"


def cloud_problem(trouble: Trouble, project: str, at: str = SERVICE) -> BatonError:
    """The error to raise for a trouble that no other zone helps. `at`: the endpoint that was asked."""
    said = trouble.message.rstrip(".")
    if trouble.kind in (TroubleKind.QUOTA, TroubleKind.QUOTA_EVERYWHERE):
        return NeedsPerson(quota_words(trouble), fix=how_to_ask(trouble, project))
    if trouble.kind is TroubleKind.FORBIDDEN:
        return NeedsPerson(f"no permission in the project {project}: {said}.", fix=how_to_grant(trouble, project))
    if trouble.kind is TroubleKind.CREDENTIALS:
        if at != SERVICE:
            return NeedsPerson(f"no credentials for {at}: {said}.", fix='eval "$(baton local env)" names them.')
        return NeedsPerson(
            f"no valid credentials for Google Cloud: {said}.",
            fix=f"{LOGIN}   (a VM that runs goes on meanwhile; launching again goes on from here)",
        )
    if trouble.kind is TroubleKind.UNAVAILABLE:
        if at != SERVICE and trouble.code == "connection refused":
            return Transient(f"the local cloud at {at} is not up: the connection is refused.", fix="baton local up")
        return Transient(f"Compute Engine cannot be reached: {said}.", fix="Try again; nothing is lost.")
    if trouble.kind is TroubleKind.RATE_LIMIT:
        return Transient(f"Compute Engine is asked too often: {said}.", fix="Try again in a minute.")
    if trouble.kind is TroubleKind.STOCKOUT:
        return Transient(f"no capacity ({trouble.code}): {said}.", fix="Try again later, or in another zone or region.")
    if trouble.kind in (TroubleKind.PREEMPTED, TroubleKind.NOT_READY):
        return Transient(f"the zone cannot give this VM now: {said}.", fix="Try again, or another --zone.")
    if trouble.kind is TroubleKind.UNSUPPORTED:
        return NeedsPerson(f"the zone has no such machine: {said}.", fix="Use another --zone.")
    if trouble.kind is TroubleKind.TAKEN:
        return NeedsPerson(
            f"a VM that is not of this run has the name that this attempt needs: {said}.",
            fix="Look at its labels; rename or delete it, or start the run under another name.",
        )
    return NeedsPerson(f"Compute Engine refuses ({trouble.code}): {said}.", fix="The request itself has to change.")


def quota_words(trouble: Trouble) -> str:
    """Which quota, where, how much of it there is."""
    where = f"in {trouble.region}" if trouble.region else "in all regions together"
    metric = trouble.metric or "a quota that is not named"
    limit = "" if trouble.limit is None else f": the limit is {trouble.limit:g}"
    return f"the quota {metric} {where} does not allow this VM{limit}."


def how_to_ask(trouble: Trouble, project: str) -> str:
    """Where a larger quota is asked for."""
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={project}"
    return (
        f"Ask for more: {page}"
        + (f", filter {trouble.metric}" if trouble.metric else "")
        + "; or try another --region or --gpu."
    )


def how_to_grant(trouble: Trouble, project: str) -> str:
    """The role and the command that grants it; the command that switches the API on where that is what is missing."""
    if "accessNotConfigured" in trouble.code or "has not been used in project" in trouble.message:
        return f"gcloud services enable compute.googleapis.com --project {project}"
    found = _PERMISSION.search(trouble.message)
    permission = found[1] if found else "compute.instances.create"
    role = next((role for start, role in _ROLES.items() if permission.startswith(start)), _ROLES["compute."])
    return (
        f"Ask an owner for {role}: gcloud projects add-iam-policy-binding {project} "
        f"--member user:$(gcloud config get account) --role {role}"
    )
