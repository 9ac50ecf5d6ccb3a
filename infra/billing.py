"""Today's prices from the Cloud Billing Catalog, where it can be read; without it prices.csv and its date count.

services.skus.list of Compute Engine, all pages: tens of thousands of entries of which a few hundred are kept, so it
is read once a day and remembered in the user's cache. What an entry is for stands in its description only
("Spot Preemptible G2 Instance Core running in Iowa"); one that this file does not understand is left out. Local SSDs
that some machines have built in are not in these prices. Not verified against the live service: the shape of the
answers is that of public examples (docs.cloud.google.com/billing/docs/reference/rest/v1/services.skus, 2026-11).
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.machines import MachineType, machine_types
from infra.plan import Kind, LivePrices

SERVICE = "https://cloudbilling.googleapis.com"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING"
COMPUTE_ENGINE = "6F81-5844-456A"
PAGE = 5000
ANSWER_S, READ_S = 10.0, 25.0
SCOPE = "https://www.googleapis.com/auth/cloud-billing.readonly"
FILE = "prices.json"

_HOST = re.compile(
    r"(?P<spot>Spot Preemptible )?(?P<family>A2|A3|G2|G4|N1 Predefined) Instance (?P<part>Core|Ram) running"
)
_GPU = re.compile(
    r"Nvidia (?:Tesla )?(?P<gpu>L4|T4|A100|A100 80GB|H100 80GB|RTX PRO 6000) GPU "
    r"(?P<spot>attached to Spot Preemptible VMs )?running"
)
_FAMILIES = {"a2": "A2", "a3": "A3", "g2": "G2", "g4": "G4", "n1": "N1 Predefined"}
_GPUS = {
    "a2-highgpu": "A100",
    "a2-ultragpu": "A100 80GB",
    "a3-highgpu": "H100 80GB",
    "g2-standard": "L4",
    "g4-standard": "RTX PRO 6000",
    "n1-highmem": "T4",
}
Rates = dict[tuple[str, str, bool], float]
"""USD an hour of one GPU, one core or one GiB: by what it is, region, spot."""


class _NotRead(Exception):
    """The catalog, or the rest of it."""


@dataclass(frozen=True)
class Access:
    """Where the catalog is, and how one is let in."""

    url: str
    headers: Mapping[str, str]
    key: str | None = None


def live_prices(access: Access | None, cache: Path | None, today: str) -> LivePrices | None:
    """Today's prices; None where they cannot be read: no access, no answer, nothing in it that is understood."""
    remembered = None if cache is None else _remembered(cache / FILE, today)
    if remembered is not None or access is None:
        return remembered
    try:
        found = priced(rates_of(_skus(access)), today)
    except _NotRead:
        return None
    if found is not None and cache is not None:
        _remember(cache / FILE, found)
    return found


def access_of(environment: Mapping[str, str], project: str, key: str | None, *, elsewhere: bool) -> Access | None:
    """Access as this environment has it. `elsewhere`: Compute Engine is not Google's here, so nothing is asked of
    Google unless the catalog's own address is named too."""
    url = environment.get(OVERRIDE, "").rstrip("/")
    if not url and elsewhere:
        return None
    if key is not None or url.startswith("http://"):
        return Access(url or SERVICE, {}, key)
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
        credentials.refresh(Request())
    except GoogleAuthError:
        return None
    return Access(url or SERVICE, {"Authorization": f"Bearer {credentials.token}", "x-goog-user-project": project})


def rates_of(skus: Iterable[Mapping[str, Any]]) -> Rates:
    """What is understood of the catalog's entries; pure."""
    found: Rates = {}
    for sku in skus:
        words = str(sku.get("description", ""))
        match = _HOST.match(words) or _GPU.match(words)
        usd = _usd(sku)
        if match is None or usd is None:
            continue
        parts = match.groupdict()
        what = parts["gpu"] if "gpu" in parts else f"{parts['family']} {parts['part']}"
        spot = parts["spot"] is not None
        if sku.get("category", {}).get("usageType") != ("Preemptible" if spot else "OnDemand"):
            continue
        for region in sku.get("serviceRegions", []):
            found[what, str(region), spot] = usd
    return found


def priced(rates: Rates, today: str) -> LivePrices | None:
    """Prices of the machines of machines.toml with one GPU, where all parts are known; None where none is. Pure."""
    usd: dict[tuple[str, str, Kind], tuple[float, float]] = {}
    for machine in machine_types().values():
        for region, spot in {(region, spot) for _, region, spot in rates} if machine.gpus == 1 else ():
            parts = _parts(machine, region, rates, spot=spot)
            if parts is not None:
                usd[machine.type, region, "spot" if spot else "on_demand"] = parts
    return LivePrices(today, usd) if usd else None


def _parts(machine: MachineType, region: str, rates: Rates, *, spot: bool) -> tuple[float, float] | None:
    family = _FAMILIES.get(machine.type.partition("-")[0], "")
    gpu = rates.get((_GPUS.get(machine.type.rpartition("-")[0], ""), region, spot))
    core, ram = (rates.get((f"{family} {part}", region, spot)) for part in ("Core", "Ram"))
    if gpu is None or core is None or ram is None:
        return None
    return gpu, machine.vcpus * core + machine.host_gb * ram


def _usd(sku: Mapping[str, Any]) -> float | None:
    """By the hour, in dollars; None where it is told otherwise."""
    for info in sku.get("pricingInfo", [])[-1:]:
        expression = info.get("pricingExpression", {})
        for rate in expression.get("tieredRates", [])[-1:]:
            price = rate.get("unitPrice", {})
            if expression.get("usageUnit") in ("h", "GiBy.h") and price.get("currencyCode") == "USD":
                return int(price.get("units") or 0) + int(price.get("nanos") or 0) / 1e9
    return None


def _skus(access: Access) -> Iterator[Mapping[str, Any]]:
    """Every entry. Raises _NotRead where that takes too long, or an answer is none."""
    import httpx

    until_s, token = time.monotonic() + READ_S, ""
    with httpx.Client(timeout=ANSWER_S, headers=dict(access.headers)) as client:
        while time.monotonic() < until_s:
            query = {"pageSize": str(PAGE), "currencyCode": "USD"}
            query |= {"pageToken": token} if token else {}
            query |= {"key": access.key} if access.key else {}
            try:
                answer = client.get(f"{access.url}/v1/services/{COMPUTE_ENGINE}/skus", params=query)
                answer.raise_for_status()
                page = answer.json()
                if not isinstance(page, dict):
                    raise _NotRead
            except (httpx.HTTPError, ValueError) as error:
                raise _NotRead from error
            yield from page.get("skus", [])
            token = page.get("nextPageToken", "")
            if not token:
                return
    raise _NotRead


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where what was read is remembered."""
    own = environment.get("BATON_CACHE")
    return Path(own or environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / ("" if own else "baton")


def _remembered(file: Path, today: str) -> LivePrices | None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if told["date"] != today:
            return None
        return LivePrices(today, {(m, r, k): (gpu, host) for m, r, k, gpu, host in told["usd"]})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(file: Path, prices: LivePrices) -> None:
    rows = [[*key, *usd] for key, usd in sorted(prices.usd.items())]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"date": prices.date, "usd": rows}), encoding="utf-8")
        part.replace(file)
    except OSError:  # it is read again next time
        return
