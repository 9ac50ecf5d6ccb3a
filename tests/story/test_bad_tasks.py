"""Proves that a task of one's own that does not work gets one error with its file and line, never a traceback, and that
what the task, the data or the model wrote reaches no terminal raw.
"""

import json

import pytest
from attempts import Run
from refusals import everything, fails, own_workplace, refuse

TASK = """
from job.tasks import read_jsonl


class Mine:
    weights = {"a": 1.0}

    def read(self, path):
        return read_jsonl(path, required=["question"])

    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]

    def score(self, completions, rows):
        return {"a": [len(text) / 10 for text in completions]}
"""
RETURN = 'return {"a": [len(text) / 10 for text in completions]}'
IN_THE_TASK = "This is the task's own code: correct it there."
CASES = {
    "syntax error": (RETURN, "if x", 2, "The task file mine.py line 15 is not Python: expected ':'.", ""),
    "missing class": ("class Mine", "class Yours", 2, "mine.py has no class 'Mine'.",
                      "task = 'mine.py:Mine': check the name after the colon."),
    "import of what is not there": ("class Mine", "import nowhere\n\n\nclass Mine", 2,
                      "The task file mine.py fails on import (mine.py line 5): ModuleNotFoundError: "
                      "No module named 'nowhere'", "`python mine.py` shows the whole error."),
    "wrong length": (RETURN, 'return {"a": [1.0]}', 3, "mine.py:Mine: part `a` has 1 numbers for 96 completions.", ""),
    "other parts": (RETURN, 'return {"b": [1.0 for _ in rows]}', 3,
                      "mine.py:Mine: `score` returned `b`, `weights` has `a`.",
                      "Both must name the same parts; a weight of 0 only logs a part."),
    "not a number": (RETURN, 'return {"a": [float("nan") for _ in rows]}', 3, "mine.py:Mine: part `a` holds nan.",
                      "A reward is None or a number of at most 1e+15; the usual ones are from 0 to 1."),
    "too large for float32": (RETURN, 'return {"a": [1e38 for _ in rows]}', 3, "mine.py:Mine: part `a` holds 1e+38.",
                      "A reward is None or a number of at most 1e+15; the usual ones are from 0 to 1."),
    "raises": (RETURN, r'raise RuntimeError("one\ntwo \x1b[31m[red]")', 3,
                      "mine.py:Mine: `score` failed (mine.py line 15): RuntimeError: one two "
                      "\N{REPLACEMENT CHARACTER}[31m[red]", IN_THE_TASK),
    "leaves the process": (RETURN, "raise SystemExit(0)", 3,
                      "mine.py:Mine: `score` failed (mine.py line 15): SystemExit: 0", IN_THE_TASK),
    "a key that no row has": ('row["question"]}]', 'row["prompt"]}]', 2,
                      "mine.py:Mine: `prompt` failed (mine.py line 12): KeyError: 'prompt'", IN_THE_TASK),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_task_that_does_not_work_is_refused(run: Run, case: str) -> None:
    old, new, exit_code, what, fix = CASES[case]
    assert TASK.count(old) == 1
    run = own_workplace(run)
    (run.workplace / "mine.py").write_text(TASK.replace(old, new))
    refuse(run, exit_code, what, fix, argv=[*run.argv(), "--set=task=mine.py:Mine"])
    assert not run.bucket.exists()


def test_a_task_file_that_is_not_there_is_refused(run: Run) -> None:
    refuse(
        run, 2, "task: gone.py does not exist.", "Give the path of a file that does.",
        argv=[*run.argv(), "--set=task=gone.py:Mine"],
    )  # fmt: skip
    refuse(
        run, 2, "There is no task 'maths'.", 'Known: math_qa; your own is task = "my_task.py:MyTask".',
        argv=[*run.argv(), "--set=task=maths"],
    )  # fmt: skip
    refuse(
        run, 2, "reward.weights.colour: the task story_task.py:Variety has no such part.",
        "Its parts: `letters`, `spaces`.", argv=[*run.argv(), "--set=reward.weights.colour=1"],
    )  # fmt: skip


def test_a_reward_that_fails_later_ends_the_run_with_its_line_and_it_goes_on_once_that_is_mended(run: Run) -> None:
    run = own_workplace(run)
    run.settings.append("task=mine.py:Mine")
    (run.workplace / "mine.py").write_text(
        TASK.replace(RETURN, f'if "" not in completions:  # not the preflight\n            [][0]\n        {RETURN}')
    )
    fails(run, 3, "mine.py:Mine: `score` failed (mine.py line 16): IndexError: list index out of range", IN_THE_TASK)
    assert run.durable_step() == 0
    (run.workplace / "mine.py").write_text(TASK)
    sha256 = [run.json("control/spec/0001.json")["inputs"]["task"]["sha256"]]
    before = everything(run.bucket)
    refused = run.start()
    assert refused.wait() == 2
    assert refused.err.splitlines()[1].endswith("accept the difference: --allow-changed task")
    assert everything(run.bucket) == before
    mended = run.server.attempt([*run.argv(), "--allow-changed=task"], cwd=run.workplace, folder=run.folder)
    assert mended.wait() == 0, mended.err
    spec = run.json("control/spec/0002.json")
    assert spec["accepted"] == ["task"]
    assert spec["inputs"]["task"]["sha256"] not in sha256


HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]1+1[/] \u202e=\r"


def test_what_data_task_and_model_write_never_reaches_a_terminal_raw(run: Run) -> None:
    run = own_workplace(run)
    rows = [json.dumps({"question": f"{i} {HOSTILE}", "answer": HOSTILE}) for i in range(16)]
    (run.workplace / "hostile.jsonl").write_text("\n".join(rows))
    show = f"print(rows[0]['question'], *completions[:2]); import sys; print({HOSTILE!r}, file=sys.stderr, flush=True)"
    (run.workplace / "mine.py").write_text(TASK.replace(RETURN, f"{show}\n        {RETURN}"))
    run.settings += ["task=mine.py:Mine", "data.train=hostile.jsonl"]
    attempt = run.start()
    assert attempt.wait() == 0, attempt.err
    assert "[bold red]1+1[/]" in attempt.err
    control = {character for character in attempt.err if not character.isprintable() and character != "\n"}
    assert control == set()
