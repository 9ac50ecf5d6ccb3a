"""math_qa finds the answer in a row and in a completion, compares them fairly, and cannot be fooled by form."""

import json
from pathlib import Path

import pytest

from job.errors import UsageError
from job.tasks import load_task
from job.tasks.math_qa import MathQA, extract_gold, has_format, is_same_answer

GOOD = "<reasoning>3+5=8</reasoning>\n<answer>8</answer>"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("3+5=8 so\n#### 8", "8"),
        ("#### 1\n#### 2", "2"),
        ("<reasoning>x</reasoning><answer> 8 </answer>", "8"),
        (" Paris ", "Paris"),
        (8, "8"),
        (0.5, "0.5"),
    ],
)
def test_the_gold_answer_is_found_in_every_spelling(answer: str | float, gold: str) -> None:
    assert extract_gold(answer) == gold


@pytest.mark.parametrize(
    ("given", "gold", "same"),
    [
        ("1,234", "1234", True),
        ("$5", "5.0", True),
        ("5.", "5", True),
        ("-$1,000.50", "-1000.5", True),
        ("$ 7", "7", True),
        (".5", "0.50", True),
        ("+3", "3", True),
        ("12,34", "1234", False),
        ("5", "6", False),
        ("5 apples", "5", False),
        ("1e1", "10", False),
        ("nan", "nan", True),
        ("--5", "5", False),
        ("PARIS.", "paris", True),
        ("New  York", "new york", True),
        ("", "5", False),
        (None, "5", False),
    ],
)
def test_answers_are_compared_as_numbers_where_both_are_numbers(given: str | None, gold: str, same: bool) -> None:
    assert is_same_answer(given, gold) is same


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (GOOD, True),
        (f"  {GOOD}\n", True),
        ("<reasoning>a\nb</reasoning><answer>8</answer>", True),
        ("<answer>8</answer>", False),
        (f"Well: {GOOD}", False),
        (f"{GOOD} Done.", False),
        (GOOD + GOOD, False),
        ("<reasoning></reasoning><answer>8</answer>", False),
        ("<reasoning>x</reasoning><answer> </answer>", False),
        ("<answer>8</answer><reasoning>x</reasoning>", False),
        ("", False),
    ],
)
def test_the_form_is_two_blocks_and_nothing_else(text: str, good: bool) -> None:
    assert has_format(text) is good


def test_the_two_rewards_are_apart_and_weighted() -> None:
    scores = load_task("math_qa", {}).score(
        [GOOD, "<reasoning>?</reasoning><answer>9</answer>", "<answer>8</answer>", "8", "<answer>8"],
        [{"answer": "#### 8"}] * 5,
    )
    assert scores.parts == {"correctness": [1, 0, 1, 0, 0], "format": [1, 1, 0, 0, 0]}
    assert scores.rewards == pytest.approx([1.0, 0.1, 0.9, 0.0, 0.0])


def test_the_last_complete_answer_counts_even_in_hostile_text() -> None:
    flood = "<answer>" * 20_000
    assert MathQA().score(["<answer>1</answer><answer>8</answer>"], [{"answer": 8}])["correctness"] == [1.0]
    assert MathQA().score([f"{flood}8</answer>"], [{"answer": 8}])["correctness"] == [1.0]
    assert MathQA().score([flood], [{"answer": 8}])["correctness"] == [0.0]


def test_the_prompt_asks_for_the_form_and_ends_with_the_question() -> None:
    system, user = MathQA().prompt({"question": "3+5="})
    assert "<reasoning>" in system["content"]
    assert "<answer>" in system["content"]
    assert user == {"role": "user", "content": "3+5="}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": 5, "answer": "1"}, "row 1: `question` is a number"),
        ({"question": "x", "answer": [1]}, "row 1: `answer` is a list"),
        ({"question": "x", "answer": True}, "row 1: `answer` is true or false"),
        ({"question": "x", "answer": "long thoughts ####"}, "row 1: `answer` has nothing after"),
        ({"question": "x", "answer": "1", "generated_at": "yesterday"}, "row 1: `generated_at` is no date"),
        ({"question": "x", "answer": "1", "generated_at": 5}, "row 1: `generated_at` is no date"),
        ({"question": "x", "answer": "1", "pair_id": {}}, "row 1: `pair_id` is an object"),
        ({"question": "x"}, "row 1 has no `answer`"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict, complaint: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(UsageError, match=complaint):
        MathQA().read(file)


def test_optional_keys_and_other_keys_are_left_alone(tmp_path: Path) -> None:
    row = {"question": "x", "answer": 1, "generated_at": "2026-11-20T12:00:00Z", "pair_id": 7, "source": ["mine"]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    assert MathQA().read(tmp_path / "x.jsonl") == [row]
