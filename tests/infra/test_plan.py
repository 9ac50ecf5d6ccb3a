"""Offers come from the dated files, near the bucket first and then by price, never outside what the user allowed."""

import pytest

from infra.machines import find_gpu, gpu_key, machine_types, machines
from infra.plan import FILE, Offer, offers
from job.errors import UsageError

SINGLE = [name for name, gpu in machines().gpu.items() if gpu.single]


@pytest.mark.parametrize("gpu", SINGLE)
def test_every_single_gpu_has_a_spot_offer_whose_parts_add_up(gpu: str) -> None:
    found = offers(gpu, True)
    assert found
    for offer in found:
        assert offer.usd_per_hour == pytest.approx(offer.gpu_usd + offer.host_usd + offer.disk_usd)
        assert 0 < offer.disk_usd < offer.usd_per_hour
        assert offer.machine_type in machine_types()
        assert offer.zone.startswith(f"{offer.region}-")
        assert offer.spot


def test_without_limits_the_cheapest_is_first() -> None:
    prices = [offer.usd_per_hour for offer in offers("a100", True)]
    assert prices == sorted(prices)


def test_the_region_of_the_bucket_is_first_also_where_it_is_dearer() -> None:
    cheapest, home = offers("a100", True)[0], offers("a100", True, bucket_region="us-central1")
    assert cheapest.region != "us-central1"
    assert [offer.region for offer in home[:4]] == ["us-central1"] * 4
    assert home[0].usd_per_gib == 0 < home[-1].usd_per_gib


def test_in_a_multi_region_every_region_of_its_continent_is_home() -> None:
    home = [offer for offer in offers("l4", True, bucket_region="US") if offer.usd_per_gib == 0]
    assert {offer.region.split("-")[0] for offer in home} >= {"us"}
    assert home == sorted(home, key=lambda offer: (offer.usd_per_hour, offer.zone))


def test_zones_and_regions_are_what_either_names() -> None:
    found = offers("l4", True, zones=["us-east4-a"], regions=["europe-west4"])
    assert {offer.zone for offer in found} == {"us-east4-a", "europe-west4-a", "europe-west4-b", "europe-west4-c"}


def test_machine_types_can_be_limited() -> None:
    assert {offer.machine_type for offer in offers("l4", True, machine_types=["g2-standard-8"])} == {"g2-standard-8"}


def test_a_larger_disk_costs_what_it_is_larger() -> None:
    small, large = (offers("l4", True, boot_disk_gb=gb)[0] for gb in (100, 200))
    assert large.disk_usd == pytest.approx(2 * small.disk_usd)


def test_prices_known_from_the_source() -> None:
    def price(gpu: str, spot: bool, zone: str) -> float:
        found: Offer = offers(gpu, spot, zones=[zone])[0]
        return round(found.usd_per_hour - found.disk_usd, 3)

    assert price("l4", False, "us-central1-a") == 0.707
    assert price("l4", True, "us-central1-a") == 0.361
    assert price("a100", True, "us-central1-a") == 1.928
    assert price("a100-80gb", True, "us-east5-a") == 1.802
    assert price("h100", True, "us-east4-a") == 4.270
    assert price("t4", False, "us-central1-a") == 0.587


def test_single_h100s_are_offered_as_spot_only() -> None:
    assert offers("h100", False) == ()
    assert find_gpu("h100").on_demand is False


def test_every_price_is_of_a_machine_of_the_allow_list_and_says_what_it_is_based_on() -> None:
    rows = [line.split(",") for line in FILE.read_text().splitlines() if not line.startswith("#")][1:]
    assert len(rows) > 150
    assert {row[0] for row in rows} <= set(machine_types())
    assert {row[4] for row in rows} | {row[7] for row in rows} <= {"", "listed", "estimated", "quoted", "upper bound"}


def test_flex_start_has_its_own_prices_where_they_are_listed() -> None:
    (found,) = {
        round(one.usd_per_hour - one.disk_usd, 3) for one in offers("a100-80gb", "flex", regions=["us-central1"])
    }
    assert found == 2.946
    assert not any(one.spot for one in offers("h100", "flex"))
    assert offers("l4", "flex") == ()


@pytest.mark.parametrize("name", ["L4", "a100_80gb", "A100-80GB", "a10080gb", " t4 "])
def test_a_gpu_is_found_however_it_is_spelt(name: str) -> None:
    assert find_gpu(name) is machines().gpu[gpu_key(name)]


def test_an_a10_is_not_on_google_cloud() -> None:
    with pytest.raises(UsageError, match="not on Google Cloud; L4 is its match"):
        find_gpu("a10")


def test_an_unknown_gpu_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UsageError) as refused:
        find_gpu("a101")
    assert "a100" in refused.value.fix
    assert "l4" in refused.value.fix  # all of them are listed too


@pytest.mark.parametrize("name", ["h200", "b200"])
def test_a_gpu_that_comes_by_eights_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UsageError, match=r"8 at a time only .* one GPU until distributed training") as refused:
        find_gpu(name)
    assert "--gpu rtx6000" in refused.value.fix
