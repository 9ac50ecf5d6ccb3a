"""How a person names a run, and the URI that this means."""

from pathlib import Path

from job.errors import UsageError


def run_uri(run: str, bucket: str | None) -> str:
    """The URI of a run given by URI, path or name. Raises UsageError for a name without a bucket and the reverse."""
    if "://" in run:
        uri = run.rstrip("/")
        if uri.startswith("gs://") and "/" not in uri.removeprefix("gs://"):
            raise UsageError(f"{run!r} is a bucket, not a run in it.", fix=f"Name the run too: {uri}/runs/NAME")
        return uri
    if "/" in run or run.startswith("."):
        return f"file://{Path(run).absolute()}"
    if not bucket:
        raise UsageError(
            f"{run!r} is a run's name, and no bucket is set.",
            fix=f"Give the URI (file:///path/{run}, gs://BUCKET/runs/{run}) or set BATON_BUCKET.",
        )
    return f"{bucket.rstrip('/')}/runs/{run}"
