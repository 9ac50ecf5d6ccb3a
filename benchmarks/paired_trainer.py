"""The trainer under test: at each step boundary it is told whether to checkpoint, and how. Imports torch."""

import contextlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer

from benchmarks.pipeline import Durable, Ends
from benchmarks.workloads import Workload
from job.training.channel_sink import ChannelSink
from job.training.exact import ExactTrainer

Kind = Literal["ours", "stock", "none"]
KEPT_BY_STOCK = 2  # as checkpoint.keep_last


@dataclass
class Window:
    """From one step boundary to the next: what the boundary costs, and the step beside which the rest is done."""

    kind: Kind
    begin_s: float
    """time.monotonic(), before anything that the boundary does."""
    end_s: float = 0.0
    held_s: float = 0.0
    """The training loop did not go on."""
    waited_s: float = 0.0
    """Threads of the trainer were ready and had no core, by the scheduler's own count."""


def waited_for_a_core_s() -> float:
    """Seconds that the threads of this process, all together, were ready to run and did not (sched-stats, field 2)."""
    waited_ns = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


class Kinds:
    """Which windows checkpoint: some steps without anything first, then rounds of ours, then rounds of stock.

    A round begins when everything of the one before is over (for ours: durable, and the cadence's pause is over) and
    one to three windows were without anything, a number drawn so as not to fall in step with the data.
    """

    def __init__(self, *, warm_up: int, ours: int, stock: int, durable: Durable) -> None:
        self._coming: list[Kind] = ["ours"] * ours + ["stock"] * stock
        self._durable = durable
        self._draw = random.Random(0)
        self._wait = warm_up
        self._published: tuple[int, int] | None = None

    def next(self) -> Kind | None:
        """For the window that begins now; None at the end of the last round."""
        if self._published is not None and not self._durable.covers(*self._published):
            return "none"
        self._wait -= 1
        if self._wait >= 0:
            return "none"
        if not self._coming:
            return None
        self._wait = self._draw.randint(1, 3)
        return self._coming.pop(0)

    def published(self, step: int, scored: int) -> None:
        """What the agent has to make durable before the round is over."""
        self._published = step, scored


class PairedTrainer(ExactTrainer):
    """Our trainer, whose next window is ours (a snapshot to the agent), stock (Trainer's own save) or neither.

    One trainer for all three, so that everything but the checkpoint is the same, and their windows lie side by side.
    """

    def __init__(self, workload: Workload, ends: Ends, kinds: Kinds) -> None:
        workload.args.save_total_limit = KEPT_BY_STOCK
        super().__init__(
            model=workload.model,
            reward=workload.reward,
            args=workload.args,
            train_dataset=workload.dataset,
            eval_dataset=None,
            tokenizer=workload.tokenizer,
            peft_config=workload.lora,
            sink=ChannelSink(ends.channel, ends.slots),
        )
        self.windows: list[Window] = []
        self._kinds = kinds

    def measure(self) -> list[dict[str, Any]]:
        """Trains until there are no more kinds; every window, the last and unfinished one left out."""
        self.run()
        return [asdict(window) for window in self.windows[:-1]]

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self._boundary != self.state.global_step:
            now_s = time.monotonic()
            waited_s = waited_for_a_core_s()
            if self.windows:
                self.windows[-1].end_s = now_s
                self.windows[-1].waited_s += waited_s
            kind = self._kinds.next()
            self.windows.append(Window(kind or "none", now_s, waited_s=-waited_s))
            self.control.should_save = kind == "stock"
            self.control.should_training_stop = kind is None
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _publish_boundary(self) -> None:
        if self._kind() == "ours":
            with self._held():
                super()._publish_boundary()
            self._kinds.published(self.state.global_step, 0)
        else:
            self._boundary, self._scored = self.state.global_step, {}
            self.take_rows()

    def _publish_scored(self) -> None:
        if self._kind() == "ours":
            with self._held():
                super()._publish_scored()
            self._kinds.published(self.state.global_step, len(self._scored))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self._held():
            Trainer._save_checkpoint(self, model, trial)  # TRL would write a model card on top

    def _kind(self) -> Kind:
        return self.windows[-1].kind if self.windows else "none"

    @contextmanager
    def _held(self) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self.windows[-1].held_s += time.monotonic() - began_s
