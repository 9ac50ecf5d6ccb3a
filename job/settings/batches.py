"""What a recipe comes to, counted: completions, prompts and steps. Pure."""

import math

from job.settings.tree import Settings


def prompts_per_generation(settings: Settings) -> int:
    """Different prompts that TRL draws at once; with fewer rows it would draw none at all."""
    train = settings.train
    steps = train.steps_per_generation or train.gradient_accumulation_steps
    return max(1, train.batch_size_per_device * steps // train.num_generations)


def completions_per_generation(settings: Settings) -> int:
    """Completions that are generated at once."""
    return prompts_per_generation(settings) * settings.train.num_generations


def steps_of(settings: Settings, rows: int) -> int:
    """Optimizer steps of the whole run on so many rows; about, where some prompts turn out too long."""
    train = settings.train
    if train.max_steps is not None:
        return train.max_steps
    completions = rows * train.num_generations * train.num_iterations * train.epochs
    return max(1, math.ceil(completions / (train.batch_size_per_device * train.gradient_accumulation_steps)))
