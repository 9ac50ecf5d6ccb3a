"""Proves that an upload waits out trouble with the bucket, and that an ending attempt does not wait for ever."""

import math
import threading
import time
from dataclasses import replace

from faults import FaultyBucket

from job.agent.journal import Journal
from job.agent.restoring import restore
from job.agent.snapshots import SlotTable, Snapshot
from job.agent.uploader import Uploader, UploadPolicy
from job.arena import Slot, layout
from job.errors import Transient
from job.run.head import Owner, Status, read_head

POLICY = UploadPolicy(
    fingerprint="", keep_last=2, keep_every_steps=None, cores=2, trainer_threads=1, machine_usd_per_hour=0.36
)
LIMIT_S = 60.0


def uploader_with_a_snapshot(bucket: FaultyBucket) -> tuple[Uploader, threading.Event]:
    """Not started yet; the event is set whenever its state changes."""
    table = SlotTable([Slot.create("slot")])
    table.publish(Snapshot(slot=0, index={}, extra=b"", meta={"global_step": 1}, step=1))
    changed = threading.Event()
    return Uploader(bucket, Owner.take_over(bucket, 1), table, POLICY, Journal(), changed.set), changed


def test_trouble_that_passes_is_waited_out(faulty: FaultyBucket) -> None:
    uploader, changed = uploader_with_a_snapshot(faulty)
    faulty.refuse(2)
    uploader.stop(status=Status.RELEASED, give_up_s=lambda: math.inf)
    uploader.start()
    while not uploader.done:
        assert changed.wait(LIMIT_S)
        changed.clear()
    head = read_head(faulty)
    assert uploader.error is None
    assert head is not None
    assert head.checkpoint is not None
    assert (head.status, head.checkpoint.step) == (Status.RELEASED, 1)


def test_a_notice_that_comes_during_the_last_flush_ends_the_wait(faulty: FaultyBucket) -> None:
    uploader, changed = uploader_with_a_snapshot(faulty)
    tried = threading.Event()

    def out_of_reach(number: int, method: str, name: str) -> Transient:
        tried.set()
        return Transient("not to be reached")

    faulty.before = out_of_reach
    give_up_s = math.inf
    uploader.stop(status=Status.RELEASED, give_up_s=lambda: give_up_s)
    uploader.start()
    assert tried.wait(LIMIT_S)
    assert not uploader.done
    give_up_s = time.monotonic()
    assert changed.wait(LIMIT_S)
    assert uploader.done
    assert isinstance(uploader.error, Transient)


def test_the_last_snapshot_and_how_the_attempt_ends_are_one_write_of_head(faulty: FaultyBucket) -> None:
    uploader, changed = uploader_with_a_snapshot(faulty)
    uploader.stop(status=Status.RELEASED, give_up_s=lambda: math.inf)
    before = faulty.calls.count(("write", "head.json"))
    uploader.start()
    while not uploader.done:
        assert changed.wait(LIMIT_S)
        changed.clear()
    assert faulty.calls.count(("write", "head.json")) == before + 1
    head = read_head(faulty)
    assert head is not None
    assert head.checkpoint is not None
    assert (head.status, head.checkpoint.step) == (Status.RELEASED, 1)


def test_a_reference_model_that_moves_now_and_then_is_sent_when_it_has_moved(faulty: FaultyBucket) -> None:
    """And all of it comes back into one slot, at every step."""
    table = SlotTable([Slot.create(f"slot{n}") for n in range(3)])
    index, size_bytes = layout({"model/w": ("U8", (3,), 3), "ref/w": ("U8", (5,), 5), "tr_loss": ("U8", (1,), 1)})
    changed = threading.Event()
    policy = replace(POLICY, reference_moves_every_steps=2)
    owner = Owner.take_over(faulty, 1)
    uploader = Uploader(faulty, owner, table, policy, Journal(), changed.set)
    uploader.start()
    sent = []
    for step in (2, 3, 4):
        slot = table.slot_to_fill()
        memory = table.slots[slot].view(size_bytes)
        for name, value in (("model/w", step), ("ref/w", step // 2), ("tr_loss", step)):
            spec = index[name]
            memory[spec.offset : spec.offset + spec.size_bytes] = bytes([value]) * spec.size_bytes
        snapshot = Snapshot(slot=slot, index=index, extra=b"", meta={"global_step": step}, step=step)
        table.publish(snapshot)
        while not snapshot.is_durable():
            assert changed.wait(LIMIT_S)
            changed.clear()
        sent.append(sum(method == "write" and name.startswith("blobs/") for method, name in faulty.calls))
        restored = restore(faulty, read_head(faulty), fresh := SlotTable([Slot.create("restored")])).snapshot
        assert restored is not None
        found = fresh.slots[0].view(1 << 16)
        assert {n: bytes(found[t.offset : t.offset + t.size_bytes]) for n, t in restored.index.items()} == {
            "model/w": bytes([step]) * 3,
            "ref/w": bytes([step // 2]) * 5,
            "tr_loss": bytes([step]),
        }
    assert sent == [1, 1, 2]
    uploader.stop(status=None, give_up_s=lambda: math.inf)
