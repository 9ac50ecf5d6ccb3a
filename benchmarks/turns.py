"""Two trainers of the same recipe that work in turns, block by block. Imports torch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback
from trl import GRPOTrainer

from benchmarks import workloads
from benchmarks.pipeline import Ends
from benchmarks.workloads import Workload
from job.arena import Channel
from job.training.channel_sink import ChannelSink
from job.training.exact import ExactTrainer
from job.training.sink import Sink


class Turns:
    """Lets a trainer train for a block of steps each time it is its turn, and notes how long each block took."""

    def __init__(self, channel: Channel, block_steps: int) -> None:
        self.block_s: list[float] = []
        self._channel, self._block_steps = channel, block_steps
        self._steps = 0
        self._began_s = 0.0

    def begin(self) -> None:
        """Waits for the next turn."""
        assert self._channel.receive().op == "go"
        self._began_s = time.monotonic()

    def step_is_over(self) -> None:
        """Ends the turn, and waits for the next one, when the block is over."""
        self._steps += 1
        if self._steps % self._block_steps == 0:
            self.block_s.append(time.monotonic() - self._began_s)
            self._channel.send("over")
            self.begin()


class OurTrainer(ExactTrainer):
    """Ours, with a snapshot to the agent at every step."""

    def __init__(self, workload: Workload, sink: Sink, turns: Turns) -> None:
        super().__init__(
            model=workload.model,
            reward=workload.reward,
            args=workload.args,
            train_dataset=workload.dataset,
            eval_dataset=None,
            tokenizer=workload.tokenizer,
            peft_config=workload.lora,
            sink=sink,
        )
        self.rewards: list[float] = []
        self._turns, self._counted = turns, 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Notes the reward."""
        super().log(logs, start_time)
        if "reward" in logs:
            self.rewards.append(self.state.log_history[-1]["reward"])

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self._counted != self.state.global_step:  # it is called once more at an epoch's end
            self._counted = self.state.global_step
            self._turns.step_is_over()


class PlainTrainer(GRPOTrainer):
    """TRL's, without a checkpoint."""

    def __init__(self, workload: Workload, turns: Turns) -> None:
        super().__init__(
            model=workload.model,
            reward_funcs=workload.reward,
            args=workload.args,
            train_dataset=workload.dataset,
            processing_class=workload.tokenizer,
            peft_config=workload.lora,
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self._turns, self._counted = turns, 0

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self._counted != self.state.global_step:
            self._counted = self.state.global_step
            self._turns.step_is_over()


def train_ours(ends: Ends, folder: Path, overrides: Sequence[str], *, smoke: bool, block_steps: int) -> dict[str, Any]:
    """Seconds of every block, rewards of every step."""
    turns = Turns(ends.turns, block_steps)
    trainer = OurTrainer(_workload(folder, overrides, smoke), ChannelSink(ends.channel, ends.slots), turns)
    turns.begin()
    trainer.run()
    return {"block_s": turns.block_s, "rewards": trainer.rewards}


def train_plain(ends: Ends, folder: Path, overrides: Sequence[str], *, smoke: bool, block_steps: int) -> dict[str, Any]:
    """The same of TRL's own trainer."""
    turns = Turns(ends.turns, block_steps)
    trainer = PlainTrainer(_workload(folder, overrides, smoke), turns)
    turns.begin()
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    return {"block_s": turns.block_s, "rewards": rewards}


def _workload(folder: Path, overrides: Sequence[str], smoke: bool) -> Workload:
    return (workloads.moment if smoke else workloads.demo)(folder, *overrides)
