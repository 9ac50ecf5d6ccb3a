"""About how much memory, time and money a run takes, from data sheets: rough, and it says what it does not know. Pure.

A step's time is what generation waits for (each token reads the weights once) and what training computes; measured
figures replace it once a run has made its first steps.
"""

import math
import re
from dataclasses import dataclass

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
START_S = 600.0  # boot, pull, import, model: of the first VM, and again after each preemption
PREEMPTED_EVERY_S = 4 * 3600.0
_SIZE = re.compile(r"(?<![A-Za-z0-9])(\d+(?:\.\d+)?)([bm])(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Estimate:
    """What a run takes on one machine."""

    parameters: float
    steps: int
    step_s: float
    hours: float
    """VM hours, with starts and the preemptions to expect."""
    usd: float


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
    trained = parameters * 0.02 * settings.lora.rank / 16 if settings.lora.enabled else parameters
    return slots * trained * 12 / GB + AGENT_GB


def estimate(
    settings: Settings, gpu: Gpu, parameters: float, steps: int, usd_per_hour: float, *, spot: bool
) -> Estimate:
    """Time and cost of the whole run on that GPU."""
    train, weight_bytes = settings.train, _weight_bytes(settings)
    token_s = TOKEN_S + parameters * weight_bytes / (gpu.gb_per_s * GB * READ_SHARE)
    used = (train.steps_per_generation or train.gradient_accumulation_steps) * train.num_iterations
    generations = train.gradient_accumulation_steps / used
    completions = train.batch_size_per_device * train.gradient_accumulation_steps
    passes = 6 + 2 * train.gradient_checkpointing + 2 * (train.beta > 0)
    flop = passes * parameters * completions * (train.max_prompt_tokens + train.max_completion_tokens)
    step_s = generations * train.max_completion_tokens * token_s + flop / (gpu.tflops * 1e12 * FLOP_SHARE)
    working_s = steps * step_s
    starts = 1 + (math.ceil(working_s / PREEMPTED_EVERY_S) if spot else 0)
    hours = (working_s + starts * START_S) / 3600
    return Estimate(parameters, steps, step_s, hours, hours * usd_per_hour)


def _weight_bytes(settings: Settings) -> int:
    """Of one weight; `auto` as nearly all models are saved."""
    return 4 if settings.model.dtype == "float32" else 2
