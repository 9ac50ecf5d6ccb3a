"""Longer histories by chance, each the same for the same seed."""

from .histories import Histories
from .stepping import deterministic

FIRST_SEED = 0
COUNT = 2000


def test_no_history_by_chance_breaks_a_law() -> None:
    with deterministic():
        histories = Histories()
        for seed in range(FIRST_SEED, FIRST_SEED + COUNT):
            histories.live(seed)  # Broken tells the story; python -m tests.model --seed N tells it again
    assert histories.calls > 20 * COUNT


def test_a_seed_is_lived_again_call_by_call() -> None:
    with deterministic():
        once = [Histories().live(seed) for seed in range(20)]
        together = Histories()
        assert [together.live(seed) for seed in range(20)] == once
