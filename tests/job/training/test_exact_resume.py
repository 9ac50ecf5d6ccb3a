"""A run that is killed, anywhere and as often as one likes, ends like one that never was: every trainable tensor, the
optimizer's state, every completion and the logged history are bit for bit the same, and nothing is scored twice.

The runs are real GRPO on a micro model; a kill is an exception that nothing catches, and what goes on afterwards has
only what the sink holds, in the form in which it comes back from the bucket.
"""

import gc
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.job.training.exact_runs import (
    Deadly,
    Killed,
    MemorySink,
    Recipe,
    assert_same,
    build,
    recipe,
    train,
    train_stock,
    uninterrupted,
)

HARD = recipe(
    rows=8,
    lora_dropout=0.1,
    gradient_accumulation_steps=2,
    steps_per_generation=4,
    num_iterations=2,
    logging_steps=2,
    eval_strategy="steps",
    eval_steps=3,
    lr_scheduler_type="cosine",
    max_steps=10,
)
"""Everything at once: dropout, batches that live for several steps, shuffled epochs, evaluation, a logging window."""

RECIPES = {
    "plain": recipe(),
    "accumulation": recipe(gradient_accumulation_steps=2),
    "one batch for two steps": recipe(gradient_accumulation_steps=2, steps_per_generation=4),
    "two iterations": recipe(num_iterations=2),
    "two iterations of a batch for four steps": recipe(num_iterations=2, steps_per_generation=4, max_steps=10),
    "two generations per step": recipe(gradient_accumulation_steps=2, steps_per_generation=1),
    "shuffled epochs of four steps": recipe(rows=4, max_steps=10),
    "epochs with a remainder": recipe(rows=5, gradient_accumulation_steps=2, steps_per_generation=1, max_steps=8),
    "not shuffled": recipe(rows=4, max_steps=6, shuffle_dataset=False),
    "whole epochs": recipe(rows=3, max_steps=-1, num_train_epochs=2),
    "LoRA": recipe(lora_dropout=0.0),
    "LoRA with dropout": recipe(lora_dropout=0.1),
    "LoRA in bf16": recipe(lora_dropout=0.0, bf16_adapter=True),
    "LoRA in bf16 with dropout, later epochs": recipe(
        rows=16,
        lora_dropout=0.1,
        bf16_adapter=True,
        gradient_accumulation_steps=2,
        steps_per_generation=4,
        max_steps=10,
    ),
    "logging every other step": recipe(logging_steps=2, max_steps=7),
    "reference model": recipe(beta=0.1),
    "reference model under LoRA": recipe(beta=0.1, lora_dropout=0.1),
    "moving reference model": recipe(beta=0.1, sync_ref_model=True, ref_model_sync_steps=2),
    "early evaluation": recipe(eval_strategy="steps", eval_steps=1, lora_dropout=0.1),
    "evaluation at the start": recipe(eval_strategy="steps", eval_steps=2, eval_on_start=True),
    "evaluation by epoch": recipe(eval_strategy="epoch", logging_strategy="epoch", rows=2, max_steps=5),
    "adaptive entropy": recipe(
        use_adaptive_entropy=True, entropy_target=6.0, entropy_coef=0.01, gradient_accumulation_steps=2
    ),
    "weight decay, warm-up and cosine": recipe(weight_decay=0.1, warmup_steps=3, lr_scheduler_type="cosine"),
    "completions are logged": recipe(log_completions=True, num_completions_to_print=0, num_iterations=2),
    "autocast": recipe(bf16=True, lora_dropout=0.1),
    "gradient checkpointing": recipe(gradient_checkpointing=True, lora_dropout=0.1),
    "everything at once": HARD,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)
    gc.freeze()  # a trainer collects garbage when it starts, 0.2 s over all that pytest and torch imported


