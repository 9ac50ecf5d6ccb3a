"""Today's prices are read from the billing catalog's own words, page by page; what is not understood is left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.billing import FILE, OVERRIDE, Access, access_of, live_prices, priced, rates_of
from infra.plan import LivePrices, offers
from tests.infra.compute_server import ComputeServer, compute_server

TODAY = "2026-11-21"
IOWA, HOST_GB = ["us-central1"], 16


def sku(description: str, usd: float, usage: str = "OnDemand", regions: list[str] | None = None, **more: Any) -> Any:
    units, nanos = divmod(round(usd * 1e9), 10**9)
    price = {"currencyCode": "USD", "units": str(units), "nanos": nanos}
    unit = "GiBy.h" if " Ram " in description else "h"
    expression = {"usageUnit": unit, "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}]} | more
    return {
        "name": "services/6F81-5844-456A/skus/0000-0000-0000",
        "skuId": "0000-0000-0000",
        "description": description,
        "category": {"resourceFamily": "Compute", "resourceGroup": "GPU", "usageType": usage},
        "serviceRegions": regions or IOWA,
        "pricingInfo": [{"summary": "", "pricingExpression": expression, "currencyConversionRate": 1}],
    }


L4 = [
    sku("Nvidia L4 GPU running in Iowa", 0.56),
    sku("G2 Instance Core running in Iowa", 0.025),
    sku("G2 Instance Ram running in Iowa", 0.003),
    sku("Nvidia L4 GPU attached to Spot Preemptible VMs running in Iowa", 0.2, "Preemptible"),
    sku("Spot Preemptible G2 Instance Core running in Iowa", 0.01, "Preemptible"),
    sku("Spot Preemptible G2 Instance Ram running in Iowa", 0.001, "Preemptible"),
]
OTHERS = [
    sku("Commitment v1: Nvidia L4 GPU running in Iowa for 1 Year", 0.01, "Commit1Yr"),
    sku("G2 Instance Core running in Iowa, reserved by somebody", 9.0, "Commit3Yr"),
    sku("Nvidia Tesla A100 80GB GPU running in Iowa", 3.9),
    sku("N2 Instance Core running in Iowa", 0.03),
    {"description": "Nvidia L4 GPU running in Mars", "category": {"usageType": "OnDemand"}, "pricingInfo": []},
    {},
]


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with compute_server() as known:
        yield known


def test_a_machines_price_is_that_of_its_gpu_its_cores_and_its_memory() -> None:
    found = priced(rates_of([*OTHERS, *L4]), TODAY)
    assert found is not None
    assert found.usd["g2-standard-4", "us-central1", "on_demand"] == pytest.approx((0.56, 4 * 0.025 + HOST_GB * 0.003))
    assert found.usd["g2-standard-4", "us-central1", "spot"] == pytest.approx((0.2, 4 * 0.01 + HOST_GB * 0.001))
    assert {machine for machine, _, _ in found.usd} == {"g2-standard-4", "g2-standard-8"}, "an A100's cores are missing"


def test_an_a100_of_80_gb_is_not_one_of_40() -> None:
    hosts = [sku("A2 Instance Core running in Iowa", 0.03), sku("A2 Instance Ram running in Iowa", 0.004)]
    large, small = (
        sku("Nvidia Tesla A100 80GB GPU running in Iowa", 3.9),
        sku("Nvidia Tesla A100 GPU running in Iowa", 2.9),
    )
    found = priced(rates_of([*hosts, large, small]), TODAY)
    assert found is not None
    assert found.usd["a2-ultragpu-1g", "us-central1", "on_demand"][0] == pytest.approx(3.9)
    assert found.usd["a2-highgpu-1g", "us-central1", "on_demand"][0] == pytest.approx(2.9)


def test_a_price_in_another_unit_or_currency_is_left_out() -> None:
    assert rates_of([sku("Nvidia L4 GPU running in Iowa", 0.5, usageUnit="mo")]) == {}
    euros = sku("Nvidia L4 GPU running in Iowa", 0.5)
    euros["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]["currencyCode"] = "EUR"
    assert rates_of([euros]) == {}
    assert priced({}, TODAY) is None


def test_all_pages_are_read_once_a_day(server: ComputeServer, tmp_path: Path) -> None:
    server.answer((200, {"skus": [*L4[:3], *OTHERS], "nextPageToken": "more"}), (200, {"skus": L4[3:]}))
    access = Access(server.url, {"Authorization": "Bearer t"}, key="k")
    found = live_prices(access, tmp_path, TODAY)
    assert found is not None
    assert {kind for _, _, kind in found.usd} == {"spot", "on_demand"}
    first, second = server.asked
    assert first.path == "/v1/services/6F81-5844-456A/skus"
    assert first.query == {"pageSize": "5000", "currencyCode": "USD", "key": "k"}
    assert (second.query["pageToken"], second.authorization) == ("more", "Bearer t")
    assert live_prices(access, tmp_path, TODAY) == found
    assert len(server.asked) == 2, "it is remembered"
    server.answer((200, {"skus": L4}))
    tomorrow = live_prices(access, tmp_path, "2026-11-22")
    assert tomorrow is not None
    assert (tomorrow.date, len(server.asked)) == ("2026-11-22", 3)


@pytest.mark.parametrize("answer", [(403, {"error": {"code": 403}}), (200, {"skus": []}), (200, [])])
def test_a_catalog_that_says_nothing_leaves_the_file(
    server: ComputeServer, tmp_path: Path, answer: tuple[int, Any]
) -> None:
    server.answer(answer)
    assert live_prices(Access(server.url, {}), tmp_path, TODAY) is None
    assert not (tmp_path / FILE).exists()
    assert live_prices(None, tmp_path, TODAY) is None
    assert live_prices(Access("http://127.0.0.1:1", {}), tmp_path, TODAY) is None


def test_half_a_catalog_is_none(server: ComputeServer, tmp_path: Path) -> None:
    server.answer((200, {"skus": L4, "nextPageToken": "more"}), (503, {}))
    assert live_prices(Access(server.url, {}), tmp_path, TODAY) is None


@pytest.mark.parametrize("damage", ["", "[]", '{"date": "2026-11-21"}', '{"date": "2026-11-21", "usd": [[1]]}'])
def test_a_damaged_memory_is_read_anew(server: ComputeServer, tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE).write_text(damage)
    server.answer((200, {"skus": L4}))
    assert live_prices(Access(server.url, {}), tmp_path, TODAY) is not None
    assert json.loads((tmp_path / FILE).read_text())["date"] == TODAY


def test_a_live_price_goes_before_the_files_and_says_so() -> None:
    live = LivePrices(TODAY, {("g2-standard-4", "us-central1", "spot"): (0.1, 0.05)})
    found = {one.zone: one for one in offers("l4", True, machine_types=["g2-standard-4"], live=live)}
    here, there = found["us-central1-a"], found["us-east4-a"]
    assert here.usd_per_hour == pytest.approx(0.15 + here.disk_usd)
    assert (here.date, here.basis) == (TODAY, "billing catalog")
    assert (there.date, there.basis) == ("2026-07", "listed")


def test_nothing_is_asked_of_google_where_compute_engine_is_not_googles() -> None:
    assert access_of({}, "p", "k", elsewhere=True) is None
    named = access_of({OVERRIDE: "http://127.0.0.1:9/"}, "p", None, elsewhere=True)
    assert named == Access("http://127.0.0.1:9", {}, None)
    assert access_of({}, "p", "k", elsewhere=False) == Access("https://cloudbilling.googleapis.com", {}, "k")
