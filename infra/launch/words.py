"""A launch's plan for people, and for programs. Pure but for drawing the table."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from infra.cloud.vm_request import InsertRequest
from infra.launch.planning import LaunchPlan
from infra.plan import Offer

SHOWN_OFFERS = 6


def plan_lines(plan: LaunchPlan) -> list[str]:
    """What is about to happen, but for the offers: the question is asked below it."""
    machine, gpu = plan.machine, plan.gpu
    kind = "spot" if machine.spot else "on demand"
    lines = [
        f"run      {plan.uri}",
        f"model    {plan.settings.model.name}, task {plan.settings.task}",
        f"GPU      {gpu.title}, {kind}{_memory(plan)}",
        f"cost     {_cost(plan)}",
        f"cap      ${machine.max_usd:.2f} for all VMs of the run together; no VM outlives it",
        f"creates  one VM at a time, its boot disk of {machine.boot_disk_gb} GB deleted with it; "
        f"account {machine.service_account}",
        f"image    {machine.image}",
        *([f"         {plan.image_known}"] if plan.image_known else []),
        f"watches  {plan.watcher}",
    ]
    for number, host in enumerate(plan.hosts):
        lines.append(f"{'sends to' if number == 0 else '        '} {host.name}: {host.what}")
    return lines + [f"note     {note}" for note in plan.notes]


def _memory(plan: LaunchPlan) -> str:
    if plan.needs_gb is None:
        return ""
    return f"; takes about {plan.needs_gb[1]:.0f} of its {plan.gpu.memory_gb} GB (rough)"


def _cost(plan: LaunchPlan) -> str:
    found = plan.estimate
    if found is None:
        return "not known: the model's size is not"
    how = f"{found.steps} steps of {found.step_s:.2g} s, starts and preemptions included"
    return f"about ${found.usd:.2f}: {found.hours:.1f} h ({how}; from data sheets, not measured)"


def offers_table(offers: Sequence[Offer]) -> Any:
    """The first offers, zones of the same price in a row."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("machine", "zones", "$/h", "price"):
        table.add_column(name, overflow="fold", justify="right" if name == "$/h" else "left")
    rows = _rows(offers)
    for row in rows[:SHOWN_OFFERS]:
        table.add_row(*row)
    if len(rows) > SHOWN_OFFERS:
        table.add_row(f"and {len(rows) - SHOWN_OFFERS} dearer or farther ones", "", "", "")
    return table


def _rows(offers: Sequence[Offer]) -> list[tuple[str, str, str, str]]:
    def key(offer: Offer) -> tuple[str, str, float, str]:
        return offer.machine_type, offer.region, round(offer.usd_per_hour, 3), offer.basis

    rows = []
    for (machine_type, region, usd, basis), group in groupby(offers, key):
        same = list(group)
        zones = f"{region}-{','.join(offer.zone.rpartition('-')[2] for offer in same)}"
        elsewhere = f", traffic ${same[0].usd_per_gib:.2f}/GiB" if same[0].usd_per_gib else ""
        rows.append((machine_type, zones, f"{usd:.3f}", f"{same[0].date}, {basis}{elsewhere}"))
    return rows


def request_lines(request: InsertRequest, at: str) -> list[str]:
    """The request as it would go over the wire; the files that every VM boots with by their size."""
    return [f"POST {at}{request.path}", *json.dumps(shortened(request.body), indent=2).splitlines()]


def shortened(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the text of the files replaced by how long it is."""
    items = [
        {"key": item["key"], "value": f"({len(item['value'])} characters)" if is_file(item["key"]) else item["value"]}
        for item in body["metadata"]["items"]
    ]
    return {**body, "metadata": {"items": items}}


def is_file(key: str) -> bool:
    """Whether an attribute is one of the files that every VM boots with."""
    return key == "startup-script" or key.startswith("baton-file-")


def plan_data(plan: LaunchPlan) -> Mapping[str, object]:
    """The plan for programs."""
    return {
        "run": plan.uri,
        "gpu": plan.machine.gpu,
        "machine": plan.machine.model_dump(mode="json"),
        "offers": [
            {
                "machine_type": offer.machine_type,
                "zone": offer.zone,
                "spot": offer.spot,
                "usd_per_hour": round(offer.usd_per_hour, 4),
                "gpu_usd": offer.gpu_usd,
                "host_usd": offer.host_usd,
                "disk_usd": round(offer.disk_usd, 4),
                "usd_per_gib": offer.usd_per_gib,
                "date": offer.date,
                "basis": offer.basis,
            }
            for offer in plan.offers
        ],
        "estimate": None
        if plan.estimate is None
        else {
            "steps": plan.estimate.steps,
            "step_s": round(plan.estimate.step_s, 3),
            "hours": round(plan.estimate.hours, 3),
            "usd": round(plan.estimate.usd, 2),
            "measured": False,
        },
        "gpu_memory_gb": None
        if plan.needs_gb is None
        else {"at_least": round(plan.needs_gb[0], 1), "about": round(plan.needs_gb[1], 1), "has": plan.gpu.memory_gb},
        "max_usd": plan.machine.max_usd,
        "image_known": plan.image_known,
        "watcher": plan.watcher,
        "hosts": [{"host": host.name, "receives": host.what} for host in plan.hosts],
        "notes": list(plan.notes),
    }
