"""What a launch would do, decided before anything is done: where, for how much, with whose data sent where. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from infra.cloud.types import VmOrder
from infra.expected import START_S, Odds, Ranked, Zone, rank
from infra.launch.alternatives import Alternative, Looked, alternatives
from infra.launch.estimate import Estimate, estimate, gpu_gb, host_gb, work_of
from infra.launch.fall_back import NEVER, FallBack, refuse_fall_back
from infra.launch.prepare import MOST_SLOTS, Prepared, check_gpu, fitting_machines, on_machine
from infra.machines import Gpu, find_gpu, gpu_key, machines
from infra.naming import bucket_of, request_id, vm_name, watchdog_account, watchdog_name
from infra.plan import LivePrices, offers
from infra.watch.observed import Policy
from infra.watch.orders import attempt_order, watchdog_order, zones_near
from infra.watch.spending import hourly_usd, longest_run_s
from job.errors import UsageError
from job.run.claims import Claim, Claims
from job.run.model_source import TINY
from job.run.spec import SUBNET, Machine
from job.settings import Settings

NOTICE_S = 120  # the longest that the platform gives
CAP_FACTOR = 2  # times the estimate
HUB, HUB_TOKEN = "huggingface.co", "HF_TOKEN"
SECRETS = "secretmanager.googleapis.com"
CATALOG = "cloudbilling.googleapis.com"


@dataclass(frozen=True)
class Asked:
    """What the command line says of the VMs."""

    gpu: str
    spot: bool
    zones: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    max_usd: float | None = None
    watch_here: bool = False
    fall_back: FallBack = NEVER
    deadline_s: float | None = None
    """When the run has to be finished, seconds since the epoch."""


@dataclass(frozen=True)
class Surroundings:
    """Where all of it happens, by the environment."""

    uri: str
    """Of the run."""
    project: str
    image: str
    """Container, by its digest."""
    boot_image: str
    service_account: str
    bucket_region: str | None
    """None: not known, for want of network."""
    endpoints: tuple[str, ...]
    """Of Compute Engine and Cloud Storage."""
    has_hub_token: bool = False
    """HF_TOKEN is set here, on the laptop."""
    subnet: str = SUBNET
    secrets: Mapping[str, str] = field(default_factory=dict)
    """As a spec's Machine has them."""
    image_known: str = ""
    """What a person is told of the container."""
    live: LivePrices | None = None
    """Today's prices, where they could be read."""

    def booting(self, boot_image: str) -> "Surroundings":
        """The same, with that boot image."""
        return replace(self, boot_image=boot_image)


@dataclass(frozen=True)
class Host:
    """Somebody who receives data."""

    name: str
    what: str


