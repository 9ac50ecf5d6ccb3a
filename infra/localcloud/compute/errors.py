"""Refusals as Compute Engine words them, and the errors that its operations end with."""

from dataclasses import dataclass
from typing import Any

from infra.localcloud.errors import ANONYMOUS, Refusal

STATUS_WORDS = {400: "BAD REQUEST", 403: "FORBIDDEN", 404: "NOT FOUND", 409: "CONFLICT", 503: "SERVICE UNAVAILABLE"}
HELP = "https://cloud.google.com/compute/docs/resource-error"


@dataclass(frozen=True)
class OperationError:
    """Why an operation failed."""

    code: str
    message: str
    status: int = 400
    details: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fields that it gives its operation."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["errorDetails"] = list(self.details)
        return {
            "error": {"errors": [error]},
            "httpErrorStatusCode": self.status,
            "httpErrorMessage": STATUS_WORDS.get(self.status, "ERROR"),
        }


def bad_value(field: str, value: object, why: str = "") -> Refusal:
    """400: the request itself is wrong."""
    return Refusal(400, "invalid", f"Invalid value for field '{field}': '{value}'. {why}".rstrip())


def not_found(path: str) -> Refusal:
    """404 for `projects/P/zones/Z/instances/N`."""
    return Refusal(404, "notFound", f"The resource '{path}' was not found")


def already_exists(path: str) -> Refusal:
    """409: the name is in use."""
    return Refusal(409, "alreadyExists", f"The resource '{path}' already exists")


def not_ready(path: str) -> Refusal:
    """400: something else is being done to it."""
    return Refusal(400, "resourceNotReady", f"The resource '{path}' is not ready")


def forbidden(account: str, permission: str, path: str) -> Refusal:
    """403 for an account without the right; 401 for a caller without credentials."""
    if account == ANONYMOUS:
        return Refusal(401, "required", "Login Required.", location="Authorization")
    return Refusal(403, "forbidden", f"Required '{permission}' permission for '{path}'")


def quota_refused(metric: str, limit: float, region: str) -> Refusal:
    """403: more than the quota allows."""
    return Refusal(403, "quotaExceeded", quota_message(metric, limit, region), domain="usageLimits")


def quota_message(metric: str, limit: float, region: str) -> str:
    """The sentence; without a region it is the project's quota."""
    where = f"in region {region}" if region else "globally"
    return f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {where}."


def quota_exceeded(metric: str, limit: float, region: str) -> OperationError:
    """The same, inside an operation."""
    info = {
        "metricName": f"compute.googleapis.com/{metric.lower()}",
        "limitName": f"{metric.replace('_', '-')}-per-project{'-region' if region else ''}",
        "limit": limit,
        "dimensions": {"region": region or "global"},
    }
    return OperationError("QUOTA_EXCEEDED", quota_message(metric, limit, region), 403, ({"quotaInfo": info},))


def stockout(project: str, zone: str, machine_type: str, gpus: str) -> OperationError:
    """No capacity in the zone."""
    attachment = f" with {gpus} accelerator(s)" if gpus else ""
    info = {
        "reason": "resource_availability",
        "domain": "compute.googleapis.com",
        "metadatas": {"vmType": machine_type, "zone": zone, "zonesAvailable": "", "attachment": gpus},
    }
    words = (
        f"A {machine_type} VM instance{attachment} is currently unavailable in the {zone} zone. Alternatively, you can "
        "try your request again with a different VM hardware configuration or at a later time. For more information, "
        "see the troubleshooting documentation."
    )
    message = (
        f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the request.  "
        "'(resource type:compute)'."
    )
    details = (
        {"help": {"links": [{"description": "Troubleshooting documentation", "url": HELP}]}},
        {"localizedMessage": {"locale": "en-US", "message": words}},
        {"errorInfo": info},
    )
    return OperationError("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", message, 503, details)


def preempted_while_created(path: str) -> OperationError:
    """The platform took the VM back before it ran."""
    return OperationError("UNSUPPORTED_OPERATION", f"Instance '{path}' was preempted while it was being created.", 400)
