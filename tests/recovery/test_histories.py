"""Whatever a watchdog is told, and wherever it dies: never two owners, no healthy VM given up for a failed look, no
superfluous VM beyond one boot, the cap holds, final states are final, and nothing is left at the end.

By hand, as many as there is time for: python -m tests.recovery --histories 20000
"""

import os
import random

from .histories import History, sequentially

COUNT = 250
SEED = int(os.environ.get("HISTORIES_SEED", random.randrange(10**9)))


def test_no_history_by_chance_breaks_a_law() -> None:
    ends = 0
    with sequentially():
        for seed in range(SEED, SEED + COUNT):
            ends += len(History(seed).live().dead)  # Broken tells the story; python -m tests.recovery --seed N again
    assert ends > COUNT


def test_a_seed_is_lived_again_event_by_event() -> None:
    with sequentially():
        for seed in range(5):
            assert History(seed).live().truth.story == History(seed).live().truth.story
