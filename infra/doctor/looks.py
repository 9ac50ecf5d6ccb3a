"""What infra/setup.sh looks at by gcloud, read over REST: gcloud takes a second and more for each look.

So there is one list of what has to be there, infra/setup/'s, and its own word for what is missing.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from infra.doctor.google import Google
from infra.setup.steps import Command, Found

VERSION = {"options.requestedPolicyVersion": "3"}
"""Of a policy with its conditions; the service leaves bindings out that an older one cannot have."""


def read(look: Command, google: Google, project: str) -> Found:
    """What gcloud would show, as far as setup reads it; None where the thing is not there. Raises NotKnown."""
    plain = [word for word in look.words if not word.startswith("--")]
    flags = dict(word[2:].partition("=")[::2] for word in look.words if word.startswith("--"))
    ours = f"projects/{project}"
    match plain:
        case ["services", "list"]:
            query = {"filter": "state:ENABLED", "pageSize": "200"}
            return _all(google, "serviceusage", f"{ours}/services", query, lambda page: page.get("services", ()))
        case ["projects", "get-iam-policy", name]:
            body = {"options": {"requestedPolicyVersion": 3}}
            return google.post("cloudresourcemanager", f"projects/{name}:getIamPolicy", body)
        case ["storage", "buckets" | "managed-folders", action, url]:
            path = _in_storage(url)
            if action == "get-iam-policy":
                return google.get("storage", f"{path}/iam", {"optionsRequestedPolicyVersion": "3"})
            return google.get("storage", path)
        case ["compute", "networks", "subnets", "list"]:
            return _aggregated(google, project, "subnetworks", flags["filter"])
        case ["compute", "routers", "list"]:
            return _aggregated(google, project, "routers", flags["filter"])
        case ["compute", "networks", "describe", name]:
            return google.get("compute", f"{ours}/global/networks/{name}")
        case ["compute", "firewall-rules", "describe", name]:
            return google.get("compute", f"{ours}/global/firewalls/{name}")
        case ["iam", "service-accounts", "describe", address]:
            return google.get("iam", f"{ours}/serviceAccounts/{address}")
        case ["iam", "service-accounts", "get-iam-policy", address]:
            body = {"options": {"requestedPolicyVersion": 3}}
            return google.post("iam", f"{ours}/serviceAccounts/{address}:getIamPolicy", body)
        case ["iam", "roles", "describe", role]:
            return google.get("iam", f"{ours}/roles/{role}")
        case ["artifacts", "repositories", action, name]:
            path = f"{ours}/locations/{flags['location']}/repositories/{name}"
            return _shown_or_policy(google, "artifactregistry", path, action)
        case ["secrets", "versions", "list", name]:
            query = {"filter": "state:ENABLED", "pageSize": "1"}
            found = google.get("secretmanager", f"{ours}/secrets/{name}/versions", query)
            return None if found is None else found.get("versions", [])
        case ["secrets", action, name]:
            return _shown_or_policy(google, "secretmanager", f"{ours}/secrets/{name}", action)
    raise AssertionError(f"nothing here reads: {look}")


def _shown_or_policy(google: Google, service: str, path: str, action: str) -> Found:
    if action == "get-iam-policy":
        return google.get(service, f"{path}:getIamPolicy", VERSION)
    return google.get(service, path)


def _in_storage(url: str) -> str:
    bucket, _, folder = url.removeprefix("gs://").partition("/")
    return f"b/{bucket}" + (f"/managedFolders/{quote(folder, safe='')}" if folder else "")


def _aggregated(google: Google, project: str, kind: str, filtered: str) -> list[Any]:
    query = {"filter": filtered, "maxResults": "500"}
    return _all(
        google,
        "compute",
        f"projects/{project}/aggregated/{kind}",
        query,
        lambda page: [one for scoped in page.get("items", {}).values() for one in scoped.get(kind, ())],
    )


def _all(google: Google, service: str, path: str, query: dict[str, str], items: Callable[[Any], Any]) -> list[Any]:
    return [one for page in google.pages(service, path, query) for one in items(page)]
