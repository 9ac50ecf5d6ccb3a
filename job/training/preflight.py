"""What can be known before the first step: what cannot train is refused, the rest is warned of."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from job.errors import UsageError
from job.settings import Settings
from job.settings.batches import prompts_per_generation
from job.tasks import LoadedTask, Message, Row

PROBED_ROWS = 64  # scoring may cost something; lengths are counted on every row


@dataclass(frozen=True)
class Preflight:
    """What a run may train on."""

    rows: list[Row]
    """Those whose prompt fits; the rows of the data file in order."""
    warnings: list[str]


def check(task: LoadedTask, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: Settings) -> Preflight:
    """Drops rows whose prompt is over `train.max_prompt_tokens`. Raises UsageError when none can train."""
    if not tokenizer.chat_template:
        raise UsageError(
            f"The model {settings.model.name} has no chat template.",
            fix="Take the instruction-tuned version of it, or save a chat template with its tokenizer.",
        )
    train = settings.train
    lengths = count_prompt_tokens(tokenizer, [task.prompt(row) for row in rows])
    fitting = [row for row, length in zip(rows, lengths, strict=True) if length <= train.max_prompt_tokens]
    if not fitting:
        raise UsageError(
            f"Every prompt is longer than train.max_prompt_tokens = {train.max_prompt_tokens} "
            f"(the shortest has {min(lengths)} tokens).",
            fix=f"Raise train.max_prompt_tokens; the longest has {max(lengths)}.",
        )
    needed = prompts_per_generation(settings)
    if len(fitting) < needed:
        raise UsageError(
            f"{settings.data.train} has {len(fitting)} usable rows; a generation takes {needed}.",
            fix="Add rows, or lower train.batch_size_per_device or train.steps_per_generation.",
        )
    warnings = []
    if dropped := len(rows) - len(fitting):
        warnings.append(
            f"{dropped} of {len(rows)} rows are left out: their prompts have up to {max(lengths)} tokens, "
            f"train.max_prompt_tokens is {train.max_prompt_tokens}."
        )
    longest = train.max_prompt_tokens + train.max_completion_tokens
    if longest > tokenizer.model_max_length:
        warnings.append(
            f"Prompt and completion may have {longest} tokens together, the model was made for "
            f"{tokenizer.model_max_length}."
        )
    return Preflight(fitting, warnings + _probe_rewards(task, fitting[:PROBED_ROWS]))


def count_prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: list[list[Message]]) -> list[int]:
    """Tokens of each prompt as the model gets it. Raises UsageError when the chat template refuses one."""
    try:
        encoded = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, tokenize=True, return_dict=True)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in prompts[0])
        raise UsageError(
            f"The model's chat template refuses the task's prompt (roles: {roles}): {error}",
            fix="Some models know no system role: write a task whose prompt has only a user's turn.",
        ) from error
    return [len(ids) for ids in encoded["input_ids"]]


def _probe_rewards(task: LoadedTask, rows: Sequence[Row]) -> list[str]:
    """Scores made-up completions of different kinds: a reward that cannot tell them apart teaches nothing."""
    probed = [(text, row) for row in rows for text in _probes(row)]
    rewards = task.score([text for text, _ in probed], [row for _, row in probed]).rewards
    known = {reward for reward in rewards if reward is not None}
    if not known:
        return [f"The task {task.name} gave no reward (None) to any of {len(probed)} made-up completions."]
    if len(known) == 1:
        return [
            f"The task {task.name} gave the same reward ({known.pop():g}) to {len(probed)} very different "
            "made-up completions; GRPO learns only from differences."
        ]
    return []


def _probes(row: Row) -> list[str]:
    """Nothing, prose, and every text or number of the row, bare and in the usual tags."""
    values = [str(value) for value in row.values() if isinstance(value, str | int | float)]
    tagged = [f"<reasoning>So it is.</reasoning><answer>{value}</answer>" for value in values]
    return ["", "I do not know, and I will say so at some length.", *values, *tagged]
