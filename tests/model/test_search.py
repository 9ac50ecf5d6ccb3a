"""One owner, no lost checkpoint, no wrong bytes: whatever two writers do at once, wherever one of them dies, and
whatever goes wrong with a call in between. The code that runs is that of job/run, job/checkpoint and job/agent."""

import pytest

from .proof import CI, LONG, search_all


def test_no_order_of_calls_with_a_crash_and_a_fault_anywhere_breaks_a_law() -> None:
    found = search_all(CI, print)
    print(f"all: {found}")
    assert found.states > 1_000_000


@pytest.mark.long
def test_nor_do_three_operations_with_a_fault() -> None:
    print(search_all(LONG, print))
