"""Proves, on a sample of what soak.py does for hours, that random kills end with the weights of an untouched run."""

import random

import pytest
from attempts import random_moments

from tests.story.soak import soaking


@pytest.mark.long
@pytest.mark.parametrize(("gs", "kills"), [(False, 10), (True, 20)], ids=["file", "gs"])
def test_random_kills_change_nothing(gs: bool, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "")  # put back afterwards
    draw = random.Random(random_moments().random())
    with soaking(kills, draw, gs=gs, parallel=1) as tally:
        print(tally)
    assert tally.total() >= kills
    assert tally.differences == []
