"""The one settings tree: what a recipe may say. Training, evaluation and export all read it.

Every field has bounds and a docstring, which is its line in docs/configuration.md. A field is part of the
run's identity, so that changing it on an existing run is refused by name, unless it is marked OPERATIONAL.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from job.errors import UsageError

OPERATIONAL = "operational"
"""Marks a field that changes nothing of what is learnt."""

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1)]

NOTICE_S = 30.0  # Compute Engine's time between the notice and the end of a spot VM; cloud.google.com, 2026-11


class Section(BaseModel):
    """What all tables of a recipe have in common."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(Section):
    """What is trained on. Paths are relative to the folder that the command runs in, not to the recipe's."""

    train: Name
    """JSONL file of the rows to train on, one JSON object a line; pinned by its hash when the run begins."""
    eval: Name | None = None
    """JSONL file of held-out rows, for the evaluations during training; none without it."""
    max_rows: Count | None = None
    """Rows of `data.train` to use, from the top; all without it."""


class Model(Section):
    """Which model is trained."""

    name: Name = "tiny"
    """`tiny` (a 0.8M-parameter model that Baton makes by itself), a local folder, or a Hugging Face id."""
    revision: Name | None = None
    """Commit, branch or tag of a Hugging Face id; resolved to a commit once, when the run begins."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the base weights; `auto`: as they were saved."""


class Lora(Section):
    """The adapter that is trained instead of the model's own weights."""

    enabled: bool = True
    """Train a LoRA adapter; false: full fine-tuning."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the adapter's matrices."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Scale: what the adapter adds is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that are dropped while training."""
    targets: Literal["all-linear"] | Annotated[tuple[Name, ...], Field(strict=False, min_length=1)] = "all-linear"
    """Modules that get an adapter: `all-linear`, or a list of names such as `["q_proj", "v_proj"]`."""


class Train(Section):
    """GRPO: how long, how fast, on how much at once."""

    max_steps: Count | None = None
    """Optimizer steps; without it `train.epochs` says how long."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the rows; used when `train.max_steps` is not set."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random: adapter, order of the rows, generation, dropout."""
    cpu_threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """Threads of the trainer; another number gives other bits in the last places."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """AdamW's step size after warm-up."""
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """Course of the learning rate, by transformers' names; `linear` and `cosine` end at 0."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps in which the learning rate rises from 0."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the mean of the gradients, per step."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the mean of the squared gradients, per step."""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's guard against division by zero."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's decay of the weights, as a share of the learning rate."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Norm to which gradients are clipped."""
    batch_size_per_device: Count = 8
    """Completions per forward and backward pass on each device."""
    gradient_accumulation_steps: Count = 1
    """Passes whose gradients make one optimizer step."""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """Completions per prompt: the group within which rewards are compared."""
    steps_per_generation: Count | None = None
    """Passes that use what was generated at once; without it `train.gradient_accumulation_steps`."""
    num_iterations: Count = 1
    """Times that what was generated is used (mu of the GRPO paper)."""
    max_prompt_tokens: Count = 512
    """Tokens of the longest prompt; rows with a longer one are left out, with a warning."""
    max_completion_tokens: Count = 256
    """Tokens after which a completion is cut."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL term that holds the model near its start; 0: no reference model."""
    kl_warning: Annotated[float | None, Field(gt=0), OPERATIONAL] = 0.5
    """KL from the start, in nats per token, above which a warning is said; needs `train.beta` > 0; `none`: never."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clipping range of the probability ratio."""
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = "dapo"
    """How the loss is averaged over tokens, by TRL's names."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Within what advantages are divided by the standard deviation of the rewards."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature of the completions."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of probability to sample tokens from; 1: all."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Number of tokens to sample from; 0: all."""
    shuffle: bool = True
    """Draw the rows in a random order, another one each epoch."""
    eval_every_steps: Count | None = None
    """Optimizer steps between evaluations on `data.eval`; none without it."""
    log_every_steps: Annotated[int, Field(ge=1), OPERATIONAL] = 1
    """Optimizer steps that make one row of metrics."""
    sampled_steps: Annotated[int, Field(ge=0, le=1000), OPERATIONAL] = 50
    """Steps, spread over the run, of which four completions are recorded for `baton report`; 0: none."""
    sync_ref_model: bool = False
    """Let the reference model follow; needs `train.beta` > 0 and full fine-tuning."""
    ref_model_sync_steps: Count = 64
    """Optimizer steps between two moves of the reference model."""
    ref_model_mixup_alpha: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the trained weights in the moved reference model."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """What TRL would refuse, later and with a traceback (GRPOConfig and GRPOTrainer of trl 1.14.2)."""
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        batch = self.batch_size_per_device * steps
        if batch % self.num_generations:
            name = "steps_per_generation" if self.steps_per_generation else "gradient_accumulation_steps"
            raise UsageError(
                f"train.batch_size_per_device x train.{name} = {self.batch_size_per_device} x {steps} = "
                f"{batch} is not a multiple of train.num_generations = {self.num_generations}.",
                fix="What is generated at once holds whole groups: change one of the three.",
            )
        if self.sync_ref_model and self.beta == 0:
            raise UsageError(
                "train.sync_ref_model = true has no reference model to move while train.beta = 0.",
                fix="Set train.beta above 0, or train.sync_ref_model = false.",
            )
        if self.warmup_steps and self.schedule == "constant":
            raise UsageError(
                f'train.warmup_steps = {self.warmup_steps} has no effect with train.schedule = "constant".',
                fix='Use train.schedule = "constant_with_warmup".',
            )
        if self.max_steps is not None and self.warmup_steps >= self.max_steps:
            raise UsageError(
                f"train.warmup_steps = {self.warmup_steps} is not below train.max_steps = {self.max_steps}.",
                fix="Lower train.warmup_steps.",
            )
        return self


class Reward(Section):
    """How the parts of a task's reward count."""

    weights: dict[Name, float] = {}
    """Weight by part, such as `correctness = 0.9`; parts that are not named keep the task's own weight."""
    max_none_share: Annotated[Share, OPERATIONAL] = 0.5
    """Share of a batch that may lack a reward before the attempt ends instead of learning from noise."""


