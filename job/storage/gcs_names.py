"""What may be the URI of a run in Cloud Storage, and the name of an object in it. Pure."""

import re

from job.errors import UsageError

BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
REFUSED = re.compile(r"[\x00-\x1f\x7f#?*\[\]]")
"""What gcloud takes for patterns, and what no terminal shows."""
LONGEST_NAME_BYTES = 1024


def parsed(uri: str) -> tuple[str, str]:
    """(bucket, prefix of its objects' names) of a URI. Raises UsageError."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    path = path.rstrip("/")
    parts = path.split("/") if path else []
    if (
        not uri.startswith("gs://")
        or not BUCKET_NAME.fullmatch(bucket)
        or any(not part or part.startswith(".") for part in parts)
        or REFUSED.search(path)
    ):
        raise UsageError(
            f"{uri!r} is not the URI of a run in Cloud Storage.",
            fix="Use gs://BUCKET/runs/NAME; the bucket's name is in lower case, names have none of #?*[].",
        )
    return bucket, f"{path}/" if path else ""


def object_name(prefix: str, name: str) -> str:
    """The object's whole name. Raises ValueError for one that leads elsewhere or is hidden."""
    if not name or any(part.startswith(".") or not part for part in name.split("/")):
        raise ValueError(f"{name!r} is not an object name")
    if len((prefix + name).encode()) > LONGEST_NAME_BYTES:
        raise UsageError(f"{prefix + name!r} is too long for an object's name.", fix="Give the run a shorter name.")
    return prefix + name
