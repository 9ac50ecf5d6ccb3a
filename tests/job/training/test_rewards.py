"""A task as TRL's reward function: parts are logged, a missing part is a missing reward, too many stop the attempt."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from tiny import moment_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from job.errors import Transient
from job.tasks import LoadedTask, Message, Row
from job.training.rewards import make_dataset, make_reward


class Judged:
    """Has no verdict on what contains a question mark."""

    weights: Mapping[str, float] = {"judge": 0.5, "format": 0.5}

    def read(self, path: Path) -> list[Row]:
        return []

    def prompt(self, row: Row) -> list[Message]:
        return [{"role": "user", "content": str(row["question"])}]

    def score(self, completions: Sequence[str], rows: Sequence[Row]) -> dict[str, list[float | None]]:
        return {
            "judge": [
                None if "?" in text else float(row["question"] == text)
                for text, row in zip(completions, rows, strict=True)
            ],
            "format": [1.0 for _ in completions],
        }


TASK = LoadedTask("judged", Judged(), {"judge": 0.5, "format": 0.5})
ROWS = [{"question": 5, "prompt": "mine"}, {"question": "five", "image": None}, {"question": "?"}]


def call(texts: list[str], rows: list[Row], max_none_share: float) -> tuple[list[float | None], dict[str, float]]:
    logged: dict[str, float] = {}
    columns = make_dataset(TASK, rows)
    rewards = make_reward(TASK, max_none_share)(
        prompts=columns["prompt"],
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[1]] * len(texts),
        row=columns["row"],
        trainer_state=None,
        log_metric=logged.__setitem__,
    )
    return rewards, logged


def test_rows_with_keys_and_types_of_any_kind_make_one_dataset() -> None:
    dataset = make_dataset(TASK, ROWS)
    assert dataset.column_names == ["prompt", "row"]
    assert dataset[0]["prompt"] == [{"role": "user", "content": "5"}]


def test_parts_are_logged_and_a_missing_part_is_a_missing_reward() -> None:
    rewards, logged = call(["no", "five", "what?"], ROWS, 0.5)
    assert rewards == [0.5, 1.0, None]
    assert logged == {"reward/judge": 0.5, "reward/format": 1.0, "reward/none_share": pytest.approx(1 / 3)}


def test_more_missing_rewards_than_allowed_end_the_attempt_and_name_the_part() -> None:
    with pytest.raises(Transient, match=r"(?s)67% of a batch got no reward.*`judge` \(2 of 3\)"):
        call(["a?", "b?", "five"], ROWS, 0.5)
    assert call(["a?", "b?", "c?"], ROWS, 1.0)[0] == [None, None, None]


def test_trl_calls_it_with_what_it_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(moment_model()),
        processing_class=AutoTokenizer.from_pretrained(moment_model()),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=4,
            max_steps=1,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        reward_funcs=make_reward(TASK, 1.0),
        train_dataset=make_dataset(TASK, ROWS),
    )
    trainer.train()
    row = next(row for row in trainer.state.log_history if "reward" in row)
    assert row["reward/format"] == 1.0
    assert 0 <= row["reward/none_share"] <= 1
