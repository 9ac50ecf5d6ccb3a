"""Tokenizer, model and LoRA of a run, from a pinned source. Safetensors only; a model's code is never run."""

from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from job.errors import NeedsPerson, UsageError
from job.run.model_source import ModelSource, check_model_folder, download_model, hash_folder
from job.settings import Settings
from job.training.tiny_model import ensure_tiny


def model_folder(source: ModelSource, token: str | None = None) -> Path:
    """The folder with the model's files: made (tiny), checked against its hash (folder) or downloaded (hub).

    Raises UsageError, NeedsPerson or Transient.
    """
    folder = _locate(source, token)
    check_model_folder(folder, source.name if source.kind == "hub" else None)
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
    return download_model(source, token)


def check_loads(folder: Path, settings: Settings) -> None:
    """Refuses the model in `folder` for what `load_model` and LoRA would, without its weights. Raises UsageError.

    Config and architecture, the header of every safetensors file, `lora.targets`; in a second for any model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt"):
                pass
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _not_loadable(folder, error) from error
    lora = lora_config(settings)
    if lora is not None:
        try:
            get_peft_model(model, lora)
        except ValueError as error:
            linear = {
                name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
            }
            raise UsageError(
                f"lora.targets: the model {settings.model.name} takes no adapter there: {_first_line(error)}",
                fix=f'Use "all-linear", or some of: {", ".join(sorted(linear))}.',
            ) from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, padding on the left as generation needs it. Raises UsageError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"The tokenizer in {folder} cannot be loaded: {_first_line(error)}",
            fix="Copy or download its files again.",
        ) from error
    tokenizer.padding_side = "left"
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_model(folder: Path, settings: Settings) -> PreTrainedModel:
    """The base model in `folder`, in `model.dtype`. Seeds every generator before and after it.

    What is drawn next are LoRA's first values (`lora_config`, given to the trainer): TRL does not seed them.
    Raises UsageError.
    """
    set_seed(settings.train.seed)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_dtype(settings.model.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _not_loadable(folder, error) from error
    if missing := sorted(loading["missing_keys"]):  # transformers would go on with random numbers
        raise UsageError(f"The model in {folder} lacks {len(missing)} of its weights, such as {missing[0]}.")
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
    if name == "auto":
        return name
    return torch.float32 if name == "float32" else torch.bfloat16


def _not_loadable(folder: Path, error: Exception) -> UsageError:
    return UsageError(
        f"The model in {folder} cannot be loaded: {_first_line(error)}",
        fix="Copy or download its files again; model.name may also be another model.",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
