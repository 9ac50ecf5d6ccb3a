"""Advice on where spot VMs are to be had: what is armed here decides, as the platform's own load does there."""

from typing import Any

from infra.localcloud.compute import catalog
from infra.localcloud.compute.errors import not_found
from infra.localcloud.compute.routes import Route
from infra.localcloud.compute.service import Service
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request

LIKELY, UNLIKELY = 0.9, 0.1
MOST_UPTIME_S = 3600


def capacity(service: Service, request: Request, where: Route) -> dict[str, Any]:
    """The likeliest of the zones and machine types that are asked for. Raises 400 and 404."""
    if where.region not in catalog.ZONES:
        raise not_found(f"projects/{where.project}/regions/{where.region}")
    body = request.json()
    asked = body.get("distributionPolicy", {}).get("zones", [])
    named = [str(each.get("zone", "")).rpartition("/")[2] for each in asked]
    zones = named or [zone for zone in catalog.all_zones() if catalog.region_of(zone) == where.region]
    selections = body.get("instanceFlexibilityPolicy", {}).get("instanceSelections", {})
    types = [name for each in selections.values() for name in each.get("machineTypes", [])]
    model = body.get("instanceProperties", {}).get("scheduling", {}).get("provisioningModel")
    if model != "SPOT" or not types or any(catalog.region_of(zone) != where.region for zone in zones):
        raise Refusal(400, "invalid", "Advice is on spot VMs of named machine types, in zones of the region.")
    found = [
        (LIKELY if not service.faults.is_sold_out(zone, name) else UNLIKELY, zone, name)
        for zone in zones
        for name in types
        if name in catalog.MACHINE_TYPES and catalog.sold_in(zone, catalog.MACHINE_TYPES[name])
    ]
    if not found:
        return {"recommendations": []}
    likely, zone, name = max(found, key=lambda one: one[0])
    shard = {"zone": zone, "machineType": name, "instanceCount": body.get("size", 1), "provisioningModel": "SPOT"}
    scores = {"obtainability": likely, "estimatedUptime": f"{MOST_UPTIME_S}s"}
    return {"recommendations": [{"scores": scores, "shards": [shard]}]}