@dataclass(frozen=True)
class LaunchPlan:
    """All that is shown before the question, and done after it."""

    uri: str
    settings: Settings
    machine: Machine
    gpu: Gpu
    ranked: tuple[Ranked, ...]
    """Where its VMs may be, the least expected cost of the whole run first."""
    others: tuple[Alternative, ...]
    estimate: Estimate | None
    """None: the model's size is not known."""
    needs_gb: tuple[float, float] | None
    """Of the GPU's memory: at least, about."""
    watch_here: bool
    watcher: str
    image_known: str
    hosts: tuple[Host, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Ranked:
        """Where the first VM is asked for."""
        return self.ranked[0]


def make_plan(
    asked: Asked, prepared: Prepared, around: Surroundings, known: Mapping[Zone, Odds] | None = None
) -> LaunchPlan:
    """The plan; `known`: what is known of the zones. Raises UsageError for what cannot be: GPU, place, price."""
    bucket = bucket_of(around.uri)
    gpu, name = find_gpu(asked.gpu), gpu_key(asked.gpu)
    parameters, settings = prepared.parameters, prepared.settings
    needs = None if parameters is None else gpu_gb(settings, parameters)
    check_gpu(name, gpu, settings, needs_gb=0.0 if needs is None else needs[0], spot=asked.spot)
    refuse_fall_back(asked.fall_back, name, spot=asked.spot, deadline_s=asked.deadline_s)
    slots = settings.checkpoint.slots or (MOST_SLOTS if settings.lora.enabled else 2)
    fitting = fitting_machines(gpu, 0.0 if parameters is None else host_gb(settings, parameters, slots))
    types = () if fitting == gpu.single else tuple(machine.type for machine in fitting)
    disk_gb = machines().boot_disk_gb + 10 * round((parameters or 0.0) * 6e-10)  # the weights, twice while they come
    check_places(name, asked)
    found = offers(
        name,
        asked.spot,
        asked.zones,
        asked.regions,
        around.bucket_region,
        machine_types=types,
        boot_disk_gb=disk_gb,
        live=around.live,
    )
    if not found:
        raise UsageError(
            f"no price is known for {gpu.title} {'spot' if asked.spot else 'on demand'} in "
            f"{', '.join(asked.zones + asked.regions) or 'any zone'}.",
            fix="Name another --zone or --region, or " + ("leave --spot out." if asked.spot else "add --spot."),
        )
    notice_s = NOTICE_S if asked.spot else 0
    ranked = rank(found, work_of(settings, gpu, parameters, prepared.steps, image=around.image), known)
    best = ranked[0]
    steps = looked = None
    if parameters is not None and prepared.steps is not None:
        steps = estimate(settings, gpu, parameters, prepared.steps)
        where = asked.zones, asked.regions, around.bucket_region
        looked = Looked(settings, parameters, prepared.steps, around.image, *where, disk_gb, known, around.live)
    if steps is None and asked.max_usd is None:
        raise UsageError(
            f"what training {settings.model.name} costs cannot be estimated: "
            + ("its name does not tell its size." if parameters is None else "train.max_steps is not set."),
            fix="Say what the run's VMs may cost together: --max-usd 20",
        )
    max_usd = asked.max_usd if asked.max_usd is not None else round(_usual_cap(best), 2)
    machine = Machine(
        gpu=name,
        project=around.project,
        spot=asked.spot,
        on_demand=asked.fall_back.when,
        on_demand_after_s=asked.fall_back.after_s,
        deadline_s=asked.deadline_s,
        zones=asked.zones,
        regions=asked.regions,
        bucket_region=around.bucket_region,
        image=around.image,
        boot_image=around.boot_image,
        boot_disk_gb=disk_gb,
        service_account=around.service_account,
        subnet=around.subnet,
        secrets=dict(around.secrets),
        notice_s=notice_s,
        max_usd=max(max_usd, 0.01),
    )
    return LaunchPlan(
        uri=around.uri,
        settings=on_machine(prepared, usd_per_hour=best.offer.usd_per_hour, notice_s=notice_s),
        machine=machine,
        gpu=gpu,
        ranked=ranked,
        others=() if looked is None else alternatives(looked, name, best, spot=asked.spot),
        estimate=steps,
        needs_gb=needs,
        watch_here=asked.watch_here,
        watcher=_watcher(asked, bucket),
        image_known=around.image_known,
        hosts=_hosts(prepared, around),
        notes=_notes(prepared, around, asked, needs),
    )


def first_order(plan: LaunchPlan) -> VmOrder:
    """The VM that is asked for first, in a run that nobody has begun."""
    claim = next_claim(plan, Claims(), 0.0)
    claims = Claims(attempts=(claim,))
    return attempt_order(plan.uri, plan.machine, claim, longest_run_s(plan.machine, claims, claim, Policy()))


def watcher_order(plan: LaunchPlan, request_id: str) -> VmOrder | None:
    """The watchdog VM that is asked for first of all where the bucket has none; None for a plan without one."""
    if plan.watch_here:
        return None
    machine = plan.machine
    return watchdog_order(
        bucket_of(plan.uri),
        machine.project,
        zones_near(machine.bucket_region)[0],
        image=machine.image,
        service_account=watchdog_account(machine.project),
        request_id=request_id,
        subnet=machine.subnet,
    )


def next_claim(plan: LaunchPlan, claims: Claims, now_s: float) -> Claim:
    """The right to the VM of the best offer, under the next number."""
    number = 1 if claims.newest is None else claims.newest.number + 1
    offer = plan.best.offer
    return Claim(
        number=number,
        kind="vm",
        claimed_at_s=now_s,
        zone=offer.zone,
        vm=vm_name(plan.uri, number),
        request_id=request_id(plan.uri, number, now_s),
        machine_type=offer.machine_type,
        spot=offer.spot,
        usd_per_hour=hourly_usd(offer, Policy()),
    )


def _usual_cap(best: Ranked) -> float:
    """So that twice the work fits, and one VM more that is lost before it trains: the shortest of runs is preempted
    too."""
    return CAP_FACTOR * best.expected.usd + best.offer.usd_per_hour * START_S / 3600


def run_name(recipe: Path, now_s: float) -> str:
    """The name of a run that nobody named."""
    return f"{recipe.stem}-{datetime.fromtimestamp(now_s, UTC):%Y%m%d-%H%M%S}"


def check_places(gpu: str, asked: Asked) -> None:
    """Refuses zones and regions that do not have that GPU. Raises UsageError."""
    everywhere = offers(gpu, True) + offers(gpu, False)
    zones, regions = {offer.zone for offer in everywhere}, {offer.region for offer in everywhere}
    for option, given, known in (("--zone", asked.zones, zones), ("--region", asked.regions, regions)):
        for one in given:
            if one not in known:
                raise UsageError(
                    f"{option} {one}: as far as is known, {machines().gpu[gpu].title} is not rented there.",
                    fix=f"It is in {', '.join(sorted(known))}.",
                )


def _watcher(asked: Asked, bucket: str) -> str:
    if asked.watch_here:
        return "this process, as long as it runs"
    known = machines()
    price = f"{known.watchdog.machine_type}, about ${known.watchdog_usd_per_hour:.3f}/h"
    return (
        f"the bucket's watchdog VM {watchdog_name(bucket)} ({price} for all runs of the bucket together), "
        "started when it is not there"
    )


def _hosts(prepared: Prepared, around: Surroundings) -> tuple[Host, ...]:
    compute, storage = (urlsplit(endpoint).netloc for endpoint in around.endpoints)
    files = ", ".join(str(path) for path in prepared.files.values())
    hosts = [
        Host(compute, "the VMs asked for: names, labels, the run's URI"),
        Host(storage, f"the run: recipe, {files}, checkpoints, logs, samples, result"),
        Host(around.image.partition("/")[0], "which container is looked up and pulled, by this machine and the VM"),
    ]
    if around.live is not None:
        hosts.append(Host(CATALOG, "asked for list prices, with your login or a key; nothing of the run"))
    if around.secrets:
        hosts.append(
            Host(SECRETS, f"which secrets the VM reads, with its own rights: {', '.join(sorted(around.secrets))}")
        )
    if prepared.settings.model.name != TINY:
        hosts.append(Host(HUB, f"which model is loaded, by this machine and the VM{_token(around)}"))
    return tuple(hosts)


def _notes(
    prepared: Prepared, around: Surroundings, asked: Asked, needs: tuple[float, float] | None
) -> tuple[str, ...]:
    gpu, settings = find_gpu(asked.gpu), prepared.settings
    notes = []
    if needs is None:
        notes.append(f"whether {settings.model.name} fits is not known: its name does not tell its size.")
    elif needs[1] > gpu.memory_gb:
        notes.append(f"it may run out of memory: about {needs[1]:.0f} GB are needed, the GPU has {gpu.memory_gb}.")
    if not gpu.bf16 and settings.model.dtype == "auto" and settings.model.name != TINY:
        notes.append(f"a {gpu.title} computes no bfloat16, in which most models are saved: see model.dtype.")
    if around.bucket_region is None:
        notes.append("the bucket's region is not known without network; its own region would come first.")
    if around.has_hub_token and HUB_TOKEN not in around.secrets:
        notes.append("HF_TOKEN stays here: a VM cannot load a private or gated model. infra/setup.sh lets it.")
    if settings.model.name != TINY:
        notes.append(f"VMs have no external address: they reach {HUB} where infra/setup.sh --nat has made a way.")
    return tuple(notes)


def _token(around: Surroundings) -> str:
    """Whose token goes along."""
    sent = [
        *(["HF_TOKEN from here"] if around.has_hub_token else []),
        *([f"from the VM {around.secrets[HUB_TOKEN]}"] if HUB_TOKEN in around.secrets else []),
    ]
    return f", with {' and '.join(sent)}" if sent else ""
