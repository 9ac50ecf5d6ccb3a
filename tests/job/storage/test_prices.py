"""Proves that what a bucket was asked for is counted from any thread, and what it costs by place."""

import threading

import pytest

from job.storage.prices import traffic_usd_per_gib, usd
from job.storage.usage import Meter, Usage


def test_every_request_is_counted_also_when_threads_ask_at_once() -> None:
    meter = Meter()

    def ask() -> None:
        for _ in range(500):
            meter.count("a", sent_bytes=3)
            meter.count("b", received_bytes=2)
        meter.count("free")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.usage == Usage(class_a=2000, class_b=2000, free=4, sent_bytes=6000, received_bytes=4000)
    assert meter.usage.operations == 4004


def test_what_one_part_of_a_run_asked_for_is_the_difference() -> None:
    before, after = Usage(class_a=3, sent_bytes=10), Usage(class_a=10, class_b=1, sent_bytes=30)
    assert after - before == Usage(class_a=7, class_b=1, sent_bytes=20)
    assert before + (after - before) == after


@pytest.mark.parametrize(
    ("region", "location", "usd_per_gib"),
    [
        ("us-central1", "US-CENTRAL1", 0.0),
        ("us-central1", "US", 0.0),
        ("europe-west4", "EU", 0.0),
        ("us-central1", "us-east1", 0.02),
        ("northamerica-northeast1", "us-east1", 0.02),
        ("asia-east1", "asia-south1", 0.08),
        ("us-central1", "europe-west4", 0.05),
        ("us-central1", "EU", 0.05),
        ("europe-west4", "australia-southeast1", 0.10),
        ("us-central1", "atlantis-north1", 0.14),
    ],
)
def test_traffic_costs_by_where_the_machine_and_the_bucket_are(region: str, location: str, usd_per_gib: float) -> None:
    assert traffic_usd_per_gib(region, location) == usd_per_gib


def test_a_bill_is_operations_and_traffic() -> None:
    usage = Usage(class_a=1000, class_b=10_000, free=7, sent_bytes=2**30, received_bytes=2**30)
    assert usd(usage, 0.0) == pytest.approx(0.005 + 0.004)
    assert usd(usage, 0.02) == pytest.approx(0.009 + 0.04)
