"""Live objects become plain data and come back the same, through the bytes in which they are kept."""

import json
import math
import random
from collections import defaultdict, deque
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from job.arena import Slot, TensorIndex, parse_safetensors_header, safetensors_header
from job.errors import UsageError
from job.training.slots import SlotWriter, slot_tensors
from job.training.state import (
    callback_states,
    get_rng,
    pack,
    refill_window,
    restore_callbacks,
    set_rng,
    unpack,
    window_to_plain,
)


def through_files(tensors: dict[str, torch.Tensor], plain: Any) -> tuple[dict[str, torch.Tensor], Any]:
    return safetensors.torch.load(safetensors.torch.save(tensors)), json.loads(json.dumps(plain))


def draw() -> list[float]:
    return [random.gauss(0, 1), random.random(), float(np.random.randn()), float(torch.randn(()))]


def test_every_generator_goes_on_where_it_was_also_between_two_numbers_of_a_pair() -> None:
    draw()  # gauss and randn make two numbers at once and keep the second
    tensors, plain = get_rng()
    expected = draw()
    draw()
    set_rng(*through_files(tensors, plain))
    assert draw() == expected


def test_a_checkpoint_from_a_machine_with_another_number_of_gpus_is_refused() -> None:
    tensors, plain = get_rng()
    extra = {f"rng/cuda{i}": torch.zeros(16, dtype=torch.uint8) for i in range(torch.cuda.device_count() + 1)}
    with pytest.raises(UsageError, match="GPUs"):
        set_rng({**tensors, **extra}, plain)


def test_slices_of_one_batch_are_kept_apart_and_keep_what_is_no_tensor() -> None:
    whole = torch.arange(12.0).reshape(4, 3)
    count = torch.tensor(7)
    batches = [{"ids": whole[:2], "n": count, "name": None, "images": [1, 2]}, {"ids": whole[2:], "n": count}]
    tensors, plain = pack(batches)
    whole.zero_()
    back = unpack(*through_files(tensors, plain), "cpu")
    assert [list(b) for b in back] == [["ids", "n", "name", "images"], ["ids", "n"]]
    assert back[0]["ids"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back[1]["ids"].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert back[1]["n"].shape == ()
    assert (back[0]["name"], back[0]["images"]) == (None, [1, 2])


def test_a_logging_window_keeps_order_limits_and_every_float() -> None:
    values = [0.1 + 0.2, math.nan, math.inf, -0.0, 5e-324]
    window = {"z": defaultdict(list, b=values, a=[1]), "texts": deque(["x", "y"], maxlen=2)}
    plain = json.loads(json.dumps(window_to_plain(window)))
    live: dict[str, Any] = {
        "texts": deque(["old"], maxlen=2),
        "z": defaultdict(list, a=[5], gone=[6]),
    }
    refill_window(live, plain)
    assert list(live) == ["z", "texts"]
    assert list(live["z"]) == ["b", "a"]
    assert repr(live["z"]["b"]) == repr(values)
    live["texts"].append("new")
    assert list(live["texts"]) == ["y", "new"]
    live["z"]["fresh"].append(1)


def test_callbacks_get_their_attributes_back_by_place() -> None:
    before: list[TrainerCallback] = [EarlyStoppingCallback(), TrainerCallback(), EarlyStoppingCallback()]
    before[0].early_stopping_patience_counter, before[2].early_stopping_patience_counter = 3, 4
    states = json.loads(json.dumps(callback_states(before)))
    after = [EarlyStoppingCallback(), EarlyStoppingCallback()]
    restore_callbacks(after, states)
    assert [callback.early_stopping_patience_counter for callback in after] == [3, 4]
    with pytest.raises(UsageError, match="EarlyStoppingCallback"):
        restore_callbacks(after[:1], states)


TENSORS = {
    "odd": torch.tensor([1.5], dtype=torch.bfloat16),
    "matrix": torch.randn(3, 5),
    "scalar": torch.tensor(2.0),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False, True]),
    "whole": torch.arange(3),
    "double": torch.tensor([0.1], dtype=torch.float64),
}


def same(index: TensorIndex, memory: memoryview, expected: dict[str, torch.Tensor]) -> bool:
    found = slot_tensors(memory, index)
    return list(found) == list(expected) and all(
        found[n].dtype == t.dtype and found[n].shape == t.shape and torch.equal(found[n], t)
        for n, t in expected.items()
    )


def test_a_slot_holds_every_kind_of_tensor_and_a_file_of_it_reads_the_same() -> None:
    slot, writer = Slot.create("test"), SlotWriter()
    index = writer.copy(TENSORS.items(), slot)
    memory = slot.view(max(t.offset + t.size_bytes for t in index.values()))
    assert same(index, memory, TENSORS)
    file = safetensors_header(index) + b"".join(memory[t.offset : t.offset + t.size_bytes] for t in index.values())
    assert same(parse_safetensors_header(file), memoryview(bytearray(file)), TENSORS)


def test_a_slot_is_laid_out_anew_when_there_are_more_tensors() -> None:
    slots, writer = [Slot.create("a"), Slot.create("b")], SlotWriter()
    few, many = {"x": torch.ones(2)}, {"x": torch.ones(2), "y": torch.full((5000,), 3.0)}
    first = writer.copy(few.items(), slots[0])
    for slot in slots:
        index = writer.copy(many.items(), slot)
        assert same(index, slot.view(30000), many)
    assert writer.copy(few.items(), slots[1]) == first


def test_tensors_in_a_slot_are_places_and_not_copies() -> None:
    slot, writer = Slot.create("test"), SlotWriter()
    value = torch.zeros(4)
    index = writer.copy([("x", value)], slot)
    place = slot_tensors(slot.view(16), index)["x"]
    value += 1
    assert place.sum() == 0
    writer.copy([("x", value)], slot)
    assert place.sum() == 4
