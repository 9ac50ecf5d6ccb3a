"""Every private part of TRL and transformers that exact resume stands on is where it was in the pinned versions.

When an upgrade moves one, the message says which, whose, and what it is needed for.
"""

import hashlib
import inspect
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerControl
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from job.arena import REFERENCE_PREFIX, TensorIndex
from job.training.exact import COUNTERS
from tests.job.training.exact_runs import (
    Deadly,
    MemorySink,
    build,
    forget_process_state,
    parts,
    recipe,
    reward_function,
)

PINNED = {"trl": "1.14.2", "transformers": "5.17.0", "accelerate": "1.15.0", "peft": "0.21.2", "torch": "2.13.0"}

METHODS = [
    (GRPOTrainer._prepare_inputs, ["generation_batch"], "where a generation batch is made and handed out"),
    (GRPOTrainer._get_train_sampler, ["dataset"], "the order of the rows"),
    (
        Trainer._run_epoch,
        [
            "model",
            "epoch",
            "train_dataloader",
            "steps_in_epoch",
            "num_update_steps_per_epoch",
            "trial",
            "ignore_keys_for_eval",
            "start_time",
            "resume_from_checkpoint",
            "epochs_trained",
            "steps_trained_in_current_epoch",
        ],
        "the start of an epoch",
    ),
    (
        Trainer._maybe_log_save_evaluate,
        [
            "tr_loss",
            "grad_norm",
            "model",
            "trial",
            "epoch",
            "ignore_keys_for_eval",
            "start_time",
            "learning_rate",
        ],
        "the end of a step",
    ),
    (Trainer._finalize_training, ["trial", "num_train_samples", "start_time"], "the last log row"),
    (
        Trainer._init_training_state,
        ["max_steps", "num_update_steps_per_epoch", "num_train_epochs", "resume_from_checkpoint", "trial"],
        "the cadence of logs",
    ),
    (Trainer._load_from_checkpoint, ["resume_from_checkpoint", "model"], "restoring the weights"),
    (Trainer._load_optimizer_and_scheduler, ["checkpoint"], "restoring optimizer and schedule"),
    (Trainer._load_rng_state, ["checkpoint"], "restoring the random generators"),
    (Trainer.set_initial_training_values, ["args", "dataloader"], "the number of steps"),
]

ATTRIBUTES = [
    *[(name, "a number that a step depends on or logs") for name in COUNTERS],
    ("_buffered_inputs", "the generation batch in use"),
    ("_metrics", "the logging window"),
    ("_logs", "the completions in the logging window"),
    ("_pending_extra_logs", "what a reward function logs while it runs"),
    ("_tr_loss", "the loss since the last log row"),
    ("_initial_num_input_tokens_seen", "tokens per second"),
    ("num_iterations", "how long a generation batch is used"),
    ("ref_model", "the moving reference model"),
    ("lr_scheduler", "the schedule"),
    ("callback_handler", "callbacks with a state"),
    ("control", "whether training was stopped"),
]

SAMPLER = [
    *["data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed"],
    *["generator", "num_samples"],
]

ORDER = [
    # The random state is restored before an epoch's iterator is made and after its first batches were drawn.
    (Trainer._run_epoch, ["self._load_rng_state(", "iter(train_dataloader)", "self._load_rng_state("]),
    # What a restore sets, these set again afterwards; the first epoch puts it back.
    (
        Trainer._inner_training_loop,
        ["self._prepare_for_training(", "self._tr_loss =", "self._globalstep_last_logged =", "self._run_epoch("],
    ),
    (Trainer.train, ["self._load_from_checkpoint(", "TRAINER_STATE_NAME"]),
    (Trainer._prepare_for_training, ["self.create_scheduler(", "self._load_optimizer_and_scheduler("]),
    (Trainer._run_epoch, ["self.optimizer.step()", "self.state.global_step += 1", "self._maybe_log_save"]),
    (GRPOTrainer._prepare_inputs, ["_generate_and_score_completions", "shuffle_sequence_dict", "self._buffered"]),
    (GRPOTrainer.training_step, ["super().training_step(", "self._step += 1"]),
]


def moved(owner: str, what: str, needed_for: str) -> str:
    found = ", ".join(f"{name} {version(name)} (pinned {pin})" for name, pin in list(PINNED.items())[:2])
    return f"{owner} has no {what} any more. job/training/exact.py needs it: {needed_for}. Installed: {found}."


def missing_attributes(owner: object, names: list[tuple[str, str]]) -> list[str]:
    kind = type(owner).__name__
    return [moved(kind, name, needed_for) for name, needed_for in names if not hasattr(owner, name)]


