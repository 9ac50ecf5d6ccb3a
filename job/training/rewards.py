"""A task as what TRL trains on: a dataset of prompts and one reward function.

One function, not one per part: TRL adds up what is there, so that a part that is None would count as 0 in a
row whose other parts are numbers. Here a row with a missing part has no reward and is left out of its group.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from datasets import Dataset

from job.errors import Transient
from job.tasks import LoadedTask, Message, Row


class LogMetric(Protocol):
    """TRL's `log_metric`: averages what is logged under one name until the next log line."""

    def __call__(self, name: str, value: float) -> None:
        """Logs one value."""
        ...


def make_dataset(task: LoadedTask, rows: Sequence[Row]) -> Dataset:
    """Columns `prompt` (messages) and `row` (the row as JSON).

    JSON, because a file may hold 5 in one row and "five" in the next, and because a key of the user's must
    not be taken for one of TRL's arguments.
    """
    return Dataset.from_list([{"prompt": task.prompt(row), "row": json.dumps(row)} for row in rows])


def make_reward(task: LoadedTask, max_none_share: float) -> Callable[..., list[float | None]]:
    """The reward function for `GRPOTrainer(reward_funcs=...)`.

    Logs `reward/PART` (mean of what is not None) and `reward/none_share`. Raises Transient when more than
    `max_none_share` of a batch has no reward: learning from the rest would be learning from noise.
    """

    def reward(
        *, completions: Sequence[list[Message]], row: Sequence[str], log_metric: LogMetric, **columns: Any
    ) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        scores = task.score(texts, [json.loads(line) for line in row])
        for part, values in scores.parts.items():
            known = [value for value in values if value is not None]
            if known:
                log_metric(f"reward/{part}", sum(known) / len(known))
        none_share = scores.rewards.count(None) / len(scores.rewards)
        log_metric("reward/none_share", none_share)
        if none_share > max_none_share:
            raise Transient(
                f"{none_share:.0%} of a batch got no reward; reward.max_none_share is {max_none_share:.0%}.",
                fix=_missing_parts(scores.parts),
            )
        return scores.rewards

    return reward


def _missing_parts(parts: dict[str, list[float | None]]) -> str:
    missing = [f"`{part}` ({values.count(None)} of {len(values)})" for part, values in parts.items() if None in values]
    return f"Without a verdict: {', '.join(missing)}. Is the service behind it down?"
