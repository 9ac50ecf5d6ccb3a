"""The search would notice: with a guard of the production code taken out it finds the law that this breaks.

By hand for all of them: python -m tests.model --mutate all
"""

import os
import random

import pytest

from .mutations import MUTATIONS
from .proof import caught

SEED = int(os.environ.get("MUTATION_SEED", random.randrange(1_000_000)))


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_guard_is_noticed(number: int) -> None:
    """Two of them, drawn by a seed that a failure shows."""
    name = random.Random(SEED).sample(sorted(MUTATIONS), 2)[number]
    broken = caught(name)
    assert broken is not None, f"{name} was not noticed (MUTATION_SEED={SEED})"
    print(f"MUTATION_SEED={SEED}", name, broken.story(), sep="\n")
