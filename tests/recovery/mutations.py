"""Would it be noticed? Every place in the code that decides is changed, one at a time, and the tests are run.

The changes are made by rule, not picked: comparisons turned round and moved by their edge, conditions negated, parts of
`and` and `or` left out, sums and products exchanged, numbers off by one, ends called by another name.
"""

import ast
import copy
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from job.run.claims import How

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("recovery", "ends", "placing", "spending")
TESTS = ("tests/infra/test_recovery.py", "tests/infra/test_ends.py", "tests/infra/test_placing.py")
HISTORIES = 60
PATIENCE_S = 240.0
AT_ONCE = 2
GOAL = 0.95
_TURNED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_EXCHANGED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}
_HOWS = get_args(How)


@dataclass(frozen=True)
class Mutation:
    """One change."""

    file: str
    number: int
    """Among those of the file, in the order of the text."""
    line: int
    what: str

    def __str__(self) -> str:
        return f"infra/{self.file}.py:{self.line}: {self.what}"


def mutated(file: str) -> Iterator[tuple[Mutation, ast.Module]]:
    """Every mutation of a file with the module that it makes."""
    tree = ast.parse((ROOT / "infra" / f"{file}.py").read_text())
    count = 0
    for position, node in enumerate(ast.walk(tree)):
        if _is_aside(tree, node):
            continue
        for number, _ in enumerate(_changes(node)):
            other = copy.deepcopy(tree)
            same = next(one for index, one in enumerate(ast.walk(other)) if index == position)
            new, what = list(_changes(same))[number]
            _replace(other, same, new)
            yield Mutation(file, count, getattr(node, "lineno", 0), what), ast.fix_missing_locations(other)
            count += 1


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=comparators) if type(op) in _TURNED:
            for turned in _TURNED[type(op)]:
                new = ast.Compare(left, [turned()], comparators)
                yield new, f"{ast.unparse(node)} -> {ast.unparse(new)}"
        case ast.BoolOp(op=op, values=values):
            new_op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ast.BoolOp(new_op, values), f"{ast.unparse(node)}: and <-> or"
            for index, value in enumerate(values):
                kept = [*values[:index], *values[index + 1 :]]
                yield kept[0] if len(kept) == 1 else ast.BoolOp(op, kept), f"without {ast.unparse(value)}"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand, f"{ast.unparse(node)}: without not"
        case ast.If(test=ast.Call() | ast.Name() | ast.Attribute() as test):
            yield ast.If(ast.UnaryOp(ast.Not(), test), node.body, node.orelse), f"not {ast.unparse(test)}"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _EXCHANGED:
            new = ast.BinOp(left, _EXCHANGED[type(op)](), right)
            yield new, f"{ast.unparse(node)} -> {ast.unparse(new)}"
        case ast.Call(func=ast.Name(id=("min" | "max") as name)):
            other = "max" if name == "min" else "min"
            yield ast.Call(ast.Name(other, ast.Load()), node.args, node.keywords), f"{ast.unparse(node)}: {other}"
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value), f"{value} -> {not value}"
        case ast.Constant(value=(int() | float()) as value):
            yield ast.Constant(value + 1), f"{value} -> {value + 1}"
        case ast.Constant(value=str() as value) if value in _HOWS:
            other = _HOWS[(_HOWS.index(value) + 1) % len(_HOWS)]
            yield ast.Constant(other), f"{value!r} -> {other!r}"


def _is_aside(tree: ast.Module, node: ast.AST) -> bool:
    """What decides nothing: annotations, asserts, and the lengths at which words for people are cut."""
    for parent in ast.walk(tree):
        aside: list[ast.AST | None] = []
        if isinstance(parent, ast.AnnAssign | ast.arg):
            aside = [parent.annotation]
        elif isinstance(parent, ast.FunctionDef):
            aside = [parent.returns]
        elif isinstance(parent, ast.Assert | ast.Slice):
            aside = [parent]
        elif isinstance(parent, ast.FormattedValue):
            aside = [parent.format_spec]
        elif isinstance(parent, ast.Assign):
            aside = [parent] if isinstance(parent.targets[0], ast.Name) and parent.targets[0].id == "MOST_WORDS" else []
        if any(one is not None and any(inner is node for inner in ast.walk(one)) for one in aside):
            return True
    return False


def _replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if one is old else one for one in value]


def survives(mutation: Mutation) -> str | None:
    """None when something notices it, in a process of its own; else what was tried."""
    command = [sys.executable, "-m", "tests.recovery.mutant", mutation.file, str(mutation.number)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:  # it never ends: noticed
        return None
    return ran.stdout.strip()[-200:] if ran.returncode == 0 else None


def mutate(which: str, seed: int) -> int:
    """Prints what is not noticed; 1 when that is too much."""
    everything = [mutation for file in FILES for mutation, _ in mutated(file)]
    if ":" in which:
        chosen = [one for one in everything if f"{one.file}:{one.line}" == which]
    elif which == "all":
        chosen = everything
    else:
        chosen = random.Random(seed).sample(everything, int(which))
    began_s, missed = time.monotonic(), []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutation, left in zip(chosen, pool.map(survives, chosen), strict=True):
            if left is not None:
                missed.append(mutation)
                print(f"NOT NOTICED {mutation}", flush=True)
    caught = 1 - len(missed) / len(chosen)
    print(
        f"{len(chosen) - len(missed)} of {len(chosen)} mutations noticed ({caught:.1%}), "
        f"{time.monotonic() - began_s:.0f} s"
    )
    return 0 if caught >= GOAL else 1