@pytest.mark.parametrize("name", RECIPES)
def test_an_uninterrupted_run_is_stock_trl(name: str) -> None:
    assert_same(train_stock(RECIPES[name]), uninterrupted(RECIPES[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_killed_at_three_step_boundaries_it_ends_the_same(name: str) -> None:
    kills = (("publish", 4), ("publish", 1), ("publish", 2))
    assert_same(train(RECIPES[name], kills), uninterrupted(RECIPES[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_killed_between_boundaries_it_ends_the_same(name: str) -> None:
    kills = (("micro-step", 3), ("optimizer-step", 1), ("reward", 1), ("scored", 1), ("slot", 1))
    assert_same(train(RECIPES[name], kills), uninterrupted(RECIPES[name]))


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
def test_killed_in_the_reward_function_it_ends_the_same(name: str) -> None:
    assert_same(train(RECIPES[name], (("reward", 2), ("reward", 1))), uninterrupted(RECIPES[name]))


@pytest.mark.parametrize("event", ["scored", "micro-step", "optimizer-step", "slot", "publish", "reward"])
@pytest.mark.parametrize("name", ["plain", "everything at once", "two generations per step"])
def test_killed_in_the_very_first_step_it_ends_the_same(name: str, event: str) -> None:
    assert_same(train(RECIPES[name], ((event, 1),)), uninterrupted(RECIPES[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_killed_after_the_last_step_it_trains_no_further_and_ends_the_same(name: str) -> None:
    kills = (("finish", 1), ("finish", 1))
    killed = train(RECIPES[name], kills)
    assert_same(killed, uninterrupted(RECIPES[name]))
    assert killed.steps == uninterrupted(RECIPES[name]).steps


@pytest.mark.parametrize("kills", [(("evaluation", 1),), (("evaluation", 2), ("evaluation", 1))])
@pytest.mark.parametrize("name", ["early evaluation", "evaluation at the start", "everything at once"])
def test_killed_in_evaluation_it_ends_the_same(name: str, kills: tuple[tuple[str, int], ...]) -> None:
    assert_same(train(RECIPES[name], kills), uninterrupted(RECIPES[name]))


@pytest.mark.parametrize(
    "micro_step", [n if n % 4 == 1 else pytest.param(n, marks=pytest.mark.long) for n in range(1, 21)]
)
def test_killed_after_any_micro_step_it_ends_the_same(micro_step: int) -> None:
    assert_same(train(HARD, (("micro-step", micro_step),)), uninterrupted(HARD))


def test_killed_in_every_single_micro_step_it_ends_the_same() -> None:
    """Each attempt gets one optimizer step done: the second micro-step, the copy, one micro-step more."""
    assert_same(train(HARD, (("micro-step", 3),) * 9), uninterrupted(HARD))


@pytest.mark.parametrize("lora_dropout", [None, 0.1])
@pytest.mark.parametrize(
    ("accumulation", "per_generation", "iterations"),
    [c for c in product((1, 2, 3), (1, 2, 4), (1, 2, 3)) if c not in ((1, 1, 1),)],
)
@pytest.mark.long
def test_any_cadence_of_generation_and_accumulation_survives_kills(
    accumulation: int, per_generation: int, iterations: int, lora_dropout: float | None
) -> None:
    cadence = recipe(
        rows=9,
        lora_dropout=lora_dropout,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=per_generation,
        num_iterations=iterations,
        max_steps=8 + per_generation * iterations // accumulation,  # long enough for a second generation
        logging_steps=2,
    )
    kills = (("micro-step", 2), ("publish", 2), ("scored", 1), ("micro-step", 4))
    assert_same(train(cadence, kills), uninterrupted(cadence))


@pytest.mark.long
@pytest.mark.parametrize("event", ["publish", "slot", "scored", "reward", "optimizer-step", "evaluation"])
@pytest.mark.parametrize("count", range(1, 4))
@pytest.mark.parametrize("full", [False, True])
def test_the_hard_case_survives_a_kill_at_every_kind_of_place(event: str, count: int, full: bool) -> None:
    hard = replace(HARD, lora_dropout=None) if full else HARD
    assert_same(train(hard, ((event, count),)), uninterrupted(hard))


def test_the_last_row_counts_the_seconds_of_all_attempts() -> None:
    sink = MemorySink()
    with pytest.raises(Killed):
        build(RECIPES["plain"], sink, Deadly(("publish", 3)), []).run()
    snapshot = sink.snapshot()
    assert snapshot is not None
    snapshot.meta["seconds"] = 1000.0
    trainer = build(RECIPES["plain"], sink, Deadly(None), [])
    trainer.run(snapshot)
    assert 1000 < trainer.take_rows()[-1]["train_runtime"] < 1100


def test_a_resumed_run_logs_as_often_as_it_is_told_now() -> None:
    sink = MemorySink()
    with pytest.raises(Killed):
        build(recipe(max_steps=8), sink, Deadly(("publish", 3)), []).run()
    trainer = build(recipe(max_steps=8, logging_steps=4), sink, Deadly(None), [])
    trainer.run(sink.snapshot())
    assert [row["step"] for row in sink.rows] == [1, 2, 4, 8]


def test_a_run_that_a_callback_stopped_stays_stopped() -> None:
    sink = MemorySink()
    trainer = build(RECIPES["plain"], sink, Deadly(("finish", 1)), [])
    trainer.add_callback(StopsAtStep2())
    with pytest.raises(Killed):
        trainer.run()
    trainer = build(RECIPES["plain"], sink, Deadly(None), [])
    trainer.add_callback(StopsAtStep2())
    trainer.run(sink.snapshot())
    assert trainer.state.global_step == 2


class StopsAtStep2(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        control.should_training_stop = state.global_step == 2


def test_no_two_recipes_are_the_same_run() -> None:
    """A case that equals another proves nothing: the settings must have had an effect."""
    distinct = {name: uninterrupted(r) for name, r in RECIPES.items() if _decides_weights(r)}
    sums = [sum(float(t.double().sum()) for t in o.tensors.values()) for o in distinct.values()]
    assert len(set(sums)) == len(sums)


def _decides_weights(case: Recipe) -> bool:
    same_weights = ("logging_steps", "log_completions", "gradient_checkpointing")
    return case == HARD or not any(name in dict(case.args) for name in same_weights)
