"""GRPO whose whole state is copied at every step boundary, so that a resumed run ends with the same bits.

Stock TRL loses `_step`, the generation batch in use, the order of later epochs, the logging window and a moved
reference model; facts and cases are in docs/design.md, Exact resume. Private APIs of TRL 1.14.2 and transformers
5.17.0 are used on purpose; tests/job/training/test_private_apis.py names each.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from datasets import Dataset
from peft import PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOConfig, GRPOTrainer

from job.errors import UsageError
from job.training.order import EpochSampler
from job.training.samples import Samples
from job.training.sink import Scored, Sink, Snapshot
from job.training.slots import SlotWriter, slot_tensors
from job.training.state import (
    callback_states,
    get_rng,
    pack,
    refill_window,
    restore_callbacks,
    set_rng,
    unpack,
    window_to_plain,
)
from job.training.weights import live_tensors, load_optimizer, load_weights, optimizer_tensors, refuse_non_finite

COUNTERS = (
    "_step",
    "_total_loss_scalar",
    "_globalstep_last_logged",
    "_current_train_step_time",
    "current_flos",
    "entropy_coef",
    "_last_world_entropy",
)
"""Attributes of GRPOTrainer and Trainer, plain numbers, that a step depends on or logs."""


class ExactTrainer(GRPOTrainer):
    """Trains, and hands `sink` a snapshot at every step boundary, from which another process can go on.

    Both runs, interrupted anywhere or not at all, end with the same bits, and each log row is delivered once. Seed
    before the model is built. `log_history` holds only the rows since the last boundary: a reward that reads older
    ones could not be resumed.
    """

    _buffered_inputs: list[dict[str, Any]] | None

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        reward: Callable[..., list[float | None]],
        args: GRPOConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        sink: Sink,
        sampled_steps: int = 0,
    ) -> None:
        if args.fp16:
            raise UsageError("fp16 training keeps state that is not saved.", fix="Use bfloat16 or float32.")
        if args.world_size != 1:
            raise UsageError(f"{args.world_size} processes train together; a run can be resumed with 1 only.")
        if args.dataloader_num_workers != 0:
            raise UsageError("Data workers draw random numbers of their own: dataloader_num_workers must be 0.")
        self._sink, self._samples = sink, Samples(sampled_steps)
        self._restore: Snapshot | None = None
        self._writer = SlotWriter()
        self._sampler: EpochSampler | None = None
        self._boundary: int | None = None
        self._packed_from: object = None
        self._packed: tuple[dict[str, torch.Tensor], list[dict[str, Any]]] = {}, []
        self._scored: dict[int, Scored] = {}
        self._replay: dict[int, Scored] = {}
        self._unapplied: dict[str, Any] | None = None
        self._restored_tr_loss: torch.Tensor | None = None
        self._was_stopped = False
        self._seconds_before = 0.0
        self._grad_norm: Any = None
        super().__init__(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            peft_config=peft_config,
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def planned_state_bytes(self) -> int:
        """Bytes of one snapshot once the optimizer has its state: each trained tensor and AdamW's two means of it."""
        trained = sum(p.nbytes for _, p in self._trained)
        return 3 * trained + sum(p.nbytes for _, p in self._moving_reference)

    def planned_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps: int = self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]
        return steps

    def run(self, restore: Snapshot | None = None) -> None:
        """Trains from `restore`, or from the beginning, to the last step. Call once.

        Raises NeedsPerson when loss or weights stop being finite, UsageError when `restore` is of another model.
        """
        if restore is None:
            self.train()
            return
        self._restore, self._boundary = restore, restore.meta["global_step"]
        self._scored, self._replay = dict(restore.scored), dict(restore.scored)
        self.args.eval_on_start = False  # done before the first snapshot
        with tempfile.TemporaryDirectory() as folder:  # train() itself reads this one file
            (Path(folder) / TRAINER_STATE_NAME).write_text(json.dumps(restore.meta["state"]))
            self.train(resume_from_checkpoint=folder)

    def take_rows(self) -> list[dict[str, Any]]:
        """The completions sampled and the log rows since the last boundary. Each is returned once."""
        rows: list[dict[str, Any]] = self._samples.take() + self.state.log_history
        self.state.log_history = []
        return rows

    # --- taking --------------------------------------------------------------------------------------

    def _publish_boundary(self) -> None:
        refuse_non_finite(self.state.global_step, self._tr_loss, self._trained, self._grad_norm)
        index = self._writer.copy(self._live_tensors(), self._sink.slot())
        rng_tensors, rng = get_rng()
        tensors, buffer = self._packed_buffer()
        state = {k: v for k, v in vars(self.state).items() if k not in ("log_history", "stateful_callbacks")}
        meta = {
            "global_step": self.state.global_step,
            "rng": rng,
            "buffer": buffer,
            "counters": self._counters(),
            "scheduler": self.lr_scheduler.state_dict(),
            "callbacks": callback_states(self.callback_handler.callbacks),
            "stopped": self.control.should_training_stop,
            "in_train_mode": self.model.training,  # evaluation leaves it off; decides which window the last row takes
            "seconds": time.time() - self._start_time,
            "state": state,
        }
        self._boundary, self._scored = self.state.global_step, {}
        self._sink.publish(index, safetensors.torch.save({**rng_tensors, **tensors}), meta, self.take_rows())

    def _publish_scored(self) -> None:
        rng_tensors, rng = get_rng()
        tensors, buffer = pack(self._buffered_inputs or [])
        meta = {"rng": rng, "buffer": buffer, "counters": self._counters(), "sample": self._samples.row}
        blob = safetensors.torch.save({**rng_tensors, **tensors})
        self._scored = {**self._scored, self._step: Scored(blob, meta)}
        self._sink.publish_scored(self._scored)

    @cached_property
    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    @cached_property
    def _moving_reference(self) -> list[tuple[str, torch.nn.Parameter]]:
        moves = self.ref_model is not None and self.args.sync_ref_model
        return list(self.ref_model.named_parameters()) if moves else []

    def _live_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from live_tensors(self._trained, self._moving_reference, self.optimizer)
        yield "tr_loss", self._tr_loss

    def _packed_buffer(self) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        """The generation batch in use, packed once; empty where the next micro-step generates another."""
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0:
            self._packed_from, self._packed = None, ({}, [])
        elif self._packed_from is not self._buffered_inputs:
            self._packed_from, self._packed = self._buffered_inputs, pack(self._buffered_inputs or [])
        return self._packed

    def _counters(self) -> dict[str, Any]:
        assert not self._pending_extra_logs, "taken while a reward function runs"
        return {
            "numbers": {name: getattr(self, name) for name in COUNTERS},
            "num_input_tokens_seen": self.state.num_input_tokens_seen,
            "metrics": window_to_plain(self._metrics),
            # Read only where completions are logged; they would double what is written per step.
            "logs": window_to_plain(self._logs) if self.args.log_completions else None,
        }

    # --- where ---------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Dataset | None = None) -> EpochSampler:
        self._sampler = EpochSampler.like(super()._get_train_sampler(dataset))
        return self._sampler

    def _run_epoch(self, *, epoch: int, start_time: float, **unchanged: Any) -> None:
        assert self._sampler is not None
        self._sampler.epoch = epoch
        self._apply_restored()
        self._start_time = start_time - self._seconds_before
        if self._was_stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True  # stock would train one step too many
            return
        if self._boundary is None:
            self._publish_boundary()  # step 0; before the data loader is iterated, which draws a random number
        super()._run_epoch(epoch=epoch, start_time=self._start_time, **unchanged)

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        self._grad_norm = grad_norm
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
        # Called once more at the end of an epoch, where nothing is new unless something was logged.
        if self._boundary != self.state.global_step or self.state.log_history:
            self._publish_boundary()

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        self._apply_restored()  # no epoch was left to run
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        scored = self._replay.pop(self._step, None)
        if scored is not None:  # generated and paid for before the preemption; the sink has it still
            tensors = safetensors.torch.load(scored.blob)
            self._buffered_inputs = unpack(tensors, scored.meta["buffer"], self.args.device)
            self._set_counters(scored.meta["counters"])
            set_rng(tensors, scored.meta["rng"])
            self._samples.row = scored.meta["sample"]
            return self._buffered_inputs[self._step % self.args.steps_per_generation]
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not before:
            self._samples.look(self.state, self.args, self._logs)
            self._publish_scored()
        return inputs

    # --- restoring: in the order in which train() calls them ----------------------------------------

    def _init_training_state(self, max_steps: int, *unchanged: Any) -> Any:
        epochs_and_steps = super()._init_training_state(max_steps, *unchanged)
        self.state.compute_steps(self.args, max_steps)  # the cadence of logs is this attempt's
        return epochs_and_steps

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self._restore is not None
        meta, saved = self._restore.meta, slot_tensors(self._restore.slot_view, self._restore.index)
        extra = safetensors.torch.load(self._restore.extra)
        load_weights(saved, self._trained, self._moving_reference)
        self._restored_tr_loss = saved["tr_loss"].clone()
        self._restored_optimizer = optimizer_tensors(saved)
        self._restored_rng = extra, meta["rng"]
        self._buffered_inputs = unpack(extra, meta["buffer"], self.args.device) or None
        self._unapplied = meta

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._unapplied is None:
            return
        load_optimizer(self.optimizer, self._restored_optimizer, self._trained)
        del self._restored_optimizer
        self.lr_scheduler.load_state_dict(self._unapplied["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        set_rng(*self._restored_rng)

    def _apply_restored(self) -> None:
        """What train() sets to its initial value after it has called the methods above."""
        if self._unapplied is None:
            return
        meta, self._unapplied, self._restore = self._unapplied, None, None
        assert self._restored_tr_loss is not None
        self._tr_loss = self._restored_tr_loss.to(self.args.device)
        self._was_stopped = meta["stopped"]
        self._seconds_before = meta["seconds"]
        self._initial_num_input_tokens_seen = 0
        self._set_counters(meta["counters"])
        restore_callbacks(self.callback_handler.callbacks, meta["callbacks"])
        self.model.train(meta["in_train_mode"])

    def _set_counters(self, plain: dict[str, Any]) -> None:
        for name, value in plain["numbers"].items():
            setattr(self, name, value)
        self.state.num_input_tokens_seen = plain["num_input_tokens_seen"]
        refill_window(self._metrics, plain["metrics"])
        if plain["logs"] is not None:
            refill_window(self._logs, plain["logs"])