@pytest.fixture(scope="module")
def stock() -> GRPOTrainer:
    """Plain TRL after one step: what its own code has set."""
    torch.set_num_threads(1)
    forget_process_state()
    given = parts(recipe(max_steps=1, beta=0.1, sync_ref_model=True))
    trainer = GRPOTrainer(
        reward_funcs=reward_function(Deadly(None), []), processing_class=given.pop("tokenizer"), **given
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("package", PINNED)
def test_the_pinned_version_is_installed(package: str) -> None:
    assert version(package).partition("+")[0] == PINNED[package]


def test_the_pins_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert {f"{name}=={pin}" for name, pin in PINNED.items()} <= set(
        project["project"]["optional-dependencies"]["train"]
    )


@pytest.mark.parametrize(("method", "parameters", "needed_for"), METHODS, ids=lambda m: getattr(m, "__name__", ""))
def test_an_overridden_method_takes_what_it_took(
    method: Callable[..., Any], parameters: list[str], needed_for: str
) -> None:
    found = list(inspect.signature(method).parameters)[1:]
    assert found == parameters, moved(method.__qualname__, f"signature {parameters}", needed_for)


def test_every_attribute_is_there(stock: GRPOTrainer) -> None:
    assert missing_attributes(stock, ATTRIBUTES) == []
    assert stock.set_initial_training_values(stock.args, stock.get_train_dataloader())[-1] == 1


def test_the_sampler_has_its_parts(stock: GRPOTrainer) -> None:
    sampler = stock._get_train_sampler()
    assert type(sampler) is RepeatSampler
    assert missing_attributes(sampler, [(name, "the order of any epoch") for name in SAMPLER]) == []


def test_the_state_is_made_of_plain_fields(stock: GRPOTrainer) -> None:
    assert isinstance(stock.state, TrainerState)
    fields = ["global_step", "max_steps", "epoch", "log_history", "num_input_tokens_seen", "stateful_callbacks"]
    assert missing_attributes(stock.state, [(name, "the trainer's state") for name in fields]) == []
    assert TRAINER_STATE_NAME == "trainer_state.json"
    assert set(TrainerControl().state()) == {"args", "attributes"}
    assert issubclass(TrainerControl, ExportableState)


@pytest.mark.parametrize(("method", "calls"), ORDER, ids=lambda m: getattr(m, "__qualname__", ""))
def test_things_happen_in_the_order_that_a_restore_counts_on(method: Callable[..., Any], calls: list[str]) -> None:
    source = inspect.getsource(method)
    at = 0
    for call in calls:
        found = source.find(call, at)
        assert found >= 0, moved(method.__qualname__, f"`{call}` after what comes before it", " -> ".join(calls))
        at = found + len(call)


def test_evaluation_and_logging_may_not_be_reached_twice_for_a_step() -> None:
    """The end of an epoch calls _maybe_log_save_evaluate again; the flags must have been taken back by then."""
    source = inspect.getsource(Trainer._run_epoch)
    assert source.count("self._maybe_log_save_evaluate(") == 2, moved("Trainer._run_epoch", "two calls", "row order")


def test_the_configuration_knows_what_is_set() -> None:
    needed = ["steps_per_generation", "sync_ref_model", "log_completions", "logging_nan_inf_filter", "eval_on_start"]
    fields = GRPOConfig.__dataclass_fields__
    assert [name for name in needed if name not in fields] == []


def test_the_message_says_what_moved_and_which_version_is_pinned() -> None:
    class Upgraded:
        _metrics: dict[str, Any] = {}  # noqa: RUF012  what is looked at is only whether it is there

    (message,) = missing_attributes(Upgraded(), [("_metrics", "x"), ("_buffered_inputs", "the batch in use")])
    for part in ("Upgraded", "_buffered_inputs", "the batch in use", "trl", "pinned 1.14.2", "pinned 5.17.0"):
        assert part in message


def test_the_reference_model_moves_after_the_steps_that_the_uploader_counts_and_no_other() -> None:
    """What job/agent/uploader.py takes for unchanged is unchanged."""
    seen: dict[int, set[bytes]] = {}

    class Looking(MemorySink):
        def publish(self, index: TensorIndex, extra: bytes, meta: dict[str, Any], rows: list[dict[str, Any]]) -> None:
            super().publish(index, extra, meta, rows)
            memory = self.slots[self.filling].view(max(t.offset + t.size_bytes for t in index.values()))
            digest = hashlib.sha256()
            for name, t in index.items():
                if name.startswith(REFERENCE_PREFIX):
                    digest.update(memory[t.offset : t.offset + t.size_bytes])
            step = meta["global_step"]
            seen.setdefault(step - step % 2, set()).add(digest.digest())

    torch.set_num_threads(1)
    forget_process_state()
    given = recipe(max_steps=5, beta=0.1, sync_ref_model=True, ref_model_sync_steps=2)
    build(given, Looking(), Deadly(None), []).run()
    assert {moved_at: len(contents) for moved_at, contents in seen.items()} == {0: 1, 2: 1, 4: 1}
    assert len(set.union(*seen.values())) == 3
