"""What the tests of job/ share: an empty bucket, and one that fails on demand."""

from pathlib import Path

import pytest
from faults import FaultyBucket

from job.storage import Bucket, open_bucket


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(f"file://{tmp_path}/run")


@pytest.fixture
def faulty(bucket: Bucket) -> FaultyBucket:
    return FaultyBucket(bucket)
