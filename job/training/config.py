"""The run's settings as TRL's."""

from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig

from job.settings import Settings


def grpo_config(settings: Settings, folder: Path, base_dtype: torch.dtype) -> GRPOConfig:
    """What GRPOTrainer is told; `folder` is scratch, nothing of the run is read from or left there.

    Prompts are not cut: rows whose prompt is too long were left out before (`preflight`).
    """
    train = settings.train
    bf16 = base_dtype == torch.bfloat16
    reference: dict[str, Any] = {}
    if train.beta > 0 and not settings.lora.enabled:
        # TRL loads the reference model anew, in float32 and with device_map="auto" unless told otherwise.
        reference = {"dtype": str(base_dtype).removeprefix("torch."), "device_map": None}
    return GRPOConfig(
        output_dir=str(folder),
        seed=train.seed,
        max_steps=-1 if train.max_steps is None else train.max_steps,
        num_train_epochs=train.epochs,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_steps,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        per_device_train_batch_size=train.batch_size_per_device,
        # TRL wants whole groups here too.
        per_device_eval_batch_size=-(-train.batch_size_per_device // train.num_generations) * train.num_generations,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        num_generations=train.num_generations,
        steps_per_generation=train.steps_per_generation,
        num_iterations=train.num_iterations,
        max_completion_length=train.max_completion_tokens,
        beta=train.beta,
        epsilon=train.epsilon,
        loss_type=train.loss_type,
        scale_rewards=train.scale_rewards,
        temperature=train.temperature,
        top_p=train.top_p,
        top_k=train.top_k,
        shuffle_dataset=train.shuffle,
        sync_ref_model=train.sync_ref_model,
        ref_model_sync_steps=train.ref_model_sync_steps,
        ref_model_mixup_alpha=train.ref_model_mixup_alpha,
        model_init_kwargs=reference or None,
        gradient_checkpointing=train.gradient_checkpointing,
        eval_strategy="no" if train.eval_every_steps is None else "steps",
        eval_steps=train.eval_every_steps,
        logging_steps=train.log_every_steps,
        logging_nan_inf_filter=False,  # would hide a loss that is not finite behind the mean of those before
        bf16=bf16,
        fp16=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=0,  # a worker draws random numbers of its own
        save_strategy="no",  # the sink has every step
        report_to="none",
        disable_tqdm=True,
    )
