"""Tensors into a slot of shared memory, and back out of one."""

from collections.abc import Iterable

import torch

from job.arena import SAFETENSORS_DTYPES, Slot, TensorIndex, layout

_TORCH_DTYPES = {short: getattr(torch, name) for name, short in SAFETENSORS_DTYPES.items()}


class SlotWriter:
    """Copies named tensors into slot after slot.

    Memory is laid out when their names, dtypes or shapes change (the optimizer's state appears at the first step);
    every other copy allocates nothing.
    """

    def __init__(self) -> None:
        self._key: list[tuple[str, torch.dtype, torch.Size]] = []
        self._index: TensorIndex = {}
        self._size_bytes = 0
        self._views: dict[int, list[torch.Tensor]] = {}
        """By the slot's file descriptor: the places of the tensors in it."""

    def copy(self, tensors: Iterable[tuple[str, torch.Tensor]], slot: Slot) -> TensorIndex:
        """Fills `slot`; returns where each tensor lies."""
        named = list(tensors)
        key = [(name, tensor.dtype, tensor.shape) for name, tensor in named]
        if key != self._key:
            sizes = {
                name: (str(t.dtype).removeprefix("torch."), tuple(t.shape), t.numel() * t.element_size())
                for name, t in named
            }
            self._index, self._size_bytes = layout(
                {n: (SAFETENSORS_DTYPES[dtype], shape, size) for n, (dtype, shape, size) in sizes.items()}
            )
            self._key, self._views = key, {}
        if slot.fd not in self._views:
            self._views[slot.fd] = list(slot_tensors(slot.view(self._size_bytes), self._index).values())
        with torch.no_grad():
            torch._foreach_copy_(self._views[slot.fd], [tensor for _, tensor in named])  # half the time of a loop
        return self._index


def slot_tensors(memory: memoryview, index: TensorIndex) -> dict[str, torch.Tensor]:
    """The tensors of `index` as views of `memory`: they change when it does.

    Copies where a tensor is not aligned to its element size, as happens in a safetensors file.
    """
    if not index:
        return {}
    flat = torch.frombuffer(memory, dtype=torch.uint8)
    tensors = {}
    for name, t in index.items():
        dtype = _TORCH_DTYPES[t.dtype]
        raw = flat[t.offset : t.offset + t.size_bytes]
        aligned = raw if t.offset % dtype.itemsize == 0 else raw.clone()
        tensors[name] = aligned.view(dtype).view(t.shape)
    return tensors
