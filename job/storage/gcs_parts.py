"""How a large object is cut for parallel transfer: views of the caller's memory, nothing is copied. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, repeat

from job.storage import Buffer, Data

MIB = 1 << 20
SINGLE_BYTES = 32 * MIB
"""Up to here one request is used: it costs less than composing parts."""
LARGEST_PART_BYTES = 64 * MIB
"""What is sent again after a cut connection."""
COMPOSED_AT_ONCE = 32
"""Objects that the service joins in one request."""
SMALLEST_SPAN_BYTES, LARGEST_SPAN_BYTES = 8 * MIB, 64 * MIB
"""Of a read."""


def in_parts(data: Data, *, streams: int, single_bytes: int = SINGLE_BYTES) -> Iterator[list[memoryview]]:
    """The bytes of `data` in order, as views in one list for each part; at least one part, which may be empty."""
    buffers: Iterable[Buffer] = [data] if isinstance(data, bytes | bytearray | memoryview) else data
    total = sum(memoryview(buffer).nbytes for buffer in buffers) if isinstance(buffers, Sequence) else None
    sizes = part_sizes(total, streams=streams, single_bytes=single_bytes)
    part: list[memoryview] = []
    room, parts = next(sizes), 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while len(view) > 0:
            part.append(view[:room])
            view, room = view[room:], room - len(part[-1])
            if room == 0:
                yield part
                part, room, parts = [], next(sizes), parts + 1
    if part or not parts:
        yield part


def part_sizes(total: int | None, *, streams: int, single_bytes: int = SINGLE_BYTES) -> Iterator[int]:
    """How many bytes each part takes, for ever.

    Of a known total: one, or as many parts as there are streams, or more that are not larger than a part may be,
    as long as they can be joined in one request. Else: small at first, doubled every 16 parts.
    """
    if total is None:
        return (single_bytes << (number // 16) for number in count())
    if total <= single_bytes:
        return repeat(single_bytes)
    parts = min(max(streams, -(-total // LARGEST_PART_BYTES)), COMPOSED_AT_ONCE)
    return repeat(-(-total // parts))


def spans(size_bytes: int, *, streams: int, smallest: int = SMALLEST_SPAN_BYTES) -> list[tuple[int, int]]:
    """(first byte, byte after the last) of the ranges in which an object is read."""
    step = min(max(-(-size_bytes // streams), smallest), max(LARGEST_SPAN_BYTES, smallest))
    return [(at, min(at + step, size_bytes)) for at in range(0, size_bytes, step)]
