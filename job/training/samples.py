"""A few completions of some steps, for people to read. Recording them only looks: it changes nothing that is learnt."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerState
from trl import GRPOConfig

AT_A_STEP = 4
MOST_CHARACTERS = 2000
"""Of a prompt, and of a completion: a row stays below 256 kB, with every character escaped."""


class Samples:
    """The sample of the step under way. It travels with the scored batch: a batch that is not scored again has it."""

    def __init__(self, sampled_steps: int) -> None:
        self.row: dict[str, Any] | None = None
        """What is to be delivered at the next boundary."""
        self._sampled_steps = sampled_steps

    def look(self, state: TrainerState, args: GRPOConfig, logs: Mapping[str, Any]) -> None:
        """Looks at the batch that was just scored, whose texts `logs` holds; takes the first of a step that counts."""
        first = state.global_step + 1
        steps = max(1, -(-args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps))
        wanted = is_sampled(first, first + steps - 1, max_steps=state.max_steps, sampled_steps=self._sampled_steps)
        if wanted and self.row is None:
            [rewards] = logs["rewards"].values()
            self.row = sample_row(first, logs["prompt"], logs["completion"], rewards)

    def take(self) -> list[dict[str, Any]]:
        """The row, once."""
        row, self.row = self.row, None
        return [] if row is None else [row]


def is_sampled(first: int, last: int, *, max_steps: int, sampled_steps: int) -> bool:
    """Whether what was generated for the steps `first` to `last` is sampled; pure, so that every attempt agrees.

    That of step 1 is, that of the last step, and about `sampled_steps` between, evenly.
    """
    if sampled_steps == 0:
        return False
    every = max(1, max_steps // sampled_steps)
    return first == 1 or last // every > (first - 1) // every or first <= max_steps <= last


def sample_row(
    step: int, prompts: Sequence[str], completions: Sequence[str], rewards: Sequence[float]
) -> dict[str, Any]:
    """Some completions of a generation batch, from the least to the most rewarded; those without a reward first."""
    known = [reward if math.isfinite(reward) else None for reward in rewards]
    ranked = sorted(range(len(known)), key=lambda i: (-math.inf if (reward := known[i]) is None else reward, i))
    last = len(ranked) - 1
    chosen = dict.fromkeys(ranked[round(i * last / (AT_A_STEP - 1))] for i in range(AT_A_STEP))
    return {
        "step": step,
        "samples": [
            {"prompt": _cut(prompts[i]), "completion": _cut(completions[i]), "reward": known[i]} for i in chosen
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
