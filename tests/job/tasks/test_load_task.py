"""A task of the user's own is loaded from its file, and every way in which it can be wrong is told in one line."""

import re
import textwrap
from pathlib import Path

import pytest

from job.errors import BatonError, NeedsPerson, UsageError
from job.tasks import combine, load_task, task_file

TASK = """
from job.tasks import read_jsonl

class MyTask:
    weights = {"short": 1.0, "polite": 0.5}

    def read(self, path):
        return read_jsonl(path, required=["question"])

    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]

    def score(self, completions, rows):
        return {
            "short": [1.0 if len(text) < 10 else 0.0 for text in completions],
            "polite": [None if "?" in text else 1 for text in completions],
        }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(TASK)
    return path


def test_a_users_own_task_reads_asks_and_scores(file: Path, tmp_path: Path) -> None:
    task = load_task(f"{file}:MyTask", {"polite": 2})
    (tmp_path / "x.jsonl").write_text('{"question": "Hi"}\n')
    rows = task.read(tmp_path / "x.jsonl")
    assert task.prompt(rows[0]) == [{"role": "user", "content": "Hi"}]
    scores = task.score(["Hello", "What is it, please?"], rows * 2)
    assert scores.rewards == [3.0, None]
    assert scores.parts == {"short": [1.0, 0.0], "polite": [1.0, None]}


def test_the_code_may_lie_elsewhere_than_its_name_says(file: Path) -> None:
    assert load_task("gone/my_task.py:MyTask", {}, file).weights == {"short": 1.0, "polite": 0.5}
    assert task_file("gone/my_task.py:MyTask") == Path("gone/my_task.py")
    assert task_file("math_qa") is None


def test_a_missing_part_makes_no_reward_and_never_a_zero() -> None:
    parts = {"judge": [1.0, None, None], "format": [1.0, 1.0, None]}
    assert combine(parts, {"judge": 0.5, "format": 0.5}) == [1.0, None, None]
    assert combine(parts, {"judge": 0.0, "format": 0.5}) == [0.5, 0.5, None]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("class MyTask", "class Other"), "has no class 'MyTask'"),
        (("def prompt", "def ask"), "has no method `prompt(row)`"),
        (("weights = {", "wights = {"), "has no `weights`"),
        (("class MyTask", "1 / 0\nclass MyTask"), "fails on import (my_task.py line 4): ZeroDivisionError"),
        (("class MyTask", "import nothing_like_it\nclass MyTask"), "ModuleNotFoundError: No module named"),
        (("class MyTask", "raise SystemExit(0)\nclass MyTask"), "fails on import (my_task.py line 4): SystemExit"),
        (("class MyTask", "class class MyTask"), "my_task.py line 4 is not Python"),
        (
            ("    weights", "    def __init__(self): raise OSError('no')\n    weights"),
            "cannot be made (my_task.py line 5)",
        ),
    ],
)
def test_a_file_that_is_no_task_is_refused(file: Path, change: tuple[str, str], complaint: str) -> None:
    file.write_text(TASK.replace(*change))
    with pytest.raises(UsageError, match=re.escape(complaint)):
        load_task(f"{file}:MyTask", {})


def test_unknown_tasks_files_and_parts_are_refused_with_what_is_known(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)no task 'maths_qa'.*Known: math_qa"):
        load_task("maths_qa", {})
    with pytest.raises(UsageError, match=r"There is no task file .*nothing\.py"):
        load_task(f"{tmp_path}/nothing.py:MyTask", {})
    with pytest.raises(UsageError, match=r"(?s)reward\.weights\.style.*`correctness`, `format`"):
        load_task("math_qa", {"style": 1.0})
    with pytest.raises(UsageError, match="every weight is 0"):
        load_task("math_qa", {"correctness": 0.0, "format": 0.0})


@pytest.mark.parametrize(
    ("body", "error", "complaint"),
    [
        ("return 5", NeedsPerson, "must return a dict"),
        ("return {'short': [1.0]}", NeedsPerson, "`score` returned `short`, `weights` has `short`, `polite`"),
        ("return {'short': [1.0], 'polite': [1.0, 2.0]}", NeedsPerson, "`polite` has 2 numbers for 1 completions"),
        ("return {'short': [1.0], 'polite': [float('nan')]}", NeedsPerson, "`polite` holds nan"),
        ("return {'short': [1.0], 'polite': ['good']}", NeedsPerson, "`polite` holds 'good'"),
        ("return {'short': 1.0, 'polite': 1.0}", NeedsPerson, "`short` is a float, not a list"),
        ("return rows[5]", NeedsPerson, "`score` failed (my_task.py line 6): IndexError"),
    ],
)
def test_a_score_that_is_no_verdict_stops_the_run(
    tmp_path: Path, body: str, error: type[BatonError], complaint: str
) -> None:
    file = tmp_path / "my_task.py"
    file.write_text(
        textwrap.dedent("""
        class MyTask:
            weights = {"short": 1.0, "polite": 0.5}
            def read(self, path): return []
            def score(self, completions, rows):
                BODY
            def prompt(self, row): return "Hi"
        """).replace("BODY", body)
    )
    task = load_task(f"{file}:MyTask", {})
    with pytest.raises(error, match=re.escape(complaint)):
        task.score(["a"], [{}])
    with pytest.raises(UsageError, match="must return a list of messages"):
        task.prompt({})
    with pytest.raises(UsageError, match="has no rows"):
        task.read(file)
