"""Proves that a command, recipe or data file that is wrong gets one clear error and an exit code, before anything is
written: what is wrong, where it is, what to do.
"""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from attempts import ROOT, Run, attempt_env
from refusals import everything, own_workplace, refuse, write_lines

ROW = '{"question": "1+1=", "answer": "2"}'

RECIPES = {
    "unknown key": (
        "[train]\nlerning_rate = 1e-5\n",
        "recipe bad.toml: there is no setting train.lerning_rate.",
        "Did you mean train.learning_rate?",
    ),
    "unknown table": (
        "[trainer]\nseed = 1\n",
        "recipe bad.toml: there is no setting trainer.seed.",
        "Did you mean train.seed?",
    ),
    "out of bounds": (
        '[data]\ntrain = "sums.jsonl"\n[lora]\nrank = 0\n',
        "recipe bad.toml: lora.rank = 0 is refused: it should be greater than or equal to 1.",
        "lora.rank: Rank of the adapter's matrices.",
    ),
    "of another kind": (
        '[data]\ntrain = "sums.jsonl"\n[train]\nmax_steps = "many"\n',
        'recipe bad.toml: train.max_steps = "many" is refused: it should be a valid integer.',
        "train.max_steps: Optimizer steps; without it `train.epochs` says how long.",
    ),
    "not TOML": (
        "train: 5\n",
        "The recipe bad.toml is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 6).",
        "Correct that place.",
    ),
    "no data file is named": (
        "[train]\nseed = 1\n",
        "data.train is not set.",
        "data.train: JSONL file of the rows to train on, one JSON object a line; pinned by its hash when the run "
        "begins. Set it in the recipe.",
    ),
    "a key that would colour the terminal": (
        '"\\u001b[31m[red]" = 1\n',
        "recipe bad.toml: there is no setting \N{REPLACEMENT CHARACTER}[31m[red].",
        "docs/configuration.md lists all settings.",
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_that_is_wrong_is_refused(run: Run, case: str) -> None:
    text, what, fix = RECIPES[case]
    run = own_workplace(run)
    (run.workplace / "bad.toml").write_text(text)
    refuse(run, 2, what, fix, argv=["bad.toml", "--run", run.uri])
    assert not run.bucket.exists()


def test_a_recipe_that_is_not_there_is_refused(run: Run) -> None:
    refuse(
        run, 2, "There is no recipe nowhere.toml.", "recipes/ has those that come with Baton.",
        argv=["nowhere.toml", "--run", run.uri],
    )  # fmt: skip
    refuse(
        run, 2, "The recipe micro cannot be read: Is a directory.", "Name a TOML file that you may read.",
        argv=["micro", "--run", run.uri],
    )  # fmt: skip


def test_an_override_that_is_wrong_is_refused(run: Run) -> None:
    refuse(
        run, 2, "--set: there is no setting train.sed.", "Did you mean train.seed?",
        argv=[*run.argv(), "--set", "train.sed=1"],
    )  # fmt: skip
    refuse(
        run, 2, "--set train.seed: that is not KEY=VALUE.", "Write for example --set train.seed=3.",
        argv=[*run.argv(), "--set", "train.seed"],
    )  # fmt: skip
    refuse(
        run, 2, "--set changes a recipe, and none is named.", "Name the recipe before --run.",
        argv=["--run", run.uri, "--set", "train.seed=1"],
    )  # fmt: skip


DATA = {
    "missing": (None, "data.train: bad.jsonl does not exist.", "Give the path of a file that does."),
    "row 17 without question": (
        [*[ROW] * 16, '{"q": "1+1=", "answer": "2"}', *[ROW] * 3],
        "bad.jsonl row 17 has no `question`.",
        "Its keys are: `q`, `answer`.",
    ),
    "not JSON on line 5": (
        [*[ROW] * 4, '{"question": "1+1=", }', *[ROW] * 20],
        "bad.jsonl line 5 is not JSON: Expecting property name enclosed in double quotes (column 22).",
        "Every line is one JSON object: no list around them, no comma after them.",
    ),
    "empty": ([], "bad.jsonl has no rows.", "Put one JSON object on each line."),
    "blank lines only": (["", "  "], "bad.jsonl has no rows.", "Put one JSON object on each line."),
    "too few rows": (
        [ROW] * 2,
        "bad.jsonl has 2 usable rows; a generation takes 8.",
        "Add rows, or lower train.batch_size_per_device or train.steps_per_generation.",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_is_wrong_is_refused_with_the_users_own_name_of_the_file(run: Run, case: str) -> None:
    lines, what, fix = DATA[case]
    run = own_workplace(run)
    if lines is not None:
        write_lines(run.workplace / "bad.jsonl", lines)
    refuse(run, 2, what, fix, argv=[*run.argv(), "--set=data.train=bad.jsonl"])
    assert not run.bucket.exists()


def test_rows_to_evaluate_on_are_read_before_the_run_begins(run: Run) -> None:
    run = own_workplace(run)
    write_lines(run.workplace / "bad.jsonl", ["{}"])
    refuse(
        run, 2, "bad.jsonl row 1 has no `question`.", "Add `question` to the row.",
        argv=[*run.argv(), "--set=data.eval=bad.jsonl"],
    )  # fmt: skip


def test_prompts_that_are_all_too_long_are_refused(run: Run) -> None:
    refuse(
        run,
        2,
        "Every prompt is longer than train.max_prompt_tokens = 2 (the shortest has 6 tokens).",
        "Raise train.max_prompt_tokens; the longest has 6.",
        argv=[*run.argv(), "--set=train.max_prompt_tokens=2"],
    )


@pytest.mark.parametrize(
    ("folder", "reason"), [("/sys/baton/run", "Operation not permitted"), ("/proc/baton", "Operation not permitted")]
)
def test_a_folder_that_may_not_be_written_is_refused(run: Run, folder: str, reason: str) -> None:
    if os.geteuid() != 0:
        reason = "Permission denied" if folder.startswith("/sys") else reason
    refuse(
        run,
        3,
        f"{folder} may not be used: {reason}.",
        "Check the folder's owner and rights, or name another.",
        argv=["story.toml", "--run", f"file://{folder}"],
    )


def test_a_file_where_the_runs_folder_should_be_is_refused(run: Run) -> None:
    run.bucket.write_text("not a folder")
    refuse(run, 3, f"{run.bucket} cannot be made: Not a directory.", "Name another folder for the run.")
    assert run.bucket.read_text() == "not a folder"


COMMANDS = {
    "unknown option": (
        ["story.toml", "--bogus"],
        {},
        "unrecognized arguments: --bogus.",
        "See `baton train --help`.",
    ),
    "no run": (
        ["story.toml"],
        {},
        "No run is named.",
        "Add --run file:///path/of/the/run (or gs://BUCKET/runs/NAME), or set BATON_RUN.",
    ),
    "a name without a bucket": (
        ["story.toml", "--run", "first"],
        {},
        "'first' is a run's name, and no bucket is set.",
        "Give the URI (file:///path/first, gs://BUCKET/runs/first) or set BATON_BUCKET.",
    ),
    "an unknown kind of bucket": (
        ["story.toml", "--run", "s3://bucket/first"],
        {},
        "'s3://bucket/first' is not the URI of a run.",
        "Use file:///absolute/path or gs://BUCKET/runs/NAME.",
    ),
    "a negative attempt": (
        ["story.toml", "--run", "file:///tmp/none"],
        {"BATON_ATTEMPT": "-3"},
        "BATON_ATTEMPT is '-3', not the number of an attempt.",
        "Use 1, 2, 3...",
    ),
    "an attempt in words": (
        ["story.toml", "--run", "file:///tmp/none"],
        {"BATON_ATTEMPT": "two"},
        "BATON_ATTEMPT is 'two', not the number of an attempt.",
        "Use 1, 2, 3...",
    ),
    "an unknown key to accept": (
        ["story.toml", "--run", "file:///tmp/none", "--allow-changed", "train.sed"],
        {},
        "--allow-changed: there is no setting train.sed.",
        "Did you mean train.seed?",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_is_wrong_is_refused(run: Run, case: str) -> None:
    argv, env, what, fix = COMMANDS[case]
    refuse(run, 2, what, fix, argv=argv, env=env)


def test_a_run_that_does_not_exist_needs_a_recipe(run: Run) -> None:
    refuse(
        run, 2, f"there is no run at {run.uri}.", "Name a recipe to start one there.", argv=["--run", run.uri]
    )  # fmt: skip
    refuse(
        run,
        2,
        f"attempt 3 of {run.uri} was never claimed.",
        "Leave BATON_ATTEMPT unset to claim a new one.",
        env={"BATON_ATTEMPT": "3"},
    )
    assert not run.bucket.exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["train", "bad.toml", "--run", "RUN"],
            "error: recipe bad.toml: there is no setting train.lerning_rate.\n  Did you mean train.learning_rate?\n",
        ),
        (
            ["config", "bad.toml"],
            "error: recipe bad.toml: there is no setting train.lerning_rate.\n  Did you mean train.learning_rate?\n",
        ),
        (["train", "story.toml", "--bogus"], "error: No such option: --bogus\n  See `baton train --help`.\n"),
        (
            ["status", "nothing-here"],
            "error: 'nothing-here' is a run's name, and no bucket is set.\n  Give the URI (file:///path/nothing-here, "
            "gs://BUCKET/runs/nothing-here) or set BATON_BUCKET.\n",
        ),
    ],
    ids=["train", "config", "option", "status"],
)
def test_the_console_command_says_the_same_on_a_terminal(run: Run, arguments: list[str], error: str) -> None:
    run = own_workplace(run)
    (run.workplace / "bad.toml").write_text('[data]\ntrain = "sums.jsonl"\n[train]\nlerning_rate = 1e-5\n')
    code, shown = on_a_terminal([argument.replace("RUN", run.uri) for argument in arguments], run.workplace)
    assert (code, shown.replace("\r\n", "\n")) == (2, error)
    assert everything(run.bucket) == {}


def on_a_terminal(arguments: list[str], cwd: Path) -> tuple[int, str]:
    """Exit code of `baton ARGUMENTS` and what a terminal got from it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from infra.cli import main; main()", *arguments],
        cwd=cwd,
        env=attempt_env({"PYTHONPATH": str(ROOT)}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    return process.wait(60), shown.decode()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # EIO: nobody has the other end any more
        return b""
