"""A run is named by a URI, a path, or a name in the bucket of the settings; what names none is refused."""

from pathlib import Path

import pytest

from job.errors import UsageError
from job.run.uri import run_uri


@pytest.mark.parametrize(
    ("run", "bucket", "uri"),
    [
        ("gs://bucket-1/runs/x/", None, "gs://bucket-1/runs/x"),
        ("file:///runs/x", "gs://bucket-1", "file:///runs/x"),
        ("x", "gs://bucket-1/", "gs://bucket-1/runs/x"),
        ("x", "file:///home/me", "file:///home/me/runs/x"),
        ("./x", "gs://bucket-1", f"file://{Path.cwd()}/x"),
    ],
)
def test_a_run_is_found_by_how_it_is_named(run: str, bucket: str | None, uri: str) -> None:
    assert run_uri(run, bucket) == uri


@pytest.mark.parametrize("run", ["x", "gs://bucket-1", "gs://bucket-1/"])
def test_a_name_without_a_bucket_and_a_bucket_without_a_name_are_refused(run: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_uri(run, None)
    assert "/runs/" in caught.value.fix
