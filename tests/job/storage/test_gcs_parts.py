"""A large object is cut into parts and ranges that hold every byte once, in order, without a copy."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.storage.chunks import crc32c, crc32c_combined
from job.storage.gcs_parts import (
    COMPOSED_AT_ONCE,
    LARGEST_PART_BYTES,
    MIB,
    SINGLE_BYTES,
    in_parts,
    part_sizes,
    spans,
)


@given(
    st.lists(st.binary(max_size=40), max_size=12),
    st.integers(1, 50),
    st.integers(1, 10),
    st.booleans(),
)
def test_the_parts_are_the_data_whatever_its_buffers(
    buffers: list[bytes], single_bytes: int, streams: int, sized: bool
) -> None:
    data = buffers if sized else iter(buffers)
    parts = list(in_parts(data, streams=streams, single_bytes=single_bytes))
    assert b"".join(bytes(view) for part in parts for view in part) == b"".join(buffers)
    assert len(parts) == 1 or all(sum(map(len, part)) for part in parts)
    if sum(map(len, buffers)) <= single_bytes:
        assert len(parts) == 1


def test_parts_are_views_of_the_callers_memory() -> None:
    memory = bytearray(100)
    parts = list(in_parts([memoryview(memory)], streams=4, single_bytes=30))
    memory[99] = 7
    assert parts[-1][-1][-1] == 7
    assert [sum(map(len, part)) for part in parts] == [25, 25, 25, 25]


def test_of_floats_the_bytes_are_counted() -> None:
    memory = memoryview(bytearray(64)).cast("d")
    assert [sum(map(len, part)) for part in in_parts(memory, streams=2, single_bytes=40)] == [32, 32]


@pytest.mark.parametrize("total", [SINGLE_BYTES + 1, 135 * MIB, 1024 * MIB, 24 * 1024 * MIB])
def test_a_known_size_is_spread_over_all_streams_and_joined_in_one_request(total: int) -> None:
    size = next(part_sizes(total, streams=8))
    parts = -(-total // size)
    assert 8 <= parts <= COMPOSED_AT_ONCE
    assert size <= LARGEST_PART_BYTES or parts == COMPOSED_AT_ONCE


def test_of_an_unknown_size_parts_grow_so_that_their_number_does_not() -> None:
    assert sum(islice(part_sizes(None, streams=8), 96)) > 30 * 1024 * MIB


@given(st.integers(0, 10**12), st.integers(1, 16))
def test_ranges_cover_an_object_once(size_bytes: int, streams: int) -> None:
    found = spans(size_bytes, streams=streams, smallest=10**10)
    assert [first for first, _ in found] == [0, *(end for _, end in found[:-1])][: len(found)]
    assert (found[-1][1] if found else 0) == size_bytes
    assert all(first < end for first, end in found)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_checksum_of_a_whole_follows_from_those_of_its_pieces(first: bytes, second: bytes) -> None:
    assert crc32c_combined(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_checksums_of_pieces_of_many_gigabytes_are_joined_too() -> None:
    """Zeros: a megabyte of them, doubled 15 times, is what 32 GiB of them have."""
    piece, crc = MIB, crc32c(bytes(MIB))
    for _ in range(15):
        piece, crc = 2 * piece, crc32c_combined(crc, crc, piece)
    assert crc32c_combined(crc32c(b"x"), crc, piece) == crc32c_combined(
        crc32c_combined(crc32c(b"x"), crc32c(bytes(7)), 7), crc32c_after_zeros(piece - 7), piece - 7
    )


def crc32c_after_zeros(count: int) -> int:
    """The checksum of `count` zeros, by doubling."""
    crc, length = 0, 0
    for bit in bin(count)[2:]:
        crc, length = crc32c_combined(crc, crc, length), 2 * length
        if bit == "1":
            crc, length = crc32c_combined(crc, crc32c(b"\0"), 1), length + 1
    return crc
