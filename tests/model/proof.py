"""What is searched, in CI and by hand, and whether a search notices that a guard is missing."""

import gc
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .bucket import Bucket
from .mutations import MUTATIONS
from .roots import ROOTS
from .search import Broken, Model, Search
from .stepping import deterministic


class Plan(NamedTuple):
    """How far to search from one root."""

    root: str
    operations: int
    crashes: int
    faults: int

    def __str__(self) -> str:
        return f"{self.root}: {self.operations} operations, {self.crashes} crashes, {self.faults} faults"


class Found(NamedTuple):
    """How much a search has looked at."""

    states: int
    moves: int
    histories: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.states:,} states, {self.moves:,} steps, {self.histories:.1e} histories, {self.seconds:.1f} s"


CI = (
    *(Plan(root, 2, 1, 1) for root in ROOTS if root != "scored"),
    Plan("scored", 1, 1, 1),
    Plan("scored", 2, 1, 0),
    *(Plan(root, 3, 1, 0) for root in ROOTS if root not in ("damaged", "scored")),
)
"""40 s on one core of an AMD EPYC."""
FULL = tuple(Plan(root, 3, crashes, 1 - crashes) for root in ROOTS for crashes in (1, 0))
"""Ten minutes or so, and 4 GB; by hand."""
LONG = tuple(plan for plan in FULL if plan.root in ("empty", "left_over", "spoilt") and plan.faults)
"""A minute or so."""
SMALL = (*(Plan(root, 1, 1, 1) for root in ROOTS), *(Plan(root, 2, 1, 1) for root in ROOTS), *CI)
"""For what is found soon."""


def search(plan: Plan) -> Found:
    """Visits everything that the plan reaches. Raises Broken."""
    Bucket.known.clear()
    began_s, recursion = time.process_time(), sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    gc.disable()  # millions of small objects, none of them garbage: looking them through takes a third of the time
    try:
        with deterministic():
            model = Model()
            found = Search(model)
            state = ROOTS[plan.root](model)
            histories = found.explore(
                state._replace(operations=plan.operations, crashes=plan.crashes, faults=plan.faults)
            )
            return Found(len(found.histories), found.moves, histories, time.process_time() - began_s)
    except Broken as broken:
        broken.path.append(f"{plan}:")
        raise
    finally:
        Bucket.known.clear()
        sys.setrecursionlimit(recursion)
        gc.enable()
        gc.collect()


def search_all(plans: Iterable[Plan], say: Callable[[str], None]) -> Found:
    """Searches one plan after another. Raises Broken."""
    total = Found(0, 0, 0, 0.0)
    for plan in plans:
        found = search(plan)
        say(f"{plan}: {found}")
        total = Found(*(a + b for a, b in zip(total, found, strict=True)))
    return total


def caught(name: str) -> Broken | None:
    """What a search finds with that guard taken out; None when it does not notice."""
    with MUTATIONS[name]():
        for plan in dict.fromkeys(SMALL):
            try:
                search(plan)
            except Broken as broken:
                return broken
    return None