class Checkpoint(Section):
    """What is kept. A checkpoint is made at every step."""

    keep_last: Annotated[int, Field(ge=2, le=100), OPERATIONAL] = 2
    """Newest checkpoints to keep; the second is for when the first is damaged."""
    keep_every_steps: Annotated[Count | None, OPERATIONAL] = None
    """Keep every checkpoint whose step is a multiple of this too; none without it."""
    slots: Annotated[Literal[2, 3] | None, OPERATIONAL] = None
    """Copies of the training state in memory; without it 3 for LoRA and 2 for full fine-tuning."""


class Attempt(Section):
    """How one attempt behaves; nothing of it changes what is learnt."""

    heartbeat_s: Annotated[float, Field(ge=0.05, le=60), OPERATIONAL] = 10.0
    """Seconds between signs of life in the bucket."""
    hang_timeout_s: Annotated[float, Field(ge=1), OPERATIONAL] = 900.0
    """Seconds without progress after which the trainer is started again; once it trains at least 10 median steps."""
    notice_s: Annotated[float, Field(gt=0, le=3600), OPERATIONAL] = NOTICE_S
    """Seconds between the metadata server's notice and the end of the machine."""
    machine_usd_per_hour: Annotated[float, Field(gt=0, le=1000), OPERATIONAL] = 0.36
    """What the machine costs, in USD per hour. Checkpoints to a bucket that bills them are spaced so that they cost at
    most 5 % of it. The default is the cheapest VM with an L4 (g2-standard-4, spot, us-central1, 2026-07)."""
    flush_margin_s: Annotated[float, Field(ge=0, le=600), OPERATIONAL] = 5.0
    """Seconds to spare, beyond what the last upload is expected to take, before the machine ends."""


class Settings(Section):
    """A whole recipe. Made by `load_settings` or `from_plain`; never reads the environment by itself."""

    task: Name = "math_qa"
    """What is taught: `math_qa`, or `FILE.py:CLASS` for a task of one's own."""
    data: Data
    model: Model = Model()
    lora: Lora = Lora()
    train: Train = Train()
    reward: Reward = Reward()
    checkpoint: Checkpoint = Checkpoint()
    attempt: Attempt = Attempt()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.train.sync_ref_model and self.lora.enabled:
            raise UsageError(
                "train.sync_ref_model = true needs full fine-tuning: LoRA's reference is the bare model.",
                fix="Set lora.enabled = false, or train.sync_ref_model = false.",
            )
        if self.train.eval_every_steps is not None and self.data.eval is None:
            raise UsageError(
                f"train.eval_every_steps = {self.train.eval_every_steps} has nothing to evaluate on.",
                fix="Set data.eval to a file of held-out rows.",
            )
        if self.attempt.hang_timeout_s <= self.attempt.heartbeat_s:
            raise UsageError(
                f"attempt.hang_timeout_s = {self.attempt.hang_timeout_s:g} is not longer than "
                f"attempt.heartbeat_s = {self.attempt.heartbeat_s:g}.",
                fix="Raise attempt.hang_timeout_s.",
            )
        return self
