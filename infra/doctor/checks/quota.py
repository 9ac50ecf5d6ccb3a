"""GPU quota. New projects have none, and people at Google grant it: so it is the first thing to ask for."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.doctor.finding import Finding, NotKnown, not_known, ok, to_do
from infra.doctor.place import Place
from infra.launch.estimate import gpu_gb, parameters_of
from infra.machines import machines
from infra.plan import offers
from job.settings import Settings

EVERYWHERE = "GPUS_ALL_REGIONS"
SPOT = "PREEMPTIBLE_"
WHY = (
    "Fine-tuning of language models by reinforcement learning, one GPU at a time, on spot VMs of some hours each. The "
    "job saves its state and goes on after a preemption."
)
"""What to ask with."""
PLACES = 2  # that are named; of more, how many


@dataclass(frozen=True)
class Quota:
    """How much of something a project may have."""

    metric: str
    region: str | None
    """None: in all regions together."""
    limit: float
    usage: float


def look_at_quota(place: Place) -> Finding:
    """Whether a spot VM with a GPU may be created at all, and where."""
    project = place.project
    whole = place.google.get("compute", f"projects/{project}")
    if whole is None:
        raise NotKnown(f"compute knows no project {project}")
    regions = [
        region
        for page in place.google.pages("compute", f"projects/{project}/regions", {"maxResults": "500"})
        for region in page.get("items", ())
    ]
    quotas = [*_quotas(whole, None), *(one for region in regions for one in _quotas(region, region["name"]))]
    return judge_quota(quotas, gpus_for(place.gpu, place.settings), project, place.region)


def _quotas(resource: Mapping[str, Any], region: str | None) -> Iterable[Quota]:
    for one in resource.get("quotas", ()):
        yield Quota(one["metric"], region, float(one.get("limit", 0)), float(one.get("usage", 0)))


def gpus_for(gpu: str | None, settings: Settings | None) -> tuple[str, ...]:
    """The GPUs that would do, the smallest first: that one; else those that surely are not too small; pure."""
    if gpu is not None:
        return (gpu,)
    parameters = None if settings is None else parameters_of(settings.model.name)
    needs_gb = 0.0 if settings is None or parameters is None else gpu_gb(settings, parameters)[0]
    bf16 = settings is None or settings.model.dtype == "bfloat16"
    fitting = [
        (one.memory_gb, name)
        for name, one in machines().gpu.items()
        if one.single and one.memory_gb >= needs_gb and (one.bf16 or not bf16)
    ]
    return tuple(name for _, name in sorted(fitting))


def judge_quota(quotas: Sequence[Quota], gpus: Sequence[str], project: str, near: str | None) -> Finding:
    """By what the project may have. `near`: the region to ask for where there is none, when that GPU is there; pure."""
    if not gpus:
        return not_known("no single GPU here is large enough for the recipe")
    known = {(one.metric, one.region): one for one in quotas}
    everywhere = known.get((EVERYWHERE, None))
    where = {gpu: regions_for(gpu, known) for gpu in gpus}
    allowed = {gpu: regions for gpu, regions in where.items() if regions}
    total = 1.0 if everywhere is None else everywhere.limit
    if allowed and total >= 1:
        places = "; ".join(f"{machines().gpu[gpu].title} in {_some(found)}" for gpu, found in allowed.items())
        busy = everywhere is not None and everywhere.usage >= everywhere.limit
        rest = "" if everywhere is None else f"; {total:g} GPUs in all regions together"
        return ok(f"spot: {places}{rest}" + (f", {everywhere.usage:g} in use now" if busy and everywhere else ""))
    gpu = gpus[0]
    metric = f"{SPOT}{machines().gpu[gpu].quota}"
    if not allowed and not any(name == metric for name, _ in known):
        return not_known(
            f"no region names {metric}: newer GPUs are counted under other names", f"# Look: {page(project)}"
        )
    missing = [] if allowed else [_ask(project, metric, _region_to_ask(gpu, near))]
    missing += [] if total >= 1 else [_ask(project, EVERYWHERE, None)]
    names = [f"{metric} is 0 in every region"] * (not allowed) + [f"{EVERYWHERE} is {total:g}"] * (total < 1)
    fix = "\n".join((*missing, f"# or by hand: {page(project)}   It takes minutes to two days."))
    return to_do(f"{' and '.join(names)}: no {machines().gpu[gpu].title} can be had", fix)


def regions_for(gpu: str, known: Mapping[tuple[str, str | None], Quota]) -> tuple[str, ...]:
    """Where a spot VM with that GPU may be: once a region grants quota of spot VMs they may use no other; pure."""
    metric = machines().gpu[gpu].quota
    rented = sorted({offer.region for offer in offers(gpu, True)})
    found = []
    for region in rented:
        spot, standard = known.get((f"{SPOT}{metric}", region)), known.get((metric, region))
        counts = spot if spot is not None and spot.limit > 0 else standard
        if counts is not None and counts.limit >= 1:
            found.append(region)
    return tuple(found)


def page(project: str) -> str:
    """Where people ask for quota."""
    return f"https://console.cloud.google.com/iam-admin/quotas?project={project}"


def _region_to_ask(gpu: str, near: str | None) -> str:
    found = offers(gpu, True, bucket_region=near)
    return found[0].region


def _ask(project: str, metric: str, region: str | None) -> str:
    """The command that asks for one more; Cloud Quotas has a name of its own for each metric."""
    name = f"{metric.replace('_', '-')}-per-project" + ("-region" if region else "")
    words = ["gcloud", "beta", "quotas", "preferences", "create", f"--project={project}"]
    words += ["--service=compute.googleapis.com", f"--quota-id={name}", "--preferred-value=1"]
    words += [f"--dimensions=region={region}"] if region else []
    return shlex.join([*words, f"--justification={WHY}"])


def _some(regions: Sequence[str]) -> str:
    return ", ".join(regions) if len(regions) <= PLACES else f"{len(regions)} regions"
