"""Tokenizer, model and LoRA of a run, from a pinned source. Safetensors only; a model's code is never run."""

from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from job.errors import NeedsPerson, UsageError
from job.model_source import ModelSource, check_model_folder, hash_folder, hub_error
from job.settings import Settings
from job.training.tiny_model import ensure_tiny

# What loading needs; no pickles, no original/ or onnx/ copies of the weights (they lie in subfolders).
HUB_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "*.txt",
    "tokenizer.model",
    "spiece.model",
)


def model_folder(source: ModelSource, token: str | None = None) -> Path:
    """The folder with the model's files: made (tiny), checked against its hash (folder) or downloaded (hub).

    Raises UsageError, NeedsPerson or Transient.
    """
    folder = _locate(source, token)
    check_model_folder(folder)
    if source.sha256 is not None and hash_folder(folder) != source.sha256:
        raise NeedsPerson(
            f"The model {source.name} in {folder} is not the one that the run began with.",
            fix="Bring back its files, or begin a new run with these.",
        )
    return folder


def _locate(source: ModelSource, token: str | None) -> Path:
    if source.kind == "tiny":
        return ensure_tiny()
    if source.kind == "folder":
        assert source.path is not None
        if not source.path.is_dir():
            raise UsageError(f"model.name: there is no folder {source.path}.")
        return source.path
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                source.name,
                revision=source.revision,
                token=token,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=["*/*"],
            )
        )
    except Exception as error:
        raise hub_error(source.name, source.revision, error) from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, padding on the left as generation needs it. Raises UsageError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"The tokenizer in {folder} cannot be loaded: {_first_line(error)}") from error
    tokenizer.padding_side = "left"
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_model(folder: Path, settings: Settings) -> PreTrainedModel:
    """The base model in `folder`, in `model.dtype`. Seeds every generator before and after it.

    What is drawn next are LoRA's first values (`lora_config`, given to the trainer): TRL does not seed them.
    Raises UsageError.
    """
    set_seed(settings.train.seed)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_dtype(settings.model.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"The model in {folder} cannot be loaded: {_first_line(error)}") from error
    set_seed(settings.train.seed)
    return cast(PreTrainedModel, model)


def lora_config(settings: Settings) -> LoraConfig | None:
    """What GRPOTrainer's `peft_config` takes; None for full fine-tuning."""
    lora = settings.lora
    if not lora.enabled:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else sorted(lora.targets),
        task_type="CAUSAL_LM",
    )


def sort_targets(model: PeftModel) -> None:
    """Puts the names of the modules that carry LoRA in order.

    PEFT keeps a set: adapter_config.json would differ from process to process (PYTHONHASHSEED).
    """
    for config in model.peft_config.values():
        if isinstance(targets := getattr(config, "target_modules", None), set):
            config.target_modules = sorted(targets)


def _dtype(name: str) -> torch.dtype | str:
    return {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
