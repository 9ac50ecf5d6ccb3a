"""Credentials, project, billing: without these nothing else can be told."""

from collections.abc import Mapping
from typing import Any

from infra.doctor.finding import Finding, NotKnown, ok, to_do
from infra.doctor.place import Place

SETUP = "infra/setup.sh --project PROJECT"


def look_at_credentials(place: Place) -> Finding:
    """Whose rights everything is asked with."""
    try:
        return ok(f"{place.google.who()}")
    except NotKnown as error:
        if not error.fix:
            raise
        return to_do(error.why, error.fix)


def look_at_project(place: Place) -> Finding:
    """Whether it is there and lives."""
    if place.named_project is None:
        return to_do("no project is named", f"# VMs are created in one: set BATON_PROJECT, or\n{SETUP}")
    return judge_project(place.project, place.google.get("cloudresourcemanager", f"projects/{place.project}"))


def judge_project(project: str, found: Mapping[str, Any] | None) -> Finding:
    """By the project's resource; pure."""
    if found is None:
        return to_do(f"there is no project {project}", "gcloud projects list")
    state = found.get("lifecycleState", "ACTIVE")
    if state != "ACTIVE":
        return to_do(f"{project} is being deleted ({state})", f"gcloud projects undelete {project}")
    return ok(f"{project}, number {found.get('projectNumber')}")


def look_at_billing(place: Place) -> Finding:
    """Whether somebody pays."""
    return judge_billing(place.project, place.google.get("cloudbilling", f"projects/{place.project}/billingInfo"))


def judge_billing(project: str, found: Mapping[str, Any] | None) -> Finding:
    """By its billing info; pure."""
    if found is None or not found.get("billingEnabled"):
        fix = f"gcloud billing accounts list\ngcloud billing projects link {project} --billing-account=ACCOUNT_ID"
        return to_do(f"{project} has no billing account: no VM can be created", fix)
    return ok(f"{project} is paid for by {found.get('billingAccountName', 'an account')}")
