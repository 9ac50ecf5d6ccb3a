"""What the cloud's refusals mean: HTTP status, reason, operation code and words become one Trouble. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from infra.cloud.types import Trouble, TroubleKind

STOCKOUT = (
    "ZONE_RESOURCE_POOL_EXHAUSTED",
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "GPU_STOCKOUT",
    "STOCKOUT",
    "INSUFFICIENTCAPACITY",
    "INSUFFICIENT_CAPACITY",
    "VM_MIN_COUNT_NOT_REACHED",
)
_BY_CODE = {code: TroubleKind.STOCKOUT for code in STOCKOUT} | {
    "UNSUPPORTED_OPERATION": TroubleKind.PREEMPTED,  # seen when a VM is taken back while it is made
    "RESOURCE_NOT_READY": TroubleKind.NOT_READY,
    "RESOURCENOTREADY": TroubleKind.NOT_READY,
    "RESOURCEINUSEBYANOTHERRESOURCE": TroubleKind.NOT_READY,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": TroubleKind.NOT_READY,
    "RESOURCE_OPERATION_RATE_EXCEEDED": TroubleKind.RATE_LIMIT,
    "RATELIMITEXCEEDED": TroubleKind.RATE_LIMIT,
    "USERRATELIMITEXCEEDED": TroubleKind.RATE_LIMIT,
    "RATE_LIMIT_EXCEEDED": TroubleKind.RATE_LIMIT,
    "ALREADYEXISTS": TroubleKind.TAKEN,
    "RESOURCE_ALREADY_EXISTS": TroubleKind.TAKEN,
    "PERMISSION_DENIED": TroubleKind.FORBIDDEN,
    "PERMISSIONS_ERROR": TroubleKind.FORBIDDEN,
    "FORBIDDEN": TroubleKind.FORBIDDEN,
    "ACCESSNOTCONFIGURED": TroubleKind.FORBIDDEN,
    "AUTHERROR": TroubleKind.CREDENTIALS,
    "UNAUTHENTICATED": TroubleKind.CREDENTIALS,
    "INVALID": TroubleKind.INVALID,
    "INVALID_FIELD_VALUE": TroubleKind.INVALID,
    "INVALID_USAGE": TroubleKind.INVALID,
    "BACKENDERROR": TroubleKind.UNAVAILABLE,
    "INTERNAL_ERROR": TroubleKind.UNAVAILABLE,
    "INTERNALERROR": TroubleKind.UNAVAILABLE,
}
SAYS_MOST = (
    TroubleKind.CREDENTIALS,
    TroubleKind.FORBIDDEN,
    TroubleKind.QUOTA_EVERYWHERE,
    TroubleKind.QUOTA,
    TroubleKind.INVALID,
    TroubleKind.UNSUPPORTED,
    TroubleKind.STOCKOUT,
    TroubleKind.TAKEN,
    TroubleKind.PREEMPTED,
    TroubleKind.NOT_READY,
    TroubleKind.NOT_FOUND,
    TroubleKind.RATE_LIMIT,
    TroubleKind.UNAVAILABLE,
)
"""Of several troubles the first of these counts."""
_QUOTA = ("QUOTA_EXCEEDED", "QUOTAEXCEEDED")
_NOT_FOUND = ("NOTFOUND", "RESOURCE_NOT_FOUND")
_OF_THE_ZONE = re.compile(r"/(machineTypes|acceleratorTypes|diskTypes)/|(machine|accelerator|disk) type", re.IGNORECASE)
_METRIC = re.compile(r"[Qq]uota(?: metric)? '?([A-Z0-9_]+)'? exceeded|quota metric '([^']+)'")
_LIMIT = re.compile(r"Limit: ([0-9.]*[0-9])")
_REGION = re.compile(r"in region ([a-z]+-[a-z]+[0-9]+)")


@dataclass(frozen=True)
class Said:
    """One error as the cloud says it, in an HTTP reply or inside an operation."""

    code: str
    """Reason of an HTTP error, code of an operation's; empty where there is none."""
    message: str
    http_status: int | None = None
    metric: str | None = None
    limit: float | None = None
    dimensions: dict[str, str] = field(default_factory=dict)


def classify(said: Said, *, creating: bool) -> Trouble:
    """The trouble that it means. `creating`: what was not found is something that the new VM names."""
    code = said.code.upper()
    if code in _QUOTA:
        return _quota(said)
    kind = _BY_CODE.get(code) or _by_words(said) or _by_status(said.http_status)
    if code in _NOT_FOUND or (kind is TroubleKind.NOT_FOUND and creating):
        kind = TroubleKind.NOT_FOUND
        if creating:
            kind = TroubleKind.UNSUPPORTED if _OF_THE_ZONE.search(said.message) else TroubleKind.INVALID
    if kind is TroubleKind.INVALID and creating and _OF_THE_ZONE.search(said.message) and _says_absent(said.message):
        kind = TroubleKind.UNSUPPORTED
    return Trouble(kind, said.code or f"HTTP {said.http_status}", said.message)


def classify_all(errors: Iterable[Said], *, creating: bool) -> Trouble | None:
    """The trouble of several errors at once: the one that says most about what to do; None of none."""
    found = [classify(said, creating=creating) for said in errors]
    return min(found, key=lambda trouble: SAYS_MOST.index(trouble.kind)) if found else None


def _quota(said: Said) -> Trouble:
    named, limit, place = (pattern.search(said.message) for pattern in (_METRIC, _LIMIT, _REGION))
    metric = said.metric or (next(filter(None, named.groups())) if named else None)
    metric = None if metric is None else metric.rpartition("/")[2].upper()  # compute.googleapis.com/cpus is CPUS
    region = said.dimensions.get("region") or (place[1] if place else None)
    everywhere = "ALL_REGIONS" in (metric or "") or (region is None and "globally" in said.message)
    return Trouble(
        TroubleKind.QUOTA_EVERYWHERE if everywhere else TroubleKind.QUOTA,
        said.code,
        said.message,
        metric=metric,
        region=None if everywhere else region,
        limit=said.limit if said.limit is not None else (float(limit[1]) if limit else None),
    )


def _by_words(said: Said) -> TroubleKind | None:
    """For replies whose reason is too general: some name the operation's code in their words only."""
    return TroubleKind.STOCKOUT if "ZONE_RESOURCE_POOL_EXHAUSTED" in said.message else None


def _by_status(status: int | None) -> TroubleKind:
    if status is None or status >= 500 or status == 408:
        return TroubleKind.UNAVAILABLE
    by_status = {
        401: TroubleKind.CREDENTIALS,
        403: TroubleKind.FORBIDDEN,
        404: TroubleKind.NOT_FOUND,
        409: TroubleKind.TAKEN,
        429: TroubleKind.RATE_LIMIT,
    }
    return by_status.get(status, TroubleKind.INVALID)


def _says_absent(message: str) -> bool:
    return any(words in message for words in ("does not exist", "not found", "not available", "not supported"))
