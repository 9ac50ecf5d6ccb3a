"""One trainer process, as the agent sees it: its messages, its end, how to start and to kill it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from job.agent.loop import Loop
from job.agent.snapshots import ScoredBatch, SlotTable, Snapshot
from job.agent.spawner import Spawner, describe_exit
from job.arena import Channel, ChannelClosed, Message, TensorIndex, index_from_json, index_to_json
from job.errors import BatonError, ExitCode, error_for


@dataclass(frozen=True)
class TrainerOrder:
    """What every trainer of an attempt is told first."""

    settings: dict[str, Any]
    files: dict[str, str]
    """The pinned copies of the user's files, by the setting that names them."""
    names: dict[str, str]
    """What the user calls each of these copies, by its path: for messages."""
    model: dict[str, Any]
    """The pinned model (job.run.model_source.ModelSource)."""
    result_dir: str
    hub_token: str | None = field(default=None, repr=False)
    """HF_TOKEN of the trainer's environment: of no other process's."""


class Trainer:
    """Drives one trainer: `check`, `start`, then whatever it publishes goes into the slot table."""

    def __init__(
        self,
        loop: Loop,
        spawner: Spawner,
        table: SlotTable,
        order: TrainerOrder,
        on_phase: Callable[[str], None],
        on_rows: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        self.checked: dict[str, Any] | None = None
        self.ready: dict[str, Any] | None = None
        """Set when the model is built: max_steps, parameter counts."""
        self.finished: dict[str, Any] | None = None
        self.failure: BatonError | None = None
        """What the trainer itself said before it ended."""
        self.ended: str | None = None
        """How the process ended, in words; None while it lives."""
        self.last_progress_s = time.monotonic()
        self._loop, self._spawner, self._table = loop, spawner, table
        self._on_phase, self._on_rows = on_phase, on_rows
        self._names = order.names
        self._pid: int | None = None
        self._killed = False
        self._index: TensorIndex = {}
        self._granted = False
        """It has been told the slot for its next snapshot."""
        self._channel: Channel | None = spawner.request_trainer(self)
        loop.listen(self._channel.fileno(), self._receive)
        self._send(
            "check",
            settings=order.settings,
            files=order.files,
            model=order.model,
            result_dir=order.result_dir,
            hub_token=order.hub_token,
        )

    def start(self, snapshot: Snapshot | None) -> None:
        """Asks it to train on, from `snapshot` or from the beginning. Blocks until it reads: not for a main thread."""
        if snapshot is None:
            self._send("start")
            return
        self._send(
            "start",
            b"".join([snapshot.extra, *(batch.blob for batch in snapshot.scored)]),
            slot=snapshot.slot,
            index=index_to_json(snapshot.index),
            meta=snapshot.meta,
            extra_bytes=len(snapshot.extra),
            scored=[{"micro_step": b.micro_step, "bytes": len(b.blob), "meta": b.meta} for b in snapshot.scored],
        )

    def is_lost(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.failure is not None or self.ended is not None or self._spawner.failure is not None

    def why_lost(self) -> BatonError:
        """The reason, in the words of whoever knows best."""
        return (
            self.failure
            or self._spawner.failure
            or BatonError(f"the trainer ended by itself: {self.ended}.", fix="What it printed stands above.")
        )

    def is_replaceable(self) -> bool:
        """Whether it is lost in a way in which another one need not be: it crashed or hangs."""
        return self.is_lost() and self._spawner.failure is None and self.why_lost().exit_code == ExitCode.BUG

    def worker(self) -> int | None:
        """Pid of the process that works on it: its own, until it is forked the spawner's, which imports."""
        return self._spawner.pid if self._pid is None and self.ended is None else self._pid

    def is_forked(self) -> bool:
        """Whether its own process exists, or has."""
        return self._pid is not None or self.ended is not None

    def forked(self, pid: int) -> None:
        """The spawner's word that it runs."""
        self._pid = pid
        if self._killed:
            self.kill()

    def has_ended(self, exit_code: int) -> None:
        """The spawner's word that it is gone: what it still sent is read first."""
        self._drain()
        self._pid = None
        self.ended = describe_exit(exit_code)

    def kill(self) -> None:
        """Kills it wherever it is, also when it has yet to be forked. What it had published by then counts."""
        self._killed = True
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Makes it print where every thread is; works while C code holds the GIL."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGUSR1)

    def _send(self, op: str, blob: bytes = b"", /, **fields: Any) -> None:
        if self._channel is not None:
            with contextlib.suppress(ChannelClosed):  # its end is told by the spawner
                self._channel.send(op, blob, **fields)

    def _receive(self) -> None:
        if self._channel is None:
            return
        try:
            for message in self._channel.receive_ready():
                self._handle(message)
        except ChannelClosed:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _drain(self) -> None:
        """Reads what a dead trainer left. Not to the end of file: a process that it started may hold the other end."""
        if self._channel is not None:
            self._channel.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._channel is not None:
                self._receive()

    def _handle(self, message: Message) -> None:
        fields = message.fields
        self.last_progress_s = time.monotonic()
        if message.op == "slot":
            self._grant_slot()
        elif message.op == "publish":
            self._on_rows(fields["rows"])
            if "index" in fields:
                self._index = index_from_json(fields["index"])
            self._table.publish(
                Snapshot(
                    slot=fields["slot"],
                    index=self._index,
                    extra=message.blob,
                    meta=fields["meta"],
                    step=fields["meta"]["global_step"],
                )
            )
            self._granted = False
            if self._table.has_spare():
                self._grant_slot()  # unasked: at the next boundary the trainer need not wait for an answer
        elif message.op == "scored":
            self._table.publish_scored(split_scored(fields["scored"], message.blob))
        elif message.op == "phase":
            self._on_phase(fields["name"])
        elif message.op == "checked":
            self.checked = fields
        elif message.op == "ready":
            self.ready = fields
        elif message.op == "finished":
            self._on_rows(fields["rows"])
            self.finished = fields
        elif message.op == "failed":
            what, fix = self._in_users_words(fields["what"]), self._in_users_words(fields.get("fix", ""))
            self.failure = error_for(fields["exit"], what, fix)
        else:
            raise AssertionError(f"unknown message {message.op!r} from the trainer")

    def _grant_slot(self) -> None:
        if not self._granted:  # its request may have crossed our word
            self._granted = True
            self._send("slot", id=self._table.slot_to_fill())

    def _in_users_words(self, text: str) -> str:
        """With the user's own names of the files that the trainer knows as copies in scratch."""
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text


def split_scored(parts: list[dict[str, Any]], blob: bytes) -> tuple[ScoredBatch, ...]:
    """Scored batches out of one blob: each part names its micro-step, its bytes and its meta."""
    batches, at = [], 0
    for part in parts:
        batches.append(ScoredBatch(part["micro_step"], blob[at : at + part["bytes"]], part["meta"]))
        at += part["bytes"]
    return tuple(batches)
