"""What is trained on: a task reads rows, turns a row into a prompt and scores completions.

A task of one's own is a class in a file, named in the recipe as `task = "my_task.py:MyTask"`:

    from job.tasks import read_jsonl

    class MyTask:
        weights = {"short": 1.0}

        def read(self, path):
            return read_jsonl(path, required=["question"])

        def prompt(self, row):
            return [{"role": "user", "content": row["question"]}]

        def score(self, completions, rows):
            return {"short": [1.0 if len(text) < 80 else 0.0 for text in completions]}
"""

import importlib.util
import inspect
import math
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, cast

from job.errors import BatonError, NeedsPerson, UsageError
from job.tasks.math_qa import MathQA
from job.tasks.rows import Row, read_jsonl

__all__ = ["LoadedTask", "Message", "Row", "Scores", "Task", "load_task", "read_jsonl", "task_file"]

Message = dict[str, str]

BUILT_IN: Mapping[str, type["Task"]] = {"math_qa": MathQA}
MOST_QUOTED = 300  # characters of an error that a task's own code raised
MOST_REWARD = 1e15
"""Advantages are computed in float32: squares of deviations overflow above 1.8e19, and nothing would be learnt."""
_METHODS = {"read": ("path",), "prompt": ("row",), "score": ("completions", "rows")}


class Task(Protocol):
    """What a task offers. All of it runs without torch."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each part that `score` returns; [reward.weights] of the recipe override them."""
        ...

    def read(self, path: Path) -> list[Row]:
        """The rows of a data file, checked. Rows are what JSON can hold. Raises UsageError with the line."""
        ...

    def prompt(self, row: Row) -> list[Message]:
        """The conversation up to the model's turn: `role` and `content` of each message."""
        ...

    def score(self, completions: Sequence[str], rows: Sequence[Row]) -> Mapping[str, Sequence[float | None]]:
        """For each part one number per completion; None where there is no verdict, never a made-up zero."""
        ...


@dataclass(frozen=True)
class Scores:
    """The verdict on a batch of completions."""

    parts: dict[str, list[float | None]]
    rewards: list[float | None]
    """The weighted sum per completion; None where a part that counts is None."""


