"""What Cloud Storage's operations and traffic cost: list prices of Standard storage, for plans and warnings.

Source: https://cloud.google.com/storage/pricing, operations as of 2026-09, transfer between regions as of 2025-06. A
discount or a newer list makes a bill differ; the order of magnitude is what the cadence needs.
"""

from job.storage.usage import Usage

USD_PER_CLASS_A = 0.005 / 1000
"""Single region; twice that in dual-regions and multi-regions."""
USD_PER_CLASS_B = 0.0004 / 1000
GIB = 2**30

_CONTINENTS = {
    "us": "north-america",
    "nam": "north-america",
    "northamerica": "north-america",
    "southamerica": "south-america",
    "europe": "europe",
    "eu": "europe",
    "eur": "europe",
    "asia": "asia",
    "australia": "oceania",
    "me": "middle-east",
    "africa": "africa",
}
_WITHIN_USD_PER_GIB = {"north-america": 0.02, "europe": 0.02}
_FROM_OR_TO_USD_PER_GIB = {  # between continents: the dearer end counts
    "north-america": 0.05,
    "europe": 0.05,
    "asia": 0.08,
    "oceania": 0.10,
    "middle-east": 0.11,
    "africa": 0.11,
    "south-america": 0.14,
}


def operations_usd(usage: Usage) -> float:
    """What the operations cost; traffic apart."""
    return usage.class_a * USD_PER_CLASS_A + usage.class_b * USD_PER_CLASS_B


def traffic_usd_per_gib(region: str, bucket_location: str) -> float:
    """What a GiB costs between a machine in `region` and a bucket, either way; 0 where it stays in the region.

    A multi-region (US, EU, ASIA) is free from its own continent. Names of unknown places cost what the dearest does.
    """
    region, location = region.lower(), bucket_location.lower()
    if location == region:
        return 0.0
    here, there = _continent(region), _continent(location)
    if location in ("us", "eu", "asia") and here == there:
        return 0.0
    if here == there:
        return _WITHIN_USD_PER_GIB.get(here, _FROM_OR_TO_USD_PER_GIB[here])
    return max(_FROM_OR_TO_USD_PER_GIB[here], _FROM_OR_TO_USD_PER_GIB[there])


def usd(usage: Usage, usd_per_gib: float) -> float:
    """Operations and traffic together."""
    return operations_usd(usage) + (usage.sent_bytes + usage.received_bytes) / GIB * usd_per_gib


def _continent(place: str) -> str:
    return _CONTINENTS.get(place.split("-")[0].rstrip("0123456789"), "south-america")
