"""One mutation under test, in this process: exit 1 when something notices it.

python -m tests.recovery.mutant FILE NUMBER
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

import pytest


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, name: str, tree: ast.Module, path: str) -> None:
        self.name, self.code = name, compile(tree, path, "exec")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def main(file: str, number: int) -> int:
    """1: noticed. 0: not."""
    from tests.recovery.mutations import HISTORIES, ROOT, TESTS, mutated

    tree = next(tree for mutation, tree in mutated(file) if mutation.number == number)
    sys.meta_path.insert(0, _Finder(f"infra.{file}", tree, str(ROOT / "infra" / f"{file}.py")))
    if pytest.main(["-q", "-x", "-p", "no:cacheprovider", *TESTS]) != 0:
        return 1
    from tests.recovery.histories import History, sequentially
    from tests.recovery.truth import Broken

    try:
        with sequentially():
            for seed in range(HISTORIES):
                History(seed).live()
    except Broken as broken:
        print(str(broken).splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
