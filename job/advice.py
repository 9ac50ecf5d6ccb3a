"""What to change when training fails for a reason that both the agent and its trainer can see. Torch-free."""

from job.settings import Settings

NOT_FINITE_FIX = (
    'Lower train.learning_rate, train.beta or lora.alpha, or set model.dtype = "float32"; '
    "the run is safe up to the step before."
)
NO_COMPLETION_FIX = (
    "The weights of the last step are finite, but too large to go on from: start another run with a lower "
    'train.learning_rate, train.beta or lora.alpha, or with model.dtype = "float32".'
)


def less_memory(settings: Settings | None) -> str:
    """The settings to lower, with their values."""
    if settings is None:
        return "Use a larger machine."
    train = settings.train
    parts = [
        f"train.batch_size_per_device = {train.batch_size_per_device}",
        f"train.num_generations = {train.num_generations}",
        f"train.max_completion_tokens = {train.max_completion_tokens}",
    ]
    more = "" if train.gradient_checkpointing else "; train.gradient_checkpointing = true needs less"
    return f"Lower one of {', '.join(parts)}{more}. Or use a larger machine."
