"""Proves that the agent never hands out memory that holds the newest complete snapshot while another is free, nor ever
what is being written, and knows what head does not name yet."""

import random

import pytest

from job.agent.snapshots import ScoredBatch, SlotTable, Snapshot
from job.arena import Slot


def table(slots: int) -> SlotTable:
    return SlotTable([Slot.create(f"test{i}") for i in range(slots)])


def snapshot(slot: int, step: int) -> Snapshot:
    return Snapshot(slot=slot, index={}, extra=b"", meta={"global_step": step}, step=step)


def scored(micro_step: int) -> ScoredBatch:
    return ScoredBatch(micro_step, b"batch", {})


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_a_complete_snapshot_is_always_held_and_what_is_written_stays(slots: int, seed: int) -> None:
    moments, held = random.Random(seed), table(slots)
    step, filling = 0, None
    for _ in range(300):
        action = moments.choice(["fill", "publish", "scored", "write", "written"])
        if action == "fill" and filling is None:
            filling = held.slot_to_fill()
            assert held.writing is None or held.writing.slot != filling
            if slots == 3:
                assert held.newest is None or held.newest.slot != filling
        elif action == "publish" and filling is not None:
            step += 1
            held.publish(snapshot(filling, step))
            filling = None
        elif action == "scored" and held.newest is not None:
            held.publish_scored((*held.newest.scored, scored(len(held.newest.scored))))
        elif action == "write" and held.writing is None:
            work = held.begin_writing()
            assert (work is None) == (held.newest is None or held.newest.is_durable())
        elif action == "written" and held.writing is not None:
            held.writing.durable = held.writing.scored
            held.end_writing()
        if step > 0:
            assert held.newest is not None, "a snapshot is held from the first boundary on"


def test_with_three_slots_the_newest_is_the_last_that_was_published() -> None:
    held = table(3)
    for step in range(1, 10):
        held.publish(snapshot(held.slot_to_fill(), step))
        assert held.newest is not None
        assert held.newest.step == step


def test_a_scored_batch_makes_a_durable_snapshot_worth_writing_again() -> None:
    held = table(3)
    held.publish(snapshot(held.slot_to_fill(), 1))
    work = held.begin_writing()
    assert work is not None
    work[0].durable = work[1]
    held.end_writing()
    assert held.begin_writing() is None
    held.publish_scored((scored(4),))
    again = held.begin_writing()
    assert again is not None
    assert again[1] == (scored(4),)


def test_a_folder_that_was_written_but_never_named_by_head_is_not_durable() -> None:
    held = table(3)
    held.publish(snapshot(held.slot_to_fill(), 1))
    assert held.newest is not None
    assert not held.newest.is_durable(), "no scored batches is not the same as nothing to name"
