"""Proves that traffic between regions is found and priced where both places are known, and never guessed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.localcloud.vm.guest import Guest
from infra.localcloud.vm.metadata import MetadataServer, serve_metadata
from job.agent import place
from job.agent.place import Traffic, machine_region, region_of, traffic_lines, traffic_to
from job.storage import Bucket, open_bucket


@pytest.fixture
def in_us_central1(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serve_metadata(MetadataServer(Guest("vm", "project", "us-central1-a"), lambda: None)) as host:
        monkeypatch.setenv("GCE_METADATA_HOST", host)
        yield


class Far:
    """A bucket in another region."""

    def location(self) -> str:
        return "EUROPE-WEST4"


def test_the_machines_region_is_that_of_its_zone(in_us_central1: None) -> None:
    assert machine_region() == "us-central1"


@pytest.mark.parametrize(
    ("zone", "region"),
    [("projects/1/zones/europe-west4-b", "europe-west4"), ("us-east1-d", "us-east1"), ("", None), ("nonsense", None)],
)
def test_a_zone_has_a_region(zone: str, region: str | None) -> None:
    assert region_of(zone) == region


def test_a_bucket_in_another_region_is_warned_of_with_what_a_checkpoint_costs(in_us_central1: None) -> None:
    traffic = traffic_to(Far())  # type: ignore[arg-type]
    assert traffic == Traffic("us-central1", "EUROPE-WEST4", 0.05)
    (line,) = traffic_lines(traffic, 2**30)
    assert line.startswith("warning: the bucket is in europe-west4, this machine in us-central1")
    assert "$0.0500" in line


def test_a_folder_is_nowhere_and_costs_nothing(in_us_central1: None, tmp_path: Path) -> None:
    bucket: Bucket = open_bucket(f"file://{tmp_path}")
    assert traffic_to(bucket) == Traffic()
    assert traffic_lines(Traffic(), 2**30) == []


def test_a_machine_that_does_not_know_its_place_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    assert machine_region() is None
    monkeypatch.setattr(place, "metadata_host", lambda: None)
    assert machine_region() is None
    assert traffic_to(Far()) == Traffic()  # type: ignore[arg-type]
