"""Training runs of the micro model that can be killed at a chosen place, and what is compared between them."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

from job.arena import Slot, TensorIndex, parse_safetensors_header, safetensors_header
from job.training.exact import ExactTrainer
from job.training.sink import Scored, Snapshot
from job.training.slots import slot_tensors
from job.training.state import window_to_plain
from job.training.tiny_model import TinySpec, make_tiny

MICRO = TinySpec(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64, max_positions=64, warmup_steps=0)
HELD_OUT = ("1+2=", "2+3=")
TIMINGS = ("step_time", "_runtime", "_per_second")


@cache
def micro_model() -> Path:
    """A folder with the micro model: random weights, made once per process, or at $BATON_MICRO for several."""
    folder = Path(os.environ.get("BATON_MICRO") or tempfile.mkdtemp(prefix="micro-"))
    if not (folder / "config.json").is_file():
        make_tiny(folder, MICRO)
    return folder


@dataclass(frozen=True)
class Recipe:
    """One configuration to train. `args` are GRPOConfig's, as items so that a recipe can be a cache key."""

    args: tuple[tuple[str, Any], ...] = ()
    rows: int = 32
    lora_dropout: float | None = None
    """None: full fine-tuning."""
    bf16_adapter: bool = False
    """As TRL makes it for quantised models."""

    def config(self, folder: str) -> GRPOConfig:
        base: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "num_generations": 4,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "max_completion_length": 4,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "logging_nan_inf_filter": False,
        }
        return GRPOConfig(**{**base, **dict(self.args)})


def recipe(*, rows: int = 32, lora_dropout: float | None = None, bf16_adapter: bool = False, **args: Any) -> Recipe:
    return Recipe(tuple(sorted(args.items())), rows, lora_dropout, bf16_adapter)


class Killed(BaseException):
    """What SIGKILL is in a test that stays in one process: nothing of the trainer runs after it."""


@dataclass
class Deadly:
    """Counts events of one attempt and kills it at one of them: ("reward", 2) is in the second scoring."""

    at: tuple[str, int] | None
    seen: dict[str, int] = field(default_factory=dict)

    def reached(self, event: str) -> None:
        self.seen[event] = self.seen.get(event, 0) + 1
        if self.at == (event, self.seen[event]):
            raise Killed


