"""Proves which slot a trainer fills: never one that is needed, named before it asks where there are three, once each.

The agent's end is the real one; the trainer's end is the real sink, which fills slots with their step's number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import pytest

from job.agent.snapshots import SlotTable, Snapshot
from job.agent.trainer import Trainer, TrainerOrder
from job.arena import Channel, Slot, TensorIndex, TensorSpec
from job.training.channel_sink import ChannelSink

INDEX: TensorIndex = {"w": TensorSpec("U8", (1,), 0, 1)}
GROWN: TensorIndex = {**INDEX, "v": TensorSpec("U8", (1,), 64, 1)}


class Both:
    """Agent and trainer in one thread: the agent hears only when it is told to."""

    failure = None

    def __init__(self, slots: int) -> None:
        ours, self.trainers = Channel.pair()
        self.ours = ours
        self.table = SlotTable([Slot.create(f"slot{i}") for i in range(slots)])
        self.sink = ChannelSink(self.trainers, self.table.slots)
        order = TrainerOrder(settings={}, files={}, names={}, model={}, result_dir="")
        loop = SimpleNamespace(listen=lambda fd, handler: None)
        self.agent = Trainer(loop, self, self.table, order, lambda phase: None, lambda rows: None)  # type: ignore[arg-type]
        assert self.trainers.receive().op == "check"

    @classmethod
    @contextmanager
    def of(cls, slots: int) -> Iterator[Self]:
        """With that many slots."""
        both = cls(slots)
        try:
            yield both
        finally:
            both.ours.close()
            both.trainers.close()

    def request_trainer(self, trainer: Trainer) -> Channel:
        """As the spawner does."""
        return self.ours

    def agent_hears(self) -> list[str]:
        """What the agent was told since."""
        told: list[str] = []
        for message in self.ours.receive_ready():
            told.append(message.op)
            self.agent._handle(message)
        return told

    def asks(self) -> None:
        """The trainer's request, with the agent's answer already on its way: in one thread nobody could wait."""
        self.trainers.send("slot")
        self.agent_hears()

    def publish(self, slot: Slot, step: int, index: TensorIndex = INDEX) -> None:
        slot.view(1)[0] = step
        self.sink.publish(index, b"", {"global_step": step}, [])

    def value(self, snapshot: Snapshot | None) -> int:
        assert snapshot is not None
        return self.table.slots[snapshot.slot].view(1)[0]


def test_with_three_slots_the_next_is_named_before_the_trainer_asks() -> None:
    with Both.of(3) as both:
        both.asks()
        for step in range(5):
            both.publish(both.sink.slot(), step)
            assert both.agent_hears() == ["publish"]


def test_a_request_that_crosses_the_agents_word_is_answered_once() -> None:
    with Both.of(3) as both:
        both.asks()
        both.publish(both.sink.slot(), 1)
        both.trainers.send("slot")  # before the agent has read of the snapshot
        assert both.agent_hears() == ["publish", "slot"]
        both.publish(both.sink.slot(), 2)
        assert both.trainers.receive_at_once() is None
        both.agent_hears()
        assert both.value(both.table.newest) == 2


def test_with_two_slots_the_newest_is_given_up_only_when_the_trainer_asks() -> None:
    with Both.of(2) as both:
        both.asks()
        both.publish(both.sink.slot(), 1)
        both.agent_hears()
        both.table.begin_writing()
        assert both.trainers.receive_at_once() is None
        both.asks()
        both.publish(both.sink.slot(), 2)
        both.agent_hears()
        assert (both.value(both.table.newest), both.value(both.table.writing)) == (2, 1)
        both.asks()
        assert both.table.newest is both.table.writing  # a trainer killed from here on leaves step 1


@pytest.mark.parametrize("slots", [2, 3])
def test_neither_the_newest_snapshot_nor_the_one_being_written_is_ever_filled(slots: int) -> None:
    with Both.of(slots) as both:
        written: list[int] = []
        for step in range(60):
            if step == 0 or slots == 2:
                both.asks()
            slot = both.sink.slot()
            slot.view(1)[0] = 255  # a copy that is under way
            for snapshot in (both.table.newest, both.table.writing):
                assert snapshot is None or both.value(snapshot) == snapshot.step
            both.publish(slot, step)
            both.agent_hears()
            if step % 3 == 0:
                both.table.begin_writing()
            elif step % 3 == 2:
                written.append(both.value(both.table.writing))
                both.table.end_writing()
        assert written == list(range(0, 60, 3))


def test_where_the_tensors_lie_is_said_when_it_changes_and_known_for_every_snapshot() -> None:
    with Both.of(3) as both:
        seen: list[Any] = []
        both.asks()
        for step, index in enumerate([INDEX, INDEX, GROWN, GROWN]):
            both.publish(both.sink.slot(), step, index)
            message = next(iter(both.ours.receive_ready()))
            seen.append("index" in message.fields)
            both.agent._handle(message)
            assert both.table.newest is not None
            assert both.table.newest.index == index
        assert seen == [True, False, True, False]
