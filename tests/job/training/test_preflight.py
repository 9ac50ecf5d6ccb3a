"""Before the first step: what cannot train is refused, what can but should be known is warned of."""

import re
from collections.abc import Sequence

import pytest
from tiny import moment_model, settings
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job.errors import UsageError
from job.settings.batches import prompts_per_generation
from job.tasks import LoadedTask, Row, load_task
from job.tasks.math_qa import MathQA
from job.training.preflight import check

ROWS: list[Row] = [{"question": f"{a}+1=", "answer": str(a + 1)} for a in range(10, 30)]
LONG: Row = {"question": "What is it? " * 20, "answer": "42"}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(moment_model())


@pytest.fixture
def task() -> LoadedTask:
    return load_task("math_qa", {})


def test_good_data_gives_all_rows_and_no_warning(task: LoadedTask, tokenizer: PreTrainedTokenizerBase) -> None:
    found = check(task, ROWS, tokenizer, settings())
    assert found.rows == ROWS
    assert found.warnings == []


def test_rows_with_too_long_prompts_are_left_out_and_counted(
    task: LoadedTask, tokenizer: PreTrainedTokenizerBase
) -> None:
    found = check(task, [*ROWS[:5], LONG, *ROWS[5:]], tokenizer, settings(train={"max_prompt_tokens": 7}))
    assert found.rows == ROWS
    assert found.warnings == [
        "1 of 21 rows are left out: their prompts have up to 242 tokens, train.max_prompt_tokens is 7."
    ]


def test_nothing_but_too_long_prompts_is_refused_with_both_lengths(
    task: LoadedTask, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UsageError, match=r"(?s)longer than train.max_prompt_tokens = 6 .*has 7 tokens.*has 242"):
        check(task, [*ROWS, LONG], tokenizer, settings(train={"max_prompt_tokens": 6}))


def test_a_tokenizer_without_chat_template_is_refused(task: LoadedTask, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="model acme/base has no chat template"):
        check(task, ROWS, tokenizer, settings(model={"name": "acme/base"}))


def test_a_template_that_knows_no_system_role_is_told_as_it_says_itself(
    task: LoadedTask, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UsageError, match=r"roles: system, user.*System role not supported"):
        check(task, ROWS, tokenizer, settings())


def test_fewer_rows_than_one_generation_takes_are_refused(task: LoadedTask, tokenizer: PreTrainedTokenizerBase) -> None:
    train = {"batch_size_per_device": 64, "num_generations": 8, "steps_per_generation": 4}
    assert prompts_per_generation(settings(train=train)) == 32
    with pytest.raises(UsageError, match=r"x.jsonl has 20 usable rows; a generation takes 32"):
        check(task, ROWS, tokenizer, settings(train=train))


def test_more_tokens_than_the_model_was_made_for_are_warned_of(
    task: LoadedTask, tokenizer: PreTrainedTokenizerBase
) -> None:
    found = check(task, ROWS, tokenizer, settings(train={"max_completion_tokens": 4096}))
    assert found.warnings == ["Prompt and completion may have 4608 tokens together, the model was made for 4096."]


@pytest.mark.parametrize(("verdict", "warning"), [(0.25, r"same reward \(0.25\)"), (None, r"gave no reward \(None\)")])
def test_a_reward_that_tells_nothing_apart_is_warned_of(
    tokenizer: PreTrainedTokenizerBase, verdict: float | None, warning: str
) -> None:
    scored: list[str] = []

    class Constant(MathQA):
        def score(self, completions: Sequence[str], rows: Sequence[Row]) -> dict[str, list[float | None]]:
            scored.extend(completions)
            return {"correctness": [verdict for _ in completions]}

    rows = ROWS * 100
    found = check(LoadedTask("constant", Constant(), {"correctness": 1.0}), rows, tokenizer, settings())
    assert len(found.warnings) == 1
    assert re.search(warning, found.warnings[0])
    assert len(scored) < len(rows)
