"""Where a run's VM may be and what an hour of it costs there: offers. infra/expected.py ranks them for a run."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from infra.machines import MachineType, machines
from infra.naming import region_of
from job.storage.prices import traffic_usd_per_gib

FILE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True)
class Offer:
    """One machine type in one zone, with its price of a day."""

    machine_type: str
    zone: str
    region: str
    spot: bool
    usd_per_hour: float
    """All that its VM costs: GPU, machine and boot disk."""
    gpu_usd: float
    host_usd: float
    disk_usd: float
    date: str
    """Of the price."""
    basis: str
    """billing catalog: of that day. listed; estimated, quoted, upper bound: prices.csv says by what."""
    disk: str
    accelerator: str | None
    usd_per_gib: float
    """Of traffic between there and the bucket."""


Kind = Literal["spot", "on_demand", "flex"]
KINDS: tuple[Kind, ...] = ("on_demand", "spot", "flex")
"""How a VM is rented. flex: it waits for capacity, is not preempted and runs 7 days at most (FLEX_START)."""


@dataclass(frozen=True)
class LivePrices:
    """Prices that were read today (infra/billing.py), instead of those of the file."""

    date: str
    usd: Mapping[tuple[str, str, Kind], tuple[float, float]]
    """(of the GPU, of the machine beside it) by machine type, region, kind."""


@dataclass(frozen=True)
class _Price:
    machine_type: str
    zone: str
    kind: Kind
    gpu_usd: float
    host_usd: float
    basis: str


def offers(
    gpu: str,
    spot: bool | Kind,
    zones: Sequence[str] = (),
    regions: Sequence[str] = (),
    bucket_region: str | None = None,
    *,
    machine_types: Sequence[str] = (),
    boot_disk_gb: int | None = None,
    live: LivePrices | None = None,
) -> tuple[Offer, ...]:
    """Where a VM with that GPU (its name in machines.toml) may be: near the bucket first, then by price; pure.

    `zones` and `regions` limit it to what is in either, `machine_types` to those; empty: no limit.
    """
    kind = spot if isinstance(spot, str) else "spot" if spot else "on_demand"
    known = machines()
    allowed = {one.type: one for one in known.gpu[gpu].single if not machine_types or one.type in machine_types}
    gb = known.boot_disk_gb if boot_disk_gb is None else boot_disk_gb
    found = [
        _offer(price, allowed[price.machine_type], gb, bucket_region, live)
        for price in _prices()
        if price.kind == kind
        and price.machine_type in allowed
        and (not (zones or regions) or price.zone in zones or region_of(price.zone) in regions)
    ]
    return tuple(sorted(found, key=lambda offer: (offer.usd_per_gib, offer.usd_per_hour, offer.zone)))


def _offer(
    price: _Price, machine: MachineType, disk_gb: int, bucket_region: str | None, live: LivePrices | None
) -> Offer:
    known = machines()
    disk_usd = known.disk_usd_per_hour(machine.disk, disk_gb)
    region, date = region_of(price.zone), known.date
    today = None if live is None else live.usd.get((price.machine_type, region, price.kind))
    if live is not None and today is not None:
        date = live.date
        price = replace(price, gpu_usd=today[0], host_usd=today[1], basis="billing catalog")
    return Offer(
        machine_type=price.machine_type,
        zone=price.zone,
        region=region,
        spot=price.kind == "spot",
        usd_per_hour=price.gpu_usd + price.host_usd + disk_usd,
        gpu_usd=price.gpu_usd,
        host_usd=price.host_usd,
        disk_usd=disk_usd,
        date=date,
        basis=price.basis,
        disk=machine.disk,
        accelerator=machine.accelerator,
        usd_per_gib=0.0 if bucket_region is None else traffic_usd_per_gib(region, bucket_region),
    )


@cache
def _prices() -> tuple[_Price, ...]:
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    prices = []
    for row in csv.DictReader(lines):
        for kind in KINDS:
            if row[f"{kind}_gpu"]:
                gpu_usd, host_usd = float(row[f"{kind}_gpu"]), float(row[f"{kind}_host"])
                basis = row.get(f"{kind}_basis") or "listed"
                prices.append(_Price(row["machine_type"], row["zone"], kind, gpu_usd, host_usd, basis))
    return tuple(prices)
