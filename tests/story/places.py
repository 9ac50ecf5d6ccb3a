"""Makes an attempt tell where it is, so that it can be killed there: each function is a patch for one place.

The process touches the file that BATON_TEST_PLACE names, once, and computes on the spot until it is killed, or until
the same file with `.go` is there: what is not killed at once, such as an upload on SIGTERM, goes on then.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 120.0
CHECKPOINTS_BEFORE = 1
"""Go well before the one at `upload` or `head_write`: a run of six steps makes two at least, its first and its last."""


def here(which: str = "") -> None:
    """At the place for the first time: says so and stays. Every later time: goes on.

    `which` tells a second place of the same attempt from its first.
    """
    marker = os.environ["BATON_TEST_PLACE"] + which
    try:
        fd = os.open(marker, os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.close(fd)
    _wait_for(Path(marker + ".go"), "nobody killed this process")


def _wait_for(file: Path, what: str) -> None:
    """Computes until the file is there."""
    end_s = time.monotonic() + LIMIT_S
    while not file.exists():
        assert time.monotonic() < end_s, what
        sum(range(1000))


def _before(owner: Any, name: str, *, skip: int = 0, which: str = "") -> None:
    """Calls of `owner.name` come past `here` first, but for the first `skip`."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = itertools.count()

    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= skip:
            here(which)
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def model_loading() -> None:
    import job.training.process

    _before(job.training.process, "load_model")


def restore() -> None:
    import job.checkpoint.restore

    _before(job.checkpoint.restore, "read_file", skip=1)


def generation() -> None:
    """Of the second generation batch."""
    _in_second_batch("_generate")


def scoring() -> None:
    """Of the second generation batch."""
    _in_second_batch("_calculate_rewards")


def _in_second_batch(name: str) -> None:
    """Calls of this method of the trainer, but for evaluations, which generate and score too."""
    from job.training.exact import ExactTrainer

    original = getattr(ExactTrainer, name)

    @functools.wraps(original)
    def patched(self: ExactTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.model.training and self._step > 0:
            here()
        return original(self, *args, **kwargs)

    setattr(ExactTrainer, name, patched)


def mid_accumulation() -> None:
    from job.training.exact import ExactTrainer

    _before(ExactTrainer, "training_step", skip=7)


def next_step() -> None:
    """A second place, a step after `mid_accumulation`."""
    from job.training.exact import ExactTrainer

    _before(ExactTrainer, "training_step", skip=9, which=".next")


def first_micro_step() -> None:
    """Of every trainer: the first after a restore too."""
    from job.training.exact import ExactTrainer

    _before(ExactTrainer, "training_step")


def scored() -> None:
    """The second generation batch is scored and handed over, no optimizer step has used it."""
    from job.training.exact import ExactTrainer

    _before(ExactTrainer, "training_step", skip=9)


def staging() -> None:
    """Half of the tensors of the third snapshot are in the slot."""
    from job.training.slots import SlotWriter

    original = SlotWriter.copy
    copies = itertools.count()

    def torn(self: SlotWriter, tensors: Any, slot: Any) -> Any:
        named = list(tensors)
        if next(copies) >= 3:
            original(SlotWriter(), named[: len(named) // 2], slot)
            here()
        return original(self, named, slot)

    SlotWriter.copy = torn  # type: ignore[method-assign]


def overwriting() -> None:
    """Two slots: step 2 is being uploaded from one; at `.torn` half of step 4 lies in the other, over step 3."""
    import job.checkpoint.save
    from job.training.exact import ExactTrainer
    from job.training.slots import SlotWriter

    write, step, copy = job.checkpoint.save._write_manifest, ExactTrainer.training_step, SlotWriter.copy
    copies = itertools.count()

    def held(bucket: Any, folder: str, manifest: Any) -> Any:
        if manifest.step == 2:
            here()
        return write(bucket, folder, manifest)

    def not_before(self: ExactTrainer, *args: Any) -> Any:
        if self.state.global_step == 2:
            _wait_for(Path(os.environ["BATON_TEST_PLACE"]), "the upload of step 2")
        return step(self, *args)

    def torn(self: SlotWriter, tensors: Any, slot: Any) -> Any:
        named = list(tensors)
        if Path(os.environ["BATON_TEST_PLACE"]).exists() and next(copies) == 1:
            copy(SlotWriter(), named[: len(named) // 2], slot)
            here(".torn")
        return copy(self, named, slot)

    job.checkpoint.save._write_manifest = held
    ExactTrainer.training_step = not_before  # type: ignore[method-assign]
    SlotWriter.copy = torn  # type: ignore[method-assign]


def upload() -> None:
    """The files of a checkpoint are there, its MANIFEST is not."""
    import job.checkpoint.save

    original = job.checkpoint.save._write_manifest
    calls = itertools.count()

    def patched(bucket: Any, folder: str, manifest: Any) -> Any:
        is_addition = folder.count("/") > 1
        if not is_addition and next(calls) >= CHECKPOINTS_BEFORE:
            here()
        return original(bucket, folder, manifest)

    job.checkpoint.save._write_manifest = patched


def head_write() -> None:
    from job.run.head import Owner

    _before(Owner, "publish", skip=CHECKPOINTS_BEFORE)


def evaluation() -> None:
    from job.training.exact import ExactTrainer

    _before(ExactTrainer, "prediction_step")


def finishing() -> None:
    import job.agent.attempt

    _before(job.agent.attempt, "publish_result")


def result_files() -> None:
    import job.agent.attempt

    _before(job.agent.attempt.Attempt, "publish_result")


def half_result() -> None:
    """The adapter is in result/, the metrics are not."""
    import job.agent.result

    _before(job.agent.result, "join_metrics")


def adapter_files() -> None:
    """The trainer is trained; half of the files of its result are written."""
    from transformers import PreTrainedTokenizerBase

    _before(PreTrainedTokenizerBase, "save_pretrained")


def trace() -> None:
    """Appends to the file BATON_TEST_TRACE what the trainer begins and has done.

    run; publishing K, published K (a step boundary); scoring M, scored M (a generation batch, by its micro-step).
    """
    from job.training.channel_sink import ChannelSink
    from job.training.exact import ExactTrainer

    train, publish, publish_scored = ExactTrainer.run, ChannelSink.publish, ChannelSink.publish_scored
    rewards = ExactTrainer._calculate_rewards

    def traced_run(self: ExactTrainer, *args: Any) -> None:
        _tell("run")
        train(self, *args)

    def traced_publish(self: ChannelSink, index: Any, extra: bytes, meta: dict[str, Any], rows: Any) -> None:
        _tell(f"publishing {meta['global_step']}")
        publish(self, index, extra, meta, rows)
        _tell(f"published {meta['global_step']}")

    def traced_scored(self: ChannelSink, batches: Any) -> None:
        publish_scored(self, batches)
        _tell(f"scored {max(batches)}")

    def traced_rewards(self: ExactTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.model.training:
            _tell(f"scoring {self._step}")
        return rewards(self, *args, **kwargs)

    ExactTrainer.run, ChannelSink.publish = traced_run, traced_publish
    ChannelSink.publish_scored, ExactTrainer._calculate_rewards = traced_scored, traced_rewards


def _tell(line: str) -> None:
    with Path(os.environ["BATON_TEST_TRACE"]).open("a") as file:
        file.write(line + "\n")
