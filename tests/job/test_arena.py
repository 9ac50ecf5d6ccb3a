"""Proves what trainer and agent rely on between them: slots survive their writer, messages arrive whole or not at all,
and what is laid out here is a safetensors file to those who did not write it."""

import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from job.arena import (
    ALIGNMENT_BYTES,
    Channel,
    ChannelClosed,
    Slot,
    TensorSpec,
    index_from_json,
    index_to_json,
    layout,
    parse_safetensors_header,
    safetensors_header,
)

torch = pytest.importorskip("torch")


def test_a_slot_keeps_what_a_killed_child_wrote() -> None:
    slot = Slot.create("test")
    pid = os.fork()
    if pid == 0:
        slot.view(5)[:] = b"state"
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert bytes(slot.view(5)) == b"state"


def test_a_slot_is_for_forked_children_and_not_for_programs_that_they_start() -> None:
    assert not os.get_inheritable(Slot.create("test").fd)


def test_a_slot_grows_and_older_views_stay_valid() -> None:
    slot = Slot.create("test")
    small = slot.view(4)
    small[:] = b"abcd"
    large = slot.view(1 << 20)
    assert bytes(large[:4]) == b"abcd"
    small[:1] = b"X"
    assert bytes(large[:4]) == b"Xbcd"


def test_an_empty_slot_has_an_empty_view() -> None:
    assert len(Slot.create("test").view(0)) == 0


def test_a_layout_is_aligned_and_does_not_overlap() -> None:
    index, size_bytes = layout({"a": ("F32", (3,), 12), "b": ("U8", (1,), 1), "c": ("I64", (), 8)})
    at = 0
    for spec in index.values():
        assert spec.offset >= at
        assert spec.offset % ALIGNMENT_BYTES == 0
        at = spec.offset + spec.size_bytes
    assert size_bytes == at


def test_an_index_survives_json() -> None:
    index = {"a": TensorSpec("BF16", (2, 3), 64, 12), "scalar": TensorSpec("F32", (), 128, 4)}
    assert index_from_json(index_to_json(index)) == index


def test_header_and_tensors_are_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "w": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        "step": torch.tensor(3.0),
        "ids": torch.tensor([1, 2, 3], dtype=torch.int64),
    }
    dtypes = {"w": "BF16", "step": "F32", "ids": "I64"}
    index, size_bytes = layout(
        {n: (dtypes[n], tuple(t.shape), t.numel() * t.element_size()) for n, t in tensors.items()}
    )
    memory = Slot.create("test").view(size_bytes)
    for name, tensor in tensors.items():
        spec = index[name]
        raw = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        memory[spec.offset : spec.offset + spec.size_bytes] = raw
    parts = [memory[s.offset : s.offset + s.size_bytes] for s in index.values()]
    (tmp_path / "file").write_bytes(safetensors_header(index) + b"".join(parts))
    read = load_file(tmp_path / "file")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)


def test_a_file_that_safetensors_wrote_is_parsed() -> None:
    tensors = {"a": torch.arange(4, dtype=torch.float32), "b": torch.ones(2, 2, dtype=torch.int64)}
    data = save(tensors, metadata={"format": "pt"})
    index = parse_safetensors_header(data)
    found = {name: (spec.dtype, spec.shape) for name, spec in index.items()}
    assert found == {"a": ("F32", (4,)), "b": ("I64", (2, 2))}
    for name, spec in index.items():
        assert data[spec.offset : spec.offset + spec.size_bytes] == tensors[name].numpy().tobytes()


@pytest.mark.parametrize("data", [b"", b"1234567", (1 << 40).to_bytes(8, "little") + b"{}"])
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="safetensors"):
        parse_safetensors_header(data)


def test_a_tensor_outside_the_file_is_refused() -> None:
    header = safetensors_header({"a": TensorSpec("F32", (4,), 0, 16)})
    with pytest.raises(ValueError, match="outside"):
        parse_safetensors_header(header + b"short")


def test_messages_arrive_in_order_with_fields_and_bytes() -> None:
    one, other = Channel.pair()
    one.send("first", b"\0" * 100_000, number=1.5, text="é")
    one.send("second")
    first, second = other.receive(), other.receive()
    assert (first.op, first.fields, first.blob) == ("first", {"number": 1.5, "text": "é"}, b"\0" * 100_000)
    assert (second.op, second.fields, second.blob) == ("second", {}, b"")


def test_a_torn_message_is_dropped() -> None:
    one, other = Channel.pair()
    one.send("whole")
    one.sock.sendall(b"\x40\0\0\0\0\0\0\0\0\0\0\0{half")
    one.close()
    assert other.receive().op == "whole"
    with pytest.raises(ChannelClosed):
        other.receive()


def test_sending_to_somebody_who_is_gone_is_told() -> None:
    one, other = Channel.pair()
    other.close()
    with pytest.raises(ChannelClosed):
        one.send("hello")
