"""What a launch would start, checked on the laptop before anything is created: recipe, files, model. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.launch.estimate import parameters_of
from infra.machines import Gpu, MachineType, machines
from job.errors import UsageError
from job.run.inputs import INPUT_KEYS, PinnedInput, input_path, pin_input
from job.run.model_source import ModelSource, resolve_model
from job.run.spec import Spec, SpecModel
from job.settings import Settings, from_plain, load_secrets, load_settings
from job.settings.batches import prompts_per_generation, steps_of
from job.settings.load import DEFAULT
from job.storage import Bucket
from job.tasks import load_task

MOST_SLOTS = 3  # snapshots in the agent's memory, as job/agent has them


@dataclass(frozen=True)
class Prepared:
    """A recipe that can be started, as far as this machine can tell."""

    settings: Settings
    origins: Mapping[str, str]
    files: Mapping[str, Path]
    """The user's files, by the setting that names them."""
    steps: int | None
    """Optimizer steps of the whole run; None where that takes the rows, and they are in the bucket."""
    parameters: float | None
    """Of the model; None where its name does not tell."""


def prepare(recipe: Path, overrides: Sequence[str]) -> Prepared:
    """Reads the recipe and every file that it names, as the trainer will. Raises UsageError; contacts nothing."""
    resolved = load_settings(recipe, overrides)
    settings = resolved.settings
    files = {key: path for key in INPUT_KEYS if (path := input_path(settings, key)) is not None}
    task = load_task(settings.task, settings.reward.weights)
    rows = task.read(Path(settings.data.train))[: settings.data.max_rows]
    for row in rows:
        task.prompt(row)
    if (needed := prompts_per_generation(settings)) > len(rows):
        raise UsageError(
            f"{settings.data.train} has {len(rows)} rows; a generation takes {needed}.",
            fix="Add rows, or lower train.batch_size_per_device or train.steps_per_generation.",
        )
    if settings.data.eval is not None:
        for row in task.read(Path(settings.data.eval)):
            task.prompt(row)
    if Path(settings.model.name).expanduser().is_dir():
        raise UsageError(
            f"model.name: {settings.model.name} is a folder on this machine, which no VM can read.",
            fix="Name a model of the Hugging Face Hub; `hf upload` puts the folder there, private if it has to be.",
        )
    steps = steps_of(settings, len(rows))
    return Prepared(settings, resolved.origins, files, steps, parameters_of(settings.model.name))


def prepared_of(spec: Spec) -> Prepared:
    """A run that exists, as what its spec says: its files and its model are in the bucket, and pinned."""
    settings = from_plain(spec.recipe)
    return Prepared(settings, {}, {}, settings.train.max_steps, parameters_of(settings.model.name))


def pin_model(settings: Settings) -> SpecModel:
    """The model with its commit. Raises UsageError, NeedsPerson or Transient."""
    token = load_secrets().hf_token
    secret = None if token is None else token.get_secret_value()
    source: ModelSource = resolve_model(settings.model.name, settings.model.revision, token=secret)
    return SpecModel(name=source.name, revision=source.revision, sha256=source.sha256)


def pin_files(bucket: Bucket, files: Mapping[str, Path], scratch: Path) -> list[PinnedInput]:
    """Copies of the user's files in `scratch`, with their hashes: what is uploaded is what was hashed."""
    return [pin_input(bucket, key, path, None, scratch) for key, path in files.items()]


def on_machine(prepared: Prepared, *, usd_per_hour: float, notice_s: int) -> Settings:
    """The settings with what only the machine decides, where the recipe leaves it open; nothing that is learnt."""
    attempt = {"attempt.machine_usd_per_hour": round(usd_per_hour, 4), "attempt.notice_s": float(notice_s)}
    given = {
        key.partition(".")[2]: value
        for key, value in attempt.items()
        if prepared.origins.get(key, DEFAULT) == DEFAULT and value > 0
    }
    return prepared.settings.model_copy(update={"attempt": prepared.settings.attempt.model_copy(update=given)})


def check_gpu(name: str, gpu: Gpu, settings: Settings, *, needs_gb: float, spot: bool) -> None:
    """Refuses a GPU that cannot compute the recipe's numbers or hold its weights. Raises UsageError."""
    wants_bf16 = settings.model.dtype == "bfloat16"
    smallest = smallest_gpu(needs_gb, bf16=wants_bf16)
    instead = (
        "no single GPU here is large enough" if smallest is None else f"--gpu {smallest} is the smallest that fits"
    )
    if wants_bf16 and not gpu.bf16:
        raise UsageError(
            f"--gpu {name}: the recipe wants model.dtype = bfloat16, which a {gpu.title} cannot compute.",
            fix=f"{instead[0].upper()}{instead[1:]}; or --set model.dtype=float32, which takes twice the memory.",
        )
    if needs_gb > gpu.memory_gb:
        raise UsageError(
            f"--gpu {name}: {settings.model.name} and what it is trained with take at least {needs_gb:.0f} GB, "
            f"and it has {gpu.memory_gb}.",
            fix=f"{instead[0].upper()}{instead[1:]}"
            + ("." if settings.lora.enabled else "; lora.enabled = true takes far less."),
        )
    if not spot and not gpu.on_demand:
        raise UsageError(
            f"--gpu {name}: Google Cloud rents single ones as spot VMs only.", fix="Add --spot, or use another --gpu."
        )


def smallest_gpu(needs_gb: float, *, bf16: bool) -> str | None:
    """The smallest single GPU that holds so much and computes bfloat16 where that is wanted."""
    fitting = [
        (gpu.memory_gb, name)
        for name, gpu in machines().gpu.items()
        if gpu.single and gpu.memory_gb >= needs_gb and (gpu.bf16 or not bf16)
    ]
    return min(fitting)[1] if fitting else None


def fitting_machines(gpu: Gpu, needs_gb: float) -> tuple[MachineType, ...]:
    """Machines with that GPU whose own memory is enough. Raises UsageError where none is."""
    fitting = tuple(machine for machine in gpu.single if machine.host_gb >= needs_gb)
    if not fitting:
        most = max(machine.host_gb for machine in gpu.single)
        raise UsageError(
            f"the snapshots of what is trained take about {needs_gb:.0f} GB of the machine's memory; with a "
            f"{gpu.title} there are at most {most}.",
            fix="Train with lora.enabled = true, lower checkpoint.slots to 2, or use a larger --gpu.",
        )
    return fitting
