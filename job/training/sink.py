"""Where the trainer's state goes at every step boundary, and where it comes back from.

The trainer computes and copies; whoever implements `Sink` keeps the copies. Everything is plain: tensors in a slot,
bytes of safetensors files, and dicts that JSON holds without loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from job.arena import Slot, TensorIndex


@dataclass(frozen=True)
class Scored:
    """A generation batch that was generated and scored after a step boundary, before the next one."""

    blob: bytes
    """A safetensors file: `buffer/I/KEY` of every slice I, `rng/cpu`, `rng/cudaN` right after the scoring."""
    meta: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """The trainer's whole state at one step boundary, and what was scored after it."""

    slot_view: memoryview
    """Holds the tensors of `index`. Read once, before the first slot is asked for."""
    index: TensorIndex
    """`model/NAME` (trainable parameters), `optim/NAME/KEY`, `ref/NAME` (a moving reference model), `tr_loss`."""
    extra: bytes
    """A safetensors file: `rng/cpu`, `rng/cudaN`, and `buffer/I/KEY` where a generation batch is still in use."""
    meta: dict[str, Any]
    """`global_step` and everything else that is no tensor."""
    scored: Mapping[int, Scored] = field(default_factory=dict)
    """By micro-step (TRL's `_step`)."""


class Sink(Protocol):
    """Takes the trainer's state. Every call may block; none may be retried."""

    def slot(self) -> Slot:
        """The slot to fill now. Whatever it held is given up."""

    def publish(self, index: TensorIndex, extra: bytes, meta: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """The slot of the last `slot()` holds a complete step boundary.

        `rows` are the log rows since the publish before, each delivered once.
        """

    def publish_scored(self, scored: Mapping[int, Scored]) -> None:
        """All batches scored since the newest boundary, those of earlier calls included."""
