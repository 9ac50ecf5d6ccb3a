"""The runs of a bucket."""

from urllib.parse import quote

from job.storage import open_bucket

RUNS = "runs"


def runs_of(bucket_uri: str) -> tuple[str, ...]:
    """The URIs of all runs under `runs/` of a bucket (`gs://BUCKET`, `file:///folder`), sorted; one listing."""
    root = f"{bucket_uri.rstrip('/')}/{RUNS}"
    bucket = open_bucket(root)
    names = [folder.rstrip("/") for folder in bucket.folders("")]
    return tuple(f"{bucket.uri}/{quote(name) if bucket.uri.startswith('file:') else name}" for name in names)
