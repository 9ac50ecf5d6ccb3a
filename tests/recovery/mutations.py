"""Would it be noticed? Every place in the code that decides is changed, one at a time, and the tests are run.

The changes are made by rule, not picked: comparisons turned round and moved by their edge, conditions negated, parts of
`and` and `or` left out, sums and products exchanged, numbers off by one, ends called by another name.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from job.run.claims import How

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("watch/ends", "watch/refusals", "watch/placing", "watch/spending", "recovery")
TESTS = ("tests/infra/test_recovery.py", "tests/infra/watch/test_ends.py", "tests/infra/watch/test_placing.py")
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
    node: int
    """Of the file's tree, as ast.walk has them."""
    number: int
    """Among what can be done to that node."""
    line: int
    what: str

    def __str__(self) -> str:
        return f"infra/{self.file}.py:{self.line}: {self.what}"


def mutations_of(file: str) -> list[Mutation]:
    """All of a file, in the order of its text."""
    tree = _parsed(file)
    aside = _aside(tree)
    found = [
        Mutation(file, index, number, getattr(node, "lineno", 0), what)
        for index, node in enumerate(ast.walk(tree))
        if node not in aside
        for number, (_, what) in enumerate(_changes(node))
    ]
    return sorted(found, key=lambda one: one.line)


def mutated(mutation: Mutation) -> ast.Module:
    """The module that it makes."""
    tree = _parsed(mutation.file)
    old = next(node for index, node in enumerate(ast.walk(tree)) if index == mutation.node)
    _replace(tree, old, list(_changes(old))[mutation.number][0])
    return ast.fix_missing_locations(tree)


def _parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / "infra" / f"{file}.py").read_text())


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


def _aside(tree: ast.Module) -> set[ast.AST]:
    """What decides nothing: annotations, asserts, and the lengths at which words for people are cut."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=annotation):
                roots.append(annotation)
            case ast.FunctionDef(returns=returns):
                roots.append(returns)
            case ast.Assert() | ast.Slice() | ast.Assign(targets=[ast.Name(id="MOST_WORDS")]):
                roots.append(node)
            case ast.FormattedValue(format_spec=words):
                roots.append(words)
            case ast.ClassDef(decorator_list=decorators):
                roots.extend(decorators)
    return {inner for root in roots if root is not None for inner in ast.walk(root)}


def _replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if one is old else one for one in value]


def missed_of(chosen: Sequence[Mutation], on_missed: Callable[[Mutation], None]) -> int:
    """How many of them nothing notices. Each is tried in a child that is forked once the libraries are loaded."""
    context = multiprocessing.get_context("fork")
    waiting, running, missed = list(chosen), [], 0  # type: list[Mutation], list[tuple[Any, Mutation, float]], int
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            mutation = waiting.pop(0)
            child = context.Process(target=try_one, args=(mutation,))
            child.start()
            running.append((child, mutation, time.monotonic()))
        multiprocessing.connection.wait([child.sentinel for child, _, _ in running], timeout=1.0)
        for entry in list(running):
            child, mutation, began_s = entry
            if child.is_alive() and time.monotonic() - began_s > PATIENCE_S:
                child.kill()  # it never ends: noticed
                child.join()
            if not child.is_alive():
                running.remove(entry)
                if child.exitcode == 0:
                    missed += 1
                    on_missed(mutation)
    return missed


def try_one(mutation: Mutation) -> None:
    """In a child: ends with 1 when the tests or a history notice the mutation."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os._exit(1 if is_noticed(mutation) else 0)


def is_noticed(mutation: Mutation) -> bool:
    """Whether anything notices. No module that decides may have been imported before."""
    path = str(ROOT / "infra" / f"{mutation.file}.py")
    sys.meta_path.insert(0, _Finder(f"infra.{mutation.file.replace('/', '.')}", mutated(mutation), path))
    os.chdir(ROOT)
    if pytest.main(["-q", "-x", "-p", "no:cacheprovider", *TESTS]) != 0:
        return True
    from .histories import History, sequentially
    from .truth import Broken

    try:
        with sequentially():
            for seed in range(HISTORIES):
                History(seed).live()
    except (Broken, Exception):
        return True
    return False


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, name: str, tree: ast.Module, path: str) -> None:
        assert name not in sys.modules, f"{name} was imported before it was mutated"
        self.name, self.code = name, compile(tree, path, "exec")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def mutate(which: str, seed: int) -> int:
    """Prints what is not noticed; 1 when that is too much."""
    everything = [mutation for file in FILES for mutation in mutations_of(file)]
    if ":" in which:
        chosen = [one for one in everything if f"{one.file}:{one.line}" == which]
    elif which in ("all", *FILES):
        chosen = [one for one in everything if which in ("all", one.file)]
    else:
        chosen = random.Random(seed).sample(everything, int(which))
    began_s = time.monotonic()
    missed = missed_of(chosen, lambda mutation: print(f"NOT NOTICED {mutation}", flush=True))
    caught = 1 - missed / len(chosen)
    print(
        f"{len(chosen) - missed} of {len(chosen)} mutations noticed ({caught:.1%}), {time.monotonic() - began_s:.0f} s"
    )
    return 0 if caught >= GOAL else 1
