"""About how much memory and time a run takes, from data sheets: rough, and it says what it does not know. Pure.

A step's time is what generation waits for (each token reads the weights once) and what training computes; measured
figures replace it once a run has made its first steps.
"""

import re
from dataclasses import dataclass

from infra.expected import UNKNOWN_WORK_H, Work
from infra.machines import Gpu
from job.run.model_source import TINY
from job.settings import Settings
from job.settings.batches import completions_per_generation

GB = 1e9
TINY_PARAMETERS = 0.8e6
VOCABULARY = 152_000  # tokens that a model of today tells apart
LAYER_WIDTH = 64  # width of a model for each layer that it has: with 12 weights per layer and squared width, its shape
KEPT_BYTES = 34  # that a layer keeps for the backward pass, for each token and unit of width, of 16 bits
HEADS_PER_CACHE = 6  # heads that share one entry of the cache
TOKEN_S = 0.025  # of transformers' generate, for each token, beside reading the weights
READ_SHARE = 0.6  # of the memory's bandwidth that generation reaches
FLOP_SHARE = 0.3  # of the TFLOPS that training reaches
CONTEXT_GB = 1.5  # CUDA, its libraries, fragments
AGENT_GB = 6.0  # system, container, two Python processes
_SIZE = re.compile(r"(?<![A-Za-z0-9])(\d+(?:\.\d+)?)([bm])(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Estimate:
    """How long a run's steps take on one GPU."""

    parameters: float
    steps: int
    step_s: float

    @property
    def hours(self) -> float:
        """Of steps that count; starts and preemptions are beside it (infra/expected.py)."""
        return self.steps * self.step_s / 3600


def parameters_of(name: str) -> float | None:
    """Parameters of a model by its name (Qwen2.5-1.5B: 1.5e9), None where it does not tell."""
    if name == TINY:
        return TINY_PARAMETERS
    sizes = [float(number) * (1e9 if unit in "bB" else 1e6) for number, unit in _SIZE.findall(name.rpartition("/")[2])]
    return sizes[0] if sizes else None


def gpu_gb(settings: Settings, parameters: float) -> tuple[float, float]:
    """(GB that it takes at least, GB that it takes about): weights and optimizer; with logits, cache, activations."""
    train, weight_bytes = settings.train, _weight_bytes(settings)
    surely = parameters * weight_bytes + (0 if settings.lora.enabled else parameters * 12)
    if train.beta > 0 and not settings.lora.enabled:
        surely += parameters * weight_bytes
    tokens = train.max_prompt_tokens + train.max_completion_tokens
    logits = train.batch_size_per_device * train.max_completion_tokens * VOCABULARY * (weight_bytes + 4)
    width = (parameters * LAYER_WIDTH / 12) ** (1 / 3)
    layers = width / LAYER_WIDTH
    per_layer = 2 if train.gradient_checkpointing else KEPT_BYTES
    activations = train.batch_size_per_device * tokens * width * (layers * per_layer + KEPT_BYTES)
    cache = completions_per_generation(settings) * tokens * 2 * weight_bytes * layers * width / HEADS_PER_CACHE
    return surely / GB, (surely + max(logits + activations, cache)) / GB + CONTEXT_GB


def host_gb(settings: Settings, parameters: float, slots: int) -> float:
    """GB of the machine's own memory: the snapshots of what is trained, and the programs."""
    return slots * snapshot_gb(settings, parameters) + AGENT_GB


def snapshot_gb(settings: Settings, parameters: float) -> float:
    """GB of a checkpoint: what is trained with its optimizer's state."""
    trained = parameters * 0.02 * settings.lora.rank / 16 if settings.lora.enabled else parameters
    return trained * 12 / GB


def estimate(settings: Settings, gpu: Gpu, parameters: float, steps: int) -> Estimate:
    """How long the steps of the run take on that GPU."""
    train, weight_bytes = settings.train, _weight_bytes(settings)
    token_s = TOKEN_S + parameters * weight_bytes / (gpu.gb_per_s * GB * READ_SHARE)
    used = (train.steps_per_generation or train.gradient_accumulation_steps) * train.num_iterations
    generations = train.gradient_accumulation_steps / used
    completions = train.batch_size_per_device * train.gradient_accumulation_steps
    passes = 6 + 2 * train.gradient_checkpointing + 2 * (train.beta > 0)
    flop = passes * parameters * completions * (train.max_prompt_tokens + train.max_completion_tokens)
    step_s = generations * train.max_completion_tokens * token_s + flop / (gpu.tflops * 1e12 * FLOP_SHARE)
    return Estimate(parameters, steps, step_s)


def work_of(
    settings: Settings, gpu: Gpu, parameters: float | None, steps: int | None, *, image: str | None = None
) -> Work:
    """The run as its cost at an offer depends on it; what is not known as infra/expected.py takes it to be."""
    registry = None if image is None else registry_region(image)
    if parameters is None:
        return Work(registry_region=registry)
    restore_gib = snapshot_gb(settings, parameters) * GB / 2**30
    hours = UNKNOWN_WORK_H if steps is None else estimate(settings, gpu, parameters, steps).hours
    return Work(hours=hours, restore_gib=restore_gib, registry_region=registry)


def registry_region(image: str) -> str | None:
    """Where Artifact Registry keeps an image, by its host (us-central1-docker.pkg.dev); None for another registry."""
    host = image.partition("/")[0]
    return host.removesuffix("-docker.pkg.dev") if host.endswith("-docker.pkg.dev") else None


def _weight_bytes(settings: Settings) -> int:
    """Of one weight; `auto` as nearly all models are saved."""
    return 4 if settings.model.dtype == "float32" else 2
