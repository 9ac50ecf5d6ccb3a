"""Reading a JSONL file so that every complaint names the file and the line an editor shows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.errors import UsageError

Row = dict[str, Any]


def read_jsonl(path: Path, *, required: Sequence[str] = ()) -> list[Row]:
    """Reads one JSON object per line; every row has each key of `required` with something in it.

    Blank lines are skipped, so that the number of a row in a message is always its line in the file.
    Raises UsageError.
    """
    rows = [row for _, row in numbered_rows(path, required=required)]
    if not rows:
        raise UsageError(f"{path} has no rows.", fix="Put one JSON object on each line.")
    return rows


def numbered_rows(path: Path, *, required: Sequence[str] = ()) -> list[tuple[int, Row]]:
    """Like `read_jsonl`, each row with its line number (from 1), for a task's own checks; may be empty."""
    return [
        (number, _checked_row(path, number, line, required))
        for number, line in enumerate(_lines(path), start=1)
        if line.strip()
    ]


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"There is no data file {path}.", fix="Check the path in the recipe's [data].") from None
    except OSError as error:
        raise UsageError(f"The data file {path} cannot be read: {error.strerror}.") from None
    return data.removeprefix(b"\xef\xbb\xbf").split(b"\n")  # a byte order mark, as Windows editors write it


def _checked_row(path: Path, number: int, line: bytes, required: Sequence[str]) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # "\ud800" parses, but is half a character
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} line {number} is not JSON: {error.msg} (column {error.colno}).",
            fix="Every line is one JSON object: no list around them, no comma after them.",
        ) from None
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"{path} line {number} is not UTF-8: {error.reason}.", fix="Save the file as UTF-8.") from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise UsageError(f"{path} line {number} cannot be read: {error}.") from None
    except RecursionError:
        raise UsageError(f"{path} line {number} is nested too deeply.") from None
    if not isinstance(row, dict):
        raise UsageError(
            f"{path} line {number} is JSON, but not an object.",
            fix='Write it as {"question": ..., "answer": ...}.',
        )
    for key in required:
        if key not in row:
            raise UsageError(f"{path} row {number} has no `{key}`.", fix=_key_hint(key, row))
        if row[key] is None or (isinstance(row[key], str) and not row[key].strip()):
            raise UsageError(f"{path} row {number} has an empty `{key}`.")
    return row


def _key_hint(key: str, row: Row) -> str:
    return f"Its keys are: {', '.join(f'`{name}`' for name in row)}." if row else f"Add `{key}` to the row."
