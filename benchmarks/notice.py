"""From a notice to `released`: how much longer than the bytes alone take on their way.

    python -m benchmarks.notice [--json FILE]       about 2 minutes

A trainer has published a snapshot of 135 MB (an adapter of 11 million parameters and its AdamW state) that is nowhere
yet. Then it is killed, wherever it is, and the agent's own code makes the snapshot durable and releases the run. Beside
it, in turns, the same bytes are written to the same server as one object, and nothing else.
"""

import os
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.measure import Claim, hold_to_cores, options, progress, ratio_of_sums, report, warn_if_busy
from benchmarks.pipeline import Ends, Pipeline
from benchmarks.server import served
from infra.localcloud.storage.process import BUCKET, StorageProcess
from job.agent.saving import make_durable
from job.agent.uploader import tensor_file
from job.arena import TensorIndex, layout
from job.run.head import Status, read_head
from job.storage import open_bucket
from job.storage.gcs import STREAMS
from job.training.channel_sink import ChannelSink

STATE_BYTES = 3 * 11_272_192 * 4
CAP_BYTES_PER_S = 50e6
GOAL = 1.2
BUSY_THREADS = 1024  # no core is free: the cadence holds the second upload back until the notice


def train(ends: Ends, index: TensorIndex, size_bytes: int) -> dict[str, Any]:
    """Two snapshots; then it computes until it is killed."""
    sink = ChannelSink(ends.channel, ends.slots)
    for step in (0, 1):
        memory = sink.slot().view(size_bytes)
        for at in range(0, size_bytes, 1 << 20):
            memory[at : at + (1 << 20)] = os.urandom(1 << 20)[: len(memory[at : at + (1 << 20)])]
        sink.publish(index, b"", {"global_step": step}, [])
        if step == 0:
            ends.turns.receive()
    ends.turns.send("published")
    while True:
        time.sleep(1)


def once(server: StorageProcess, size_bytes: int) -> tuple[float, float]:
    """(seconds from notice to released, seconds of the bytes alone)."""
    index, _ = layout({"state": ("U8", (size_bytes,), size_bytes)})
    with Pipeline(BUSY_THREADS, server) as pipeline:
        forked = pipeline.fork(lambda ends: train(ends, index, size_bytes))
        uploader = pipeline.begin()
        pipeline.until(lambda: uploader.durable_step() == 0, forked)
        forked.turns.send("go")
        pipeline.until(lambda: pipeline.table.newest is not None and pipeline.table.newest.step == 1, forked)
        assert forked.turns.receive().op == "published"
        owner = pipeline.owner
        began_s = time.monotonic()
        forked.kill()
        make_durable(pipeline.loop, owner, uploader, Status.RELEASED)
        released_s = time.monotonic() - began_s
        head = read_head(pipeline.bucket)
        assert head is not None
        assert head.checkpoint is not None
        assert (head.status, head.checkpoint.step) == (Status.RELEASED, 1)
        newest = pipeline.table.newest
        assert newest is not None
        began_s = time.monotonic()
        open_bucket(f"gs://{BUCKET}/alone").write(
            f"{time.time_ns()}", tensor_file(newest, pipeline.table, newest.index.keys())
        )
        return released_s, time.monotonic() - began_s


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args(argv)
    hold_to_cores()
    if not given.quick:
        warn_if_busy()
    size_bytes, rounds = (1_000_000, 1) if given.quick else (STATE_BYTES, given.rounds)
    pairs = []
    with served(cap_bytes_per_s=CAP_BYTES_PER_S / STREAMS, discard=True) as server:
        for number in range(rounds):
            pairs.append(once(server, size_bytes))
            progress(f"{number + 1} of {rounds}: released after {pairs[-1][0]:.2f} s, the bytes {pairs[-1][1]:.2f} s")
    ratio = ratio_of_sums(pairs)
    table = Table("what", "seconds: median", "fastest", "slowest", title=f"{size_bytes / 1e6:.0f} MB at 50 MB/s")
    for name, column in (("notice to released", 0), ("the bytes alone", 1)):
        seconds = [pair[column] for pair in pairs]
        table.add_row(name, f"{median(seconds):.2f}", f"{min(seconds):.2f}", f"{max(seconds):.2f}")
    claim = Claim("notice to released, to the transfer alone", ratio.value, "times", f"<= {GOAL}", ratio.value <= GOAL)
    report([table], [claim], given)


if __name__ == "__main__":
    main(sys.argv[1:])
