"""A launch's plan for people, and for programs. Pure but for drawing the table."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from infra.cloud.vm_request import InsertRequest
from infra.expected import Expected, Ranked
from infra.launch.alternatives import Alternative
from infra.launch.planning import LaunchPlan
from infra.machines import machines

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
    lines += [f"{'or' if number == 0 else '  '}       {_other(other)}" for number, other in enumerate(plan.others)]
    return lines + [f"note     {note}" for note in plan.notes]


def _memory(plan: LaunchPlan) -> str:
    if plan.needs_gb is None:
        return ""
    return f"; takes about {plan.needs_gb[1]:.0f} of its {plan.gpu.memory_gb} GB (rough)"


def _cost(plan: LaunchPlan) -> str:
    found, cost = plan.estimate, plan.best.expected
    if found is None:
        return "not known: the model's size is not, or its steps"
    starts = f"{cost.vms:.1f} starts" if plan.best.offer.spot else "one start"
    return (
        f"about ${cost.usd:.2f}: {cost.hours:.1f} h of VMs for {found.hours:.1f} h of work ({found.steps} steps of "
        f"{found.step_s:.2g} s, not measured: weights read and FLOP by data sheets; {starts}); measured after "
        "10 steps: baton status"
    )


def _other(other: Alternative) -> str:
    cost, offer = other.ranked.expected, other.ranked.offer
    kind = {"spot": "spot", "on_demand": "on demand", "flex": "flex-start"}[other.kind]
    return (
        f"{machines().gpu[other.gpu].title} {kind}: about ${cost.usd:.2f} in {cost.hours:.1f} h "
        f"(${offer.usd_per_hour:.2f}/h in {offer.zone}, {offer.date}); {other.note}"
    )


def offers_table(ranked: Sequence[Ranked]) -> Any:
    """The first offers, zones of the same price in a row."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("machine", "zones", "$/h", "whole run", "preempted", "price, and what else it rests on"):
        table.add_column(name, overflow="fold", justify="right" if name in ("$/h", "whole run") else "left")
    rows = _rows(ranked)
    for row in rows[:SHOWN_OFFERS]:
        table.add_row(*row)
    if len(rows) > SHOWN_OFFERS:
        table.add_row(f"and {len(rows) - SHOWN_OFFERS} that cost more", *[""] * 5)
    return table


def _rows(ranked: Sequence[Ranked]) -> list[tuple[str, ...]]:
    def key(one: Ranked) -> tuple[object, ...]:
        offer, cost = one.offer, one.expected
        return (
            offer.machine_type,
            offer.region,
            round(offer.usd_per_hour, 3),
            offer.basis,
            round(cost.usd, 2),
            cost.basis,
        )

    rows: list[tuple[str, ...]] = []
    for _, group in groupby(ranked, key):
        same = list(group)
        offer, cost = same[0].offer, same[0].expected
        zones = f"{offer.region}-{','.join(one.offer.zone.rpartition('-')[2] for one in same)}"
        traffic = f", traffic ${cost.traffic_usd:.2f}" if cost.traffic_usd >= 0.005 else ""
        often = f"every {1 / cost.per_hour:.1f} h" if cost.per_hour else "never"
        basis = f"{offer.date}, {offer.basis}{traffic}" + (f"; {cost.basis}" if offer.spot else "")
        rows.append((offer.machine_type, zones, f"{offer.usd_per_hour:.3f}", f"${cost.usd:.2f}", often, basis))
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
                "expected": _expected_data(one.expected),
            }
            for one in plan.ranked
            for offer in (one.offer,)
        ],
        "alternatives": [
            {
                "gpu": other.gpu,
                "kind": other.kind,
                "machine_type": other.ranked.offer.machine_type,
                "zone": other.ranked.offer.zone,
                "usd_per_hour": round(other.ranked.offer.usd_per_hour, 4),
                "expected": _expected_data(other.ranked.expected),
                "note": other.note,
            }
            for other in plan.others
        ],
        "estimate": None
        if plan.estimate is None
        else {
            "steps": plan.estimate.steps,
            "step_s": round(plan.estimate.step_s, 3),
            "hours": round(plan.best.expected.hours, 3),
            "usd": round(plan.best.expected.usd, 2),
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


def _expected_data(cost: Expected) -> Mapping[str, object]:
    return {
        "usd": round(cost.usd, 2),
        "hours": round(cost.hours, 3),
        "waited_hours": round(cost.waited_h, 3),
        "vms": round(cost.vms, 2),
        "traffic_usd": round(cost.traffic_usd, 3),
        "preempted_per_hour": round(cost.per_hour, 4),
        "basis": cost.basis,
    }