@dataclass(frozen=True)
class LoadedTask:
    """A task with the weights of this run; checks what a user's own code returns."""

    name: str
    task: Task
    weights: dict[str, float]

    def read(self, path: Path) -> list[Row]:
        """The rows of `path`, at least one. Raises UsageError."""
        rows: object = self._call("read", path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{self.name}: `read` must return a list of dicts.")
        if not rows:
            raise UsageError(f"{path} has no rows.")
        return rows

    def prompt(self, row: Row) -> list[Message]:
        """The messages for `row`. Raises UsageError when they are not messages."""
        messages: object = self._call("prompt", row)
        if not isinstance(messages, list) or not messages or not all(_is_message(m) for m in messages):
            raise UsageError(
                f"{self.name}: `prompt` must return a list of messages.",
                fix='One message is {"role": "user", "content": "..."}.',
            )
        return messages

    def score(self, completions: Sequence[str], rows: Sequence[Row]) -> Scores:
        """Scores `completions[i]` as an answer to `rows[i]`. Raises NeedsPerson when its code fails."""
        returned: object = self._call("score", completions, rows)
        if not isinstance(returned, Mapping):
            raise NeedsPerson(f"{self.name}: `score` must return a dict of part to numbers.")
        if set(returned) != set(self.weights):
            raise NeedsPerson(
                f"{self.name}: `score` returned {_names(returned)}, `weights` has {_names(self.weights)}.",
                fix="Both must name the same parts; a weight of 0 only logs a part.",
            )
        parts = {name: self._checked_part(name, returned[name], len(completions)) for name in self.weights}
        rewards = combine(parts, self.weights)
        for reward in rewards:
            if reward is not None and not abs(reward) <= MOST_REWARD:
                raise NeedsPerson(
                    f"{self.name}: the weighted sum of the parts is {reward:g}.",
                    fix="Lower the weights: reward.weights.",
                )
        return Scores(parts, rewards)

    def _checked_part(self, name: str, values: object, count: int) -> list[float | None]:
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise NeedsPerson(f"{self.name}: part `{name}` is a {type(values).__name__}, not a list of numbers.")
        numbers = list(values)
        if len(numbers) != count:
            raise NeedsPerson(f"{self.name}: part `{name}` has {len(numbers)} numbers for {count} completions.")
        for number in numbers:
            if number is not None and not _is_reward(number):
                raise NeedsPerson(
                    f"{self.name}: part `{name}` holds {number!r}.",
                    fix=f"A reward is None or a number of at most {MOST_REWARD:g}; the usual ones are from 0 to 1.",
                )
        return [None if number is None else float(number) for number in numbers]

    def _call(self, method: str, *arguments: object) -> object:
        try:
            return getattr(self.task, method)(*arguments)
        except BatonError:
            raise
        except (Exception, SystemExit) as error:
            kind = UsageError if method != "score" else NeedsPerson
            raise kind(
                f"{self.name}: `{method}` failed{_place(error)}: {_in_a_line(error)}",
                fix="This is the task's own code: correct it there.",
            ) from error


def combine(parts: Mapping[str, Sequence[float | None]], weights: Mapping[str, float]) -> list[float | None]:
    """The weighted sum of the parts, per completion; None where a part whose weight is not 0 is None."""
    counted = [(weights[name], parts[name]) for name in weights if weights[name] != 0]
    count = max((len(values) for values in parts.values()), default=0)
    rewards: list[float | None] = []
    for i in range(count):
        terms = [None if (value := values[i]) is None else weight * value for weight, values in counted]
        known = [term for term in terms if term is not None]
        rewards.append(math.fsum(known) if len(known) == len(terms) else None)
    return rewards


def task_file(name: str) -> Path | None:
    """The file of a user's own task ("my_task.py:MyTask"); None for a built-in one."""
    file, colon, _ = name.rpartition(":")
    return Path(file) if colon and file else None


def load_task(name: str, weights: Mapping[str, float], file: Path | None = None) -> LoadedTask:
    """The task that the recipe names, with the recipe's `reward.weights` over the task's own.

    `file` is where the code of "my_task.py:MyTask" lies when not at that path (fetched from the bucket).
    Raises UsageError: unknown task, no such file or class, a method missing, code that fails, unknown part.
    """
    if task_file(name) is None:
        if name not in BUILT_IN:
            raise UsageError(
                f"There is no task {name!r}.",
                fix=f'Known: {", ".join(sorted(BUILT_IN))}; your own is task = "my_task.py:MyTask".',
            )
        task: Task = BUILT_IN[name]()
    else:
        task = _load_own(name, file or Path(name.rpartition(":")[0]), name.rpartition(":")[2])
    return LoadedTask(name, task, _merged_weights(name, task.weights, weights))


def _load_own(name: str, file: Path, class_name: str) -> Task:
    if not file.is_file():
        raise UsageError(f"There is no task file {file}.", fix=f"task = {name!r} means the class in that file.")
    found = getattr(_import_file(file), class_name, None)
    if not inspect.isclass(found):
        raise UsageError(
            f"{file} has no class {class_name!r}.", fix=f"task = {name!r}: check the name after the colon."
        )
    try:
        task = found()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{name} cannot be made{_place(error)}: {_in_a_line(error)}",
            fix="The class is called without arguments.",
        ) from error
    for method, arguments in _METHODS.items():
        if not callable(getattr(task, method, None)):
            raise UsageError(
                f"{name} has no method `{method}({', '.join(arguments)})`.",
                fix="docs/tasks.md has an example.",
            )
    weights = getattr(task, "weights", None)
    if not isinstance(weights, Mapping) or not weights or not all(_is_weight(w) for w in weights.values()):
        raise UsageError(
            f"{name} has no `weights`.",
            fix='Name each part that `score` returns, as in weights = {"correct": 1.0}.',
        )
    return cast(Task, task)


def _import_file(file: Path) -> Any:
    module_name = f"baton_task_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"The task file {file} is not a Python file (.py).")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickling look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"The task file {file} line {error.lineno} is not Python: {error.msg}.") from None
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"The task file {file} fails on import{_place(error)}: {_in_a_line(error)}",
            fix=f"`python {file}` shows the whole error.",
        ) from error
    return module


def _merged_weights(name: str, own: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    for part in wanted:
        if part not in own:
            raise UsageError(
                f"reward.weights.{part}: the task {name} has no such part.", fix=f"Its parts: {_names(own)}."
            )
    merged = {part: float(wanted.get(part, own[part])) for part in own}
    if not any(merged.values()):
        raise UsageError("reward.weights: every weight is 0, there is nothing to learn from.")
    return merged


def _names(parts: Mapping[Any, object]) -> str:
    return ", ".join(f"`{part}`" for part in parts) or "none"


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_reward(value: object) -> bool:
    try:
        return isinstance(value, Real) and abs(float(value)) <= MOST_REWARD
    except OverflowError:  # a whole number that no float holds
        return False


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _in_a_line(error: BaseException) -> str:
    """`KeyError: 'question'`: what somebody else's code raised, however many lines it says it in."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MOST_QUOTED]


def _place(error: BaseException) -> str:
    """Where it happened, as " (FILE line N)": the innermost frame outside the libraries."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_foreign(f.filename)]
    return f" ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else ""


def _is_foreign(filename: str) -> bool:
    library = sysconfig.get_paths()
    return filename == __file__ or filename.startswith(("<", library["stdlib"], library["purelib"]))
