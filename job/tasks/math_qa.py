"""Questions with one right answer: GSM8K, sums, any file with `question` and `answer`.

A row's `answer` is bare, or text that ends in `#### ANSWER` (GSM8K) or has `<answer>ANSWER</answer>`.
The model is asked to think in `<reasoning>` and to answer in `<answer>`. Two rewards, each 0.0 or 1.0:
`correctness` (the last `<answer>` says the same as the row) and `format` (the two blocks and nothing else).
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from job.errors import UsageError
from job.tasks.rows import Row, numbered_rows

INSTRUCTIONS = (
    "Think about the question, then answer it. Write your thoughts and the answer in exactly this form:\n"
    "<reasoning>your thoughts</reasoning>\n<answer>the final answer alone</answer>"
)

_FORMAT = re.compile(r"\s*<reasoning>(.+)</reasoning>\s*<answer>(.+)</answer>\s*", re.DOTALL)
_TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
_NUMBER = re.compile(r"([+-]?)[$€£]?\s?([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)")


class MathQA:
    """The task `math_qa`: see the module."""

    weights: Mapping[str, float] = {"correctness": 0.9, "format": 0.1}

    def read(self, path: Path) -> list[Row]:
        """Rows with `question`, `answer`, perhaps `generated_at` (ISO 8601), `pair_id`. Raises UsageError."""
        numbered = numbered_rows(path, required=("question", "answer"))
        if not numbered:
            raise UsageError(f"{path} has no rows.", fix='Put {"question": ..., "answer": ...} on each line.')
        for number, row in numbered:
            _check_row(f"{path} row {number}", row)
        return [row for _, row in numbered]

    def prompt(self, row: Row) -> list[dict[str, str]]:
        """The instructions as the system's turn, the question as the user's."""
        return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": row["question"]}]

    def score(self, completions: Sequence[str], rows: Sequence[Row]) -> dict[str, list[float | None]]:
        """`correctness` and `format` of each completion, 0.0 or 1.0; never None."""
        return {
            "correctness": [
                1.0 if is_same_answer(extract_tagged(text), extract_gold(row["answer"])) else 0.0
                for text, row in zip(completions, rows, strict=True)
            ],
            "format": [1.0 if has_format(text) else 0.0 for text in completions],
        }


def _check_row(where: str, row: Row) -> None:
    question, answer = row["question"], row["answer"]
    if not isinstance(question, str):
        raise UsageError(f"{where}: `question` is {_kind(question)}, it must be text.")
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool) and math.isfinite(answer)
    if not isinstance(answer, str) and not is_number:
        raise UsageError(f"{where}: `answer` is {_kind(answer)}, it must be text or a number.")
    if not extract_gold(answer):
        raise UsageError(f"{where}: `answer` has nothing after `####` or inside `<answer>`.")
    if row.get("generated_at") is not None:
        try:
            datetime.fromisoformat(row["generated_at"])
        except (TypeError, ValueError):
            raise UsageError(
                f"{where}: `generated_at` is no date and time: {str(row['generated_at'])[:40]!r}.",
                fix='Write it as in "2026-11-20T12:00:00Z", or leave it out.',
            ) from None
    if not isinstance(row.get("pair_id"), str | int | None):
        raise UsageError(f"{where}: `pair_id` is {_kind(row['pair_id'])}, it must be text or a whole number.")


def extract_gold(answer: str | float) -> str:
    """The answer that counts: inside the last `<answer>`, else after the last `####`, else all of it."""
    text = str(answer)
    tagged = extract_tagged(text)
    return (tagged if tagged is not None else text.rpartition("####")[2]).strip()


def extract_tagged(text: str) -> str | None:
    """What the last complete `<answer>...</answer>` holds; None without one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else text[start + len("<answer>") : end].strip()


def has_format(text: str) -> bool:
    """True for one `<reasoning>`, then one `<answer>`, both with something in them, and nothing else."""
    if any(text.count(tag) != 1 for tag in _TAGS):
        return False
    match = _FORMAT.fullmatch(text)
    return match is not None and all(part.strip() for part in match.groups())


def is_same_answer(given: str | None, gold: str) -> bool:
    """Compares as numbers where both are numbers (1,234 = 1234; $5 = 5.0 = 5.), else as text without case."""
    if given is None:
        return False
    given_number, gold_number = parse_number(given), parse_number(gold)
    if given_number is not None and gold_number is not None:
        return given_number == gold_number
    return _plain(given) == _plain(gold)


def parse_number(text: str) -> Decimal | None:
    """The number that `text` is, maybe with a currency sign, thousands' commas, a final dot; else None."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match[1] and match[2]):  # "-$-5"
        return None
    return Decimal((match[1] or match[2]) + match[3].replace(",", ""))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}.get(type(value), "a number")
