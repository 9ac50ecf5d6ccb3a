"""The trainer's state to and from the agent: slots of shared memory, and messages that say what is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from job.arena import Channel, Message, Slot, TensorIndex, index_from_json, index_to_json
from job.training.sink import Scored, Snapshot


class ChannelSink:
    """A `Sink` whose snapshots the agent holds. Raises ChannelClosed when the agent is gone."""

    def __init__(self, channel: Channel, slots: Sequence[Slot]) -> None:
        self._channel, self._slots = channel, slots
        self._filling = 0
        self._told: TensorIndex | None = None

    def slot(self) -> Slot:
        """The slot that the agent named after the last snapshot; asks for one, and waits, where it named none."""
        reply = self._channel.receive_at_once()
        if reply is None:
            self._channel.send("slot")
            reply = self._channel.receive()
        assert reply.op == "slot", reply.op
        self._filling = reply.fields["id"]
        return self._slots[self._filling]

    def publish(self, index: TensorIndex, extra: bytes, meta: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Says that the slot is complete, and where its tensors lie unless that is as before; does not wait."""
        layout = {} if index is self._told else {"index": index_to_json(index)}
        self._told = index
        self._channel.send("publish", extra, slot=self._filling, meta=meta, rows=rows, **layout)

    def publish_scored(self, scored: Mapping[int, Scored]) -> None:
        """Sends all batches scored since the boundary; does not wait."""
        parts = [{"micro_step": n, "bytes": len(s.blob), "meta": s.meta} for n, s in scored.items()]
        self._channel.send("scored", b"".join(s.blob for s in scored.values()), scored=parts)


def snapshot_from(start: Message, slots: Sequence[Slot]) -> Snapshot | None:
    """What the agent's `start` tells the trainer to go on from; None: from the beginning."""
    fields = start.fields
    if "slot" not in fields:
        return None
    index = index_from_json(fields["index"])
    at = fields["extra_bytes"]
    scored = {}
    for part in fields["scored"]:
        scored[part["micro_step"]] = Scored(start.blob[at : at + part["bytes"]], part["meta"])
        at += part["bytes"]
    return Snapshot(
        slot_view=slots[fields["slot"]].view(max(t.offset + t.size_bytes for t in index.values())),
        index=index,
        extra=start.blob[: fields["extra_bytes"]],
        meta=fields["meta"],
        scored=scored,
    )
