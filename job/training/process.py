"""The trainer process: checks what it is to train, builds it, trains, writes the result; all on the agent's word.

It is forked from a process that has imported this module. It never touches the bucket and may be killed anywhere.
"""

import contextlib
import faulthandler
import gc
import os
import platform
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from job.arena import Channel, ChannelClosed, Message, Slot
from job.errors import UsageError
from job.run.model_source import ModelSource, hash_folder
from job.settings import Settings, from_plain, load_secrets
from job.tasks import LoadedTask, load_task
from job.training import preflight
from job.training.channel_sink import ChannelSink, snapshot_from
from job.training.config import grpo_config
from job.training.exact import ExactTrainer
from job.training.failure import explain
from job.training.model import check_loads, load_model, load_tokenizer, lora_config, model_folder
from job.training.result import write_result
from job.training.rewards import make_dataset, make_reward


@dataclass(frozen=True)
class Plan:
    """Everything that was checked: what is needed to train, short of the weights."""

    settings: Settings
    source: ModelSource
    base_folder: Path
    tokenizer: PreTrainedTokenizerBase
    task: LoadedTask
    train_dataset: Dataset
    eval_dataset: Dataset | None
    warnings: list[str]


def run_trainer(channel: Channel, slots: list[Slot], scratch: Path) -> None:
    """One trainer's life. Every failure is told to the agent as `failed`; returns when there is nothing left to do.

    Signals to the process group are the agent's business: SIGTERM and SIGINT have handlers that do nothing, inherited
    from the spawner. SIGUSR1 prints where every thread is, also while C code holds the GIL.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    gc.freeze()  # what was imported stays: every collection would look through half a million objects
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    settings: Settings | None = None
    try:
        order = channel.receive()
        assert order.op == "check", order.op
        settings = from_plain(order.fields["settings"])
        if (token := order.fields.get("hub_token")) is not None:
            os.environ["HF_TOKEN"] = token  # for what the user's own task loads, too; no other process has it
        _live(order, settings, channel, slots, scratch)
    except ChannelClosed:
        return  # the agent is gone
    except BaseException as error:
        failure = explain(error, settings)
        with contextlib.suppress(ChannelClosed):
            channel.send("failed", exit=failure.exit_code, what=failure.what, fix=failure.fix)


def _live(order: Message, settings: Settings, channel: Channel, slots: Sequence[Slot], scratch: Path) -> None:
    torch.set_num_threads(settings.train.cpu_threads)
    channel.send("phase", name="check")
    plan = check(settings, order.fields["files"], order.fields["model"])
    model = {"name": plan.source.name, "revision": plan.source.revision, "sha256": plan.source.sha256}
    channel.send("checked", warnings=plan.warnings, model=model, rows=len(plan.train_dataset), machine=machine())

    channel.send("phase", name="model")
    trainer = build_trainer(plan, ChannelSink(channel, slots), scratch / "trl")
    trainer.add_callback(PhaseCallback(channel))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    channel.send(
        "ready",
        max_steps=trainer.planned_steps(),
        parameters=parameters,
        trained_parameters=trained,
        state_bytes=trainer.planned_state_bytes(),
    )

    start = channel.receive()
    assert start.op == "start", start.op
    snapshot = snapshot_from(start, slots)
    if snapshot is not None:
        channel.send("phase", name="restore")
    trainer.run(snapshot)

    channel.send("phase", name="result")
    result_dir = Path(order.fields["result_dir"])
    write_result(trainer.model, plan.tokenizer, plan.source, plan.base_folder, result_dir)
    channel.send("finished", rows=trainer.take_rows(), step=trainer.state.global_step)


def machine() -> dict[str, str]:
    """What the bits of a run depend on beside its settings."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"cpu": cpu.partition(":")[2].strip() or platform.machine(), "gpu": gpu, "torch": torch.__version__}


def check(settings: Settings, files: dict[str, str], model: dict[str, Any]) -> Plan:
    """Loads all but the weights and refuses what cannot train. Raises UsageError, NeedsPerson or Transient.

    `files`: local copies by the setting that names them. `model`: a ModelSource as plain data.
    """
    token = load_secrets().hf_token
    source = ModelSource.from_plain(model)
    base_folder = model_folder(source, None if token is None else token.get_secret_value())
    if source.kind == "tiny":
        source = ModelSource(source.name, source.kind, sha256=hash_folder(base_folder))
    check_loads(base_folder, settings)
    tokenizer = load_tokenizer(base_folder)
    own_task = files.get("task")
    task = load_task(settings.task, settings.reward.weights, None if own_task is None else Path(own_task))
    rows = task.read(Path(files["data.train"]))[: settings.data.max_rows]
    found = preflight.check(task, rows, tokenizer, settings)
    held_out = None
    if settings.train.eval_every_steps is not None:
        prompts = make_dataset(task, task.read(Path(files["data.eval"])))
        lengths = preflight.count_prompt_tokens(tokenizer, list(prompts["prompt"]))
        fitting = [i for i, length in enumerate(lengths) if length <= settings.train.max_prompt_tokens]
        if not fitting:
            raise UsageError(
                f"Every prompt of {settings.data.eval} is longer than train.max_prompt_tokens = "
                f"{settings.train.max_prompt_tokens} (the shortest has {min(lengths)} tokens).",
                fix="Raise train.max_prompt_tokens, or shorten the prompts.",
            )
        held_out = prompts.select(fitting)
    train_dataset = make_dataset(task, found.rows)
    return Plan(settings, source, base_folder, tokenizer, task, train_dataset, held_out, found.warnings)


def build_trainer(plan: Plan, sink: ChannelSink, folder: Path) -> ExactTrainer:
    """Model and trainer, seeded; `folder` is scratch."""
    model = load_model(plan.base_folder, plan.settings)
    folder.mkdir(parents=True, exist_ok=True)
    return ExactTrainer(
        model=model,
        reward=make_reward(plan.task, plan.settings.reward.max_none_share),
        args=grpo_config(plan.settings, folder, model.dtype),
        train_dataset=plan.train_dataset,
        eval_dataset=plan.eval_dataset,
        tokenizer=plan.tokenizer,
        peft_config=lora_config(plan.settings),
        sink=sink,
        sampled_steps=plan.settings.train.sampled_steps,
    )


class PhaseCallback(TrainerCallback):
    """Tells the agent when training begins and when evaluation does; each message is a sign of progress too."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._current = ""

    def on_step_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The first of the attempt, or the first after an evaluation."""
        if self._current != "train":
            self._current = "train"
            self._channel.send("phase", name="train")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """A batch of an evaluation is done: it may take longer than a trainer may be silent."""
        self._current = "evaluation"
        self._channel.send("phase", name="evaluation")
