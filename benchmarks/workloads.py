"""What is trained: the demo, and an adapter of the size that fine-tuning Llama-3.2-1B has. Imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from trl import GRPOConfig

from benchmarks.measure import ROOT
from job.run.model_source import resolve_model
from job.settings import Settings, load_settings
from job.tasks import load_task
from job.training.config import grpo_config
from job.training.model import load_model, load_tokenizer, lora_config, model_folder
from job.training.rewards import make_dataset, make_reward
from job.training.tiny_model import TinySpec, make_tiny, make_tokenizer

DEMO = ROOT / "recipes" / "demo.toml"
MOMENT = TinySpec(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64, warmup_steps=0)
"""A model that is made in a moment, for smoke runs."""


@dataclass(frozen=True)
class Workload:
    """Everything that a trainer is made of."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dataset: Dataset
    reward: Callable[..., list[float | None]]
    args: GRPOConfig
    lora: LoraConfig | None


def demo(folder: Path, *overrides: str) -> Workload:
    """The demo's recipe; `folder` is scratch."""
    settings = _settings(*overrides)
    base = model_folder(resolve_model(settings.model.name))
    return _assemble(settings, load_tokenizer(base), load_model(base, settings), folder)


def moment(folder: Path, *overrides: str) -> Workload:
    """The demo's recipe with a model that needs no making and steps that take no time."""
    transformers.utils.logging.disable_progress_bar()
    base = folder / "moment"
    base.mkdir(parents=True)
    make_tiny(base, MOMENT)
    return demo(folder, f"model.name={base}", "train.batch_size_per_device=8", *overrides)


def llama_1b_adapter(folder: Path, *, completion_tokens: int, threads: int) -> Workload:
    """LoRA r=16 on every linear layer of Llama-3.2-1B: 224 tensors, 11.27M parameters, 135 MB with AdamW's state.

    Shapes and arithmetic are the real ones (config.json of meta-llama/Llama-3.2-1B, 2026-11); the frozen weights are
    random and the 16 layers share one set of them, so that 0.25 GB hold it all. The vocabulary is the demo's.
    """
    settings = _settings(
        f"train.cpu_threads={threads}",
        f"train.max_completion_tokens={completion_tokens}",
        "train.batch_size_per_device=8",
    )
    tokenizer = make_tokenizer(TinySpec())
    set_seed(settings.train.seed)
    model = _shared_llama_1b(tokenizer)
    set_seed(settings.train.seed)
    return _assemble(settings, tokenizer, model, folder)


def _settings(*overrides: str) -> Settings:
    return load_settings(DEMO, overrides, env={}, dotenv=None).settings


def _assemble(settings: Settings, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, folder: Path) -> Workload:
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(settings.train.cpu_threads)
    task = load_task(settings.task, settings.reward.weights, None)
    return Workload(
        model=model,
        tokenizer=tokenizer,
        dataset=make_dataset(task, task.read(ROOT / settings.data.train)),
        reward=make_reward(task, settings.reward.max_none_share),
        args=grpo_config(settings, folder / "trl", model.dtype),
        lora=lora_config(settings),
    )


def _shared_llama_1b(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=1,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    first = model.model.layers[0]
    config.num_hidden_layers = 16
    for i in range(1, config.num_hidden_layers):
        with torch.device("meta"):
            layer = LlamaDecoderLayer(config, i)
        for mine, shared in zip(layer.modules(), first.modules(), strict=True):
            for name, parameter in shared.named_parameters(recurse=False):
                setattr(mine, name, parameter)
        model.model.layers.append(layer)
    return model