class MemorySink:
    """Keeps the newest snapshot as the agent does, and gives it back as it comes from the bucket: from file bytes."""

    def __init__(self) -> None:
        self.slots = [Slot.create(f"test{i}") for i in range(3)]
        self.filling = 0
        self.newest: tuple[int, TensorIndex, bytes, dict[str, Any]] | None = None
        self.scored: Mapping[int, Scored] = {}
        self.rows: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.deadly = Deadly(None)

    def slot(self) -> Slot:
        self.deadly.reached("slot")
        taken = None if self.newest is None else self.newest[0]
        self.filling = next(i for i in range(3) if i not in (taken, self.filling))
        return self.slots[self.filling]

    def publish(self, index: TensorIndex, extra: bytes, meta: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.newest = self.filling, dict(index), extra, json.loads(json.dumps(meta))
        self.scored = {}
        self.rows += rows
        self.steps.append(meta["global_step"])
        self.deadly.reached("publish")

    def publish_scored(self, scored: Mapping[int, Scored]) -> None:
        self.scored = {n: Scored(s.blob, json.loads(json.dumps(s.meta))) for n, s in scored.items()}
        self.deadly.reached("scored")

    def snapshot(self) -> Snapshot | None:
        if self.newest is None:
            return None
        slot, index, extra, meta = self.newest
        memory = self.slots[slot].view(max(t.offset + t.size_bytes for t in index.values()))
        data = b"".join(bytes(memory[t.offset : t.offset + t.size_bytes]) for t in index.values())
        file = bytearray(safetensors_header(index) + data)
        return Snapshot(memoryview(file), parse_safetensors_header(bytes(file)), extra, meta, self.scored)


class Mortal(ExactTrainer):
    """Says where it is, so that it can be killed there."""

    deadly: Deadly

    def training_step(self, *args: Any) -> torch.Tensor:
        loss = super().training_step(*args)
        self.deadly.reached("micro-step")
        return loss

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        self.deadly.reached("evaluation")
        return super().prediction_step(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.deadly.reached("optimizer-step")
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _finalize_training(self, *args: Any) -> Any:
        self.deadly.reached("finish")
        return super()._finalize_training(*args)


@dataclass
class Outcome:
    """What two runs are compared by."""

    tensors: dict[str, torch.Tensor]
    """Trainable parameters, optimizer state, moved reference model."""
    scored: list[Any]
    """Prompts and token ids of every training batch whose scoring was completed, in order."""
    rows: list[str]
    """Log rows without timings, as JSON."""
    steps: list[int]
    """Of every published boundary."""
    logs: Any = None
    """The completions in the logging window at the end, where they are logged."""


def assert_same(one: Outcome, other: Outcome) -> None:
    assert one.rows == other.rows
    assert one.scored == other.scored
    assert one.logs == other.logs
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype, name
        assert torch.equal(tensor, other.tensors[name]), name


def score(text: str) -> float:
    """Some number that differs from completion to completion."""
    return sum(text.encode()) % 17 / 16


def train(recipe: Recipe, kills: tuple[tuple[str, int], ...] = (), sampled_steps: int = 0) -> Outcome:
    """Trains until finished; attempt i is killed at `kills[i]`, which must come to pass."""
    sink, scored = MemorySink(), []
    for kill in kills:
        trainer = build(recipe, sink, Deadly(kill), scored, sampled_steps)
        try:
            trainer.run(sink.snapshot())
        except Killed:
            continue
        raise AssertionError(f"the run ended before {kill}: {trainer.deadly.seen}")
    trainer = build(recipe, sink, Deadly(None), scored, sampled_steps)
    trainer.run(sink.snapshot())
    rows = sink.rows + trainer.take_rows()
    snapshot = sink.snapshot()
    assert snapshot is not None
    saved = slot_tensors(snapshot.slot_view, snapshot.index)
    final = dict(trainer._live_tensors())
    assert all(torch.equal(tensor, final[name]) for name, tensor in saved.items() if name != "tr_loss")
    return Outcome(
        {name: tensor.detach().clone() for name, tensor in final.items()},
        scored,
        [without_timings(row) for row in rows],
        sink.steps,
        completions_logged(trainer),
    )


@cache
def uninterrupted(recipe: Recipe) -> Outcome:
    return train(recipe)


def build(recipe: Recipe, sink: MemorySink, deadly: Deadly, scored: list[Any], sampled_steps: int = 0) -> Mortal:
    """A fresh process' trainer, going on from the sink's newest snapshot."""
    forget_process_state()
    sink.deadly = deadly
    trainer = Mortal(
        reward=reward_function(deadly, scored),
        sink=sink,
        sampled_steps=sampled_steps,
        **parts(recipe),
    )
    trainer.deadly = deadly
    cast_adapter(recipe, trainer)
    assert trainer.planned_steps() > 0  # asked for before training; must not change anything
    if sink.newest is not None:
        set_seed(99)  # nothing may come from the random state that a process happens to start with
    return trainer


def train_stock(recipe: Recipe) -> Outcome:
    """The same with plain GRPOTrainer, uninterrupted."""
    forget_process_state()
    scored: list[Any] = []
    given = parts(recipe)
    trainer = GRPOTrainer(
        reward_funcs=reward_function(Deadly(None), scored),
        processing_class=given.pop("tokenizer"),
        **given,
    )
    cast_adapter(recipe, trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    tensors = {}
    for name, p in trainer.model.named_parameters():
        if p.requires_grad:
            tensors[f"model/{name}"] = p.detach().clone()
            tensors |= {f"optim/{name}/{k}": v for k, v in sorted(trainer.optimizer.state[p].items())}
    if trainer.args.sync_ref_model:
        tensors |= {f"ref/{n}": p.detach() for n, p in trainer.ref_model.named_parameters()}
    rows = [without_timings(row) for row in trainer.state.log_history]
    return Outcome(tensors | {"tr_loss": trainer._tr_loss}, scored, rows, [], completions_logged(trainer))


def parts(recipe: Recipe) -> dict[str, Any]:
    set_seed(0)
    folder = tempfile.mkdtemp(prefix="exact-")
    model = AutoModelForCausalLM.from_pretrained(micro_model())
    prompts = [{"prompt": [{"role": "user", "content": f"{i}+{i}="}]} for i in range(recipe.rows)]
    lora = None
    if recipe.lora_dropout is not None:
        lora = LoraConfig(r=4, target_modules="all-linear", lora_dropout=recipe.lora_dropout, task_type="CAUSAL_LM")
    set_seed(0)
    return {
        "model": model,
        "args": recipe.config(folder),
        "train_dataset": Dataset.from_list(prompts),
        "eval_dataset": Dataset.from_list([{"prompt": [{"role": "user", "content": c}]} for c in HELD_OUT]),
        "tokenizer": AutoTokenizer.from_pretrained(micro_model(), padding_side="left"),
        "peft_config": lora,
    }


def reward_function(deadly: Deadly, scored: list[Any]) -> Any:
    def reward(
        prompts: Any, completions: Any, completion_ids: Any, trainer_state: Any, **columns: Any
    ) -> list[float | None]:
        deadly.reached("reward")
        rewards: list[float | None] = [score(c[0]["content"]) for c in completions]
        if prompts[0][0]["content"] not in HELD_OUT:
            scored.append([trainer_state.global_step, [p[0]["content"] for p in prompts], completion_ids])
        return rewards

    return reward


def cast_adapter(recipe: Recipe, trainer: GRPOTrainer) -> None:
    for parameter in trainer.model.parameters():
        if recipe.bf16_adapter and parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)


def completions_logged(trainer: GRPOTrainer) -> Any:
    return window_to_plain(trainer._logs) if trainer.args.log_completions else None


def without_timings(row: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in row.items() if not k.endswith(TIMINGS)})


def forget_process_state() -> None:
    """accelerate's singletons, which a process that was killed would not have left behind."""
    GradientState._reset_state()
    AcceleratorState._reset_state()
    PartialState._reset_state()
