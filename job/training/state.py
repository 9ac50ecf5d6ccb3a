"""Live objects of a training process as plain data, and back: random generators, generation batches, logging windows.

Tensors go into safetensors, everything else into JSON. Nothing is pickled. Python writes a float so that the same
float comes back, NaN and infinities included.
"""

import random
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers.trainer_callback import ExportableState, TrainerCallback

from job.errors import UsageError

WORD = "I"  # array's name of a 32-bit word, in which Python and NumPy keep the state of their generators

Batch = Mapping[str, Any]
"""One slice of a generation batch: tensors and JSON values by TRL's names."""


def get_rng() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of every generator of this process, as tensors of bytes: `rng/cpu`, `rng/cudaN`, `rng/python` and
    `rng/numpy` (their words); what else Python's and NumPy's hold as JSON.
    """
    version, words, gauss = random.getstate()
    state = np.random.get_state(legacy=True)
    assert isinstance(state, tuple)
    kind, keys, position, has_gauss, cached = state
    tensors = {
        "rng/cpu": torch.get_rng_state(),
        "rng/python": torch.frombuffer(array(WORD, words), dtype=torch.uint8),
        "rng/numpy": torch.from_numpy(keys.view(np.uint8)),
    }
    if torch.cuda.is_available():
        tensors |= {f"rng/cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, {"python": [version, gauss], "numpy": [kind, position, has_gauss, cached]}


def set_rng(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
    """Puts every generator back. Raises UsageError when the state was taken with another number of GPUs."""
    version, gauss = plain["python"]
    random.setstate((version, tuple(array(WORD, tensors["rng/python"].numpy().tobytes())), gauss))
    kind, position, has_gauss, cached = plain["numpy"]
    keys = tensors["rng/numpy"].numpy().view(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))
    torch.set_rng_state(tensors["rng/cpu"])
    saved = sum(name.startswith("rng/cuda") for name in tensors)
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if saved != here:
        raise UsageError(
            f"The checkpoint was made with {saved} GPUs, this machine has {here}.",
            fix="Resume on a machine with as many.",
        )
    if here:
        torch.cuda.set_rng_state_all([tensors[f"rng/cuda{i}"] for i in range(here)])


def pack(batches: Sequence[Batch]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Slices of a generation batch as tensors `buffer/I/KEY` and the rest as JSON, in TRL's order of keys.

    Cloned: TRL's slices are views of one another, which safetensors refuses.
    """
    tensors = {
        f"buffer/{i}/{key}": value.detach().to("cpu", copy=True).contiguous()
        for i, batch in enumerate(batches)
        for key, value in batch.items()
        if torch.is_tensor(value)
    }
    plain = [{k: None if torch.is_tensor(v) else v for k, v in batch.items()} for batch in batches]
    return tensors, plain


def unpack(
    tensors: Mapping[str, torch.Tensor], plain: Sequence[Batch], device: torch.device | str
) -> list[dict[str, Any]]:
    """The inverse of `pack`, on `device`."""
    return [
        {
            key: tensors[name].to(device) if (name := f"buffer/{i}/{key}") in tensors else value
            for key, value in batch.items()
        }
        for i, batch in enumerate(plain)
    ]


def window_to_plain(window: Any) -> Any:
    """A logging window (dicts of lists and deques, nested) as dicts of lists. Keys keep their order."""
    if isinstance(window, Mapping):
        return {key: window_to_plain(value) for key, value in window.items()}
    return list(window)


def refill_window(window: Any, plain: Mapping[str, Any]) -> None:
    """Makes the live `window` hold what `plain` does, in its order; deques keep their length limit."""
    kept = dict(window)
    window.clear()
    for key, values in plain.items():
        live = kept[key] if key in kept else window.default_factory()
        if isinstance(values, Mapping):
            refill_window(live, values)
        else:
            live.clear()
            live.extend(values)
        window[key] = live


def callback_states(callbacks: Iterable[TrainerCallback]) -> list[list[Any]]:
    """Name and attributes of every callback that exports a state, in order."""
    return [
        [type(callback).__name__, callback.state()["attributes"]]
        for callback in callbacks
        if isinstance(callback, ExportableState)
    ]


def restore_callbacks(callbacks: Iterable[TrainerCallback], states: Sequence[Sequence[Any]]) -> None:
    """Gives the callbacks their attributes back. Raises UsageError when they are not those that were saved."""
    live = [callback for callback in callbacks if isinstance(callback, ExportableState)]
    names, saved = [type(callback).__name__ for callback in live], [name for name, _ in states]
    if names != saved:
        raise UsageError(f"The checkpoint was made with the callbacks {saved}; now they are {names}.")
    for callback, (_, attributes) in zip(live, states, strict=True):
        for name, value in attributes.items():
            setattr(callback, name, value)
