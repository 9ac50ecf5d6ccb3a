"""A data file with a mistake is refused with the file and the line that an editor shows."""

import re
from pathlib import Path

import pytest

from job.errors import UsageError
from job.tasks import read_jsonl

GOOD = b'{"question": "1+1=", "answer": "2"}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.jsonl"


def test_rows_come_in_order_and_blank_lines_are_skipped(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\n{"n": 2}')
    assert read_jsonl(file) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (GOOD * 4 + b"{'question': 1}\n", "x.jsonl line 5 is not JSON: "),
        (GOOD * 16 + b'{"answer": "2"}\n', "x.jsonl row 17 has no `question`."),
        (GOOD + b"\n" + b'{"question": "  "}\n', "x.jsonl row 3 has an empty `question`."),
        (GOOD + b'{"question": null}\n', "x.jsonl row 2 has an empty `question`."),
        (GOOD + b'["question"]\n', "x.jsonl line 2 is JSON, but not an object."),
        (GOOD + b'{"question": "\xff"}\n', "x.jsonl line 2 is not UTF-8: "),
        (GOOD + b'{"question": "\\ud800"}\n', "x.jsonl line 2 is not UTF-8: "),
        (GOOD + b"[" * 100_000 + b"\n", "x.jsonl line 2 is nested too deeply."),
        (b'{"question": ' + b"1" * 5000 + b"}", "x.jsonl line 1 cannot be read: Exceeds the limit"),
        (b"\n \n", "x.jsonl has no rows."),
        (b"", "x.jsonl has no rows."),
    ],
)
def test_a_mistake_is_named_with_its_line(file: Path, content: bytes, complaint: str) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(complaint)):
        read_jsonl(file, required=["question"])


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no data file .*nothing\.jsonl"):
        read_jsonl(tmp_path / "nothing.jsonl")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_jsonl(tmp_path)
