"""The core does what a simple model does, whatever the order of changes, restarts and racing writers."""

import contextlib
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
import pytest
from google.api_core.exceptions import NotFound, PreconditionFailed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from storage_client import client_of, clock_at

from infra.localcloud.storage import StorageServer
from infra.localcloud.storage.checksums import combine, decode, encode
from infra.localcloud.storage.conditions import NONE, Conditions
from infra.localcloud.storage.data import BLOCK_BYTES, Incoming, total
from infra.localcloud.storage.errors import ApiError
from infra.localcloud.storage.faults import Faults, Rule
from infra.localcloud.storage.objects import Store
from infra.localcloud.storage.resources import only
from infra.localcloud.storage.stored import StoredObject
from infra.localcloud.storage.uploads import Uploads

NAMES = st.sampled_from(["a", "a/b", "a/c", "b", "ä"])
CONDITIONS = st.sampled_from(["none", "right", "wrong", "absent"])


@given(st.binary(max_size=5000), st.integers(0, 5000))
def test_the_sum_of_two_pieces_is_that_of_both(data: bytes, cut: int) -> None:
    first, second = data[:cut], data[cut:]
    joined = combine(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert joined == google_crc32c.value(data)


@given(st.integers(0, 2**32 - 1))
def test_sums_are_written_as_they_are_read(crc: int) -> None:
    assert decode(encode(crc)) == crc


@pytest.mark.parametrize("text", ["", "x", "AAAA", "AAAAAAAA", "!!!!!!==", "ä"])
def test_what_is_no_sum_is_none(text: str) -> None:
    assert decode(text) is None


def attempt(change: Callable[[], StoredObject | None]) -> StoredObject | int | None:
    """What the change gives, or the status with which it was refused."""
    try:
        return change()
    except ApiError as error:
        return error.status


class Model(RuleBasedStateMachine):
    """A dictionary beside the store: name to (bytes, generation). The clock stands still, as in a fast sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name), now=clock_at(1000.0))
        self.store.create_bucket("bucket", {})
        self.known: dict[str, tuple[bytes, int]] = {}
        self.newest = 0

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def condition(self, name: str, kind: str) -> tuple[Conditions, bool]:
        """(condition, whether it holds)."""
        generation = self.known.get(name, (b"", 0))[1]
        match kind:
            case "none":
                return NONE, True
            case "right":
                return Conditions(generation_match=generation), True
            case "wrong":
                return Conditions(generation_match=generation + 1), False
            case _:
                return Conditions(generation_match=0), generation == 0

    def put(self, name: str, data: bytes, kind: str) -> None:
        conditions, holds = self.condition(name, kind)
        piece = self.store.data.store(iter([data]))
        stored = attempt(lambda: self.store.put("bucket", name, (piece,), md5=None, fields={}, conditions=conditions))
        if isinstance(stored, StoredObject):
            self.remember(stored, data)
        assert (stored == 412) == (not holds)

    def remember(self, stored: StoredObject, data: bytes) -> None:
        assert stored.generation > self.newest
        self.newest = stored.generation
        self.known[stored.name] = (data, stored.generation)

    @rule(name=NAMES, data=st.binary(max_size=50), kind=CONDITIONS)
    def writes(self, name: str, data: bytes, kind: str) -> None:
        self.put(name, data, kind)

    @rule(name=NAMES, kind=CONDITIONS)
    def deletes(self, name: str, kind: str) -> None:
        conditions, holds = self.condition(name, kind)
        answer = attempt(lambda: self.store.delete("bucket", name, None, conditions))
        if name not in self.known:
            assert answer == 404
        else:
            assert answer == (None if holds else 412)
        if answer is None:
            del self.known[name]

    @rule(source=NAMES, name=NAMES, kind=CONDITIONS)
    def copies(self, source: str, name: str, kind: str) -> None:
        conditions, holds = self.condition(name, kind)
        stored = attempt(lambda: self.store.copy(self.store.get("bucket", source), "bucket", name, {}, conditions))
        if isinstance(stored, StoredObject):
            self.remember(stored, self.known[source][0])
        elif source in self.known:
            assert (stored, holds) == (412, False)
        else:
            assert stored == 404

    @rule(name=NAMES)
    def changes_metadata(self, name: str) -> None:
        if name in self.known:
            before = self.store.get("bucket", name)
            after = self.store.update("bucket", name, None, {"metadata": {"a": "b"}}, NONE)
            assert (after.generation, after.metageneration) == (before.generation, before.metageneration + 1)

    @rule(name=NAMES)
    def begins_anew_after_a_kill(self, name: str) -> None:
        self.store.data.store(iter([b"left behind by an upload that was never answered"]))
        self.store.close()
        self.store = Store(Path(self.folder.name), now=clock_at(1000.0))

    @invariant()
    def the_store_is_the_model(self) -> None:
        assert list(self.store.names("bucket", "", "")) == sorted(self.known)
        for name, (data, generation) in self.known.items():
            stored, opened = self.store.open("bucket", name, None, NONE)
            assert b"".join(opened.blocks(0, stored.size_bytes)) == data
            assert (stored.generation, stored.crc32c) == (generation, google_crc32c.value(data))
            opened.close()
        files = list(self.store.files())
        assert len(files) == len(self.known)
        assert sorted(path.name for path in self.store.data.folder.iterdir()) == sorted(files)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_any_order_of_changes_and_restarts_leaves_what_the_model_says = Model.TestCase


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.integers(0, 100), st.integers(0, 100))
def test_a_range_of_joined_pieces_is_that_range(pieces: list[bytes], start: int, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        stored = tuple(store.data.store(iter([piece])) for piece in pieces)
        whole = b"".join(pieces)
        assert total(stored) == (len(whole), google_crc32c.value(whole))
        opened = store.data.open(stored)
        length = max(0, min(length, len(whole) - start))
        assert b"".join(opened.blocks(start, length)) == whole[start : start + length]
        opened.close()
        store.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_of_writers_that_race_exactly_one_wins_each_time(server: StorageServer, chunked: bool) -> None:
    client_of(server).bucket("bucket").blob("counter").upload_from_string(b"0")
    wins: list[int] = []

    def count() -> None:
        bucket = client_of(server).bucket("bucket")
        for _ in range(15):
            seen = bucket.get_blob("counter")
            with contextlib.suppress(PreconditionFailed, NotFound):  # NotFound: overwritten since it was looked at
                value = int(seen.download_as_bytes()) + 1
                blob = bucket.blob("counter", chunk_size=BLOCK_BYTES if chunked else None)
                data, size = io.BytesIO(str(value).encode()), None if chunked else len(str(value))
                blob.upload_from_file(data, size=size, if_generation_match=seen.generation)
                wins.append(value)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == list(range(1, len(wins) + 1))
    assert client_of(server).bucket("bucket").blob("counter").download_as_bytes() == str(len(wins)).encode()


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ("a", {"a": 1}),
        ("a,b(c)", {"a": 1, "b": [{"c": 2}]}),
        ("b/c,b/e/f", {"b": [{"c": 2, "e": {"f": 4}}]}),
        ("b(c,e/f),a", {"a": 1, "b": [{"c": 2, "e": {"f": 4}}]}),
        ("b(e(f,g),d)", {"b": [{"d": 3, "e": {"f": 4, "g": 5}}]}),
        ("b/e,b/e/f", {"b": [{"e": {"f": 4, "g": 5}}]}),
        ("nothing", {}),
    ],
)
def test_fields_are_picked(fields: str, left: object) -> None:
    resource = {"a": 1, "b": [{"c": 2, "d": 3, "e": {"f": 4, "g": 5}}]}
    assert only(resource, fields) == left
    assert only(resource, "*") == only(resource, "") == resource


def test_a_part_that_arrives_after_its_upload_was_cancelled_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create_bucket("bucket", {})
    uploads = Uploads(store)
    upload = uploads.begin("bucket", "name", {}, NONE, hashes={}, account="a", in_parts=True)
    piece = store.data.store(iter([b"late"]))
    uploads.cancel(upload)
    with pytest.raises(ApiError, match="404"):
        uploads.add_part(upload, 1, piece)
    with pytest.raises(ApiError, match="404"):
        uploads.finish(upload, (), None)
    assert list(store.data.folder.iterdir()) == []
    store.close()


def test_a_generation_is_not_used_again_however_often_the_server_was_killed(tmp_path: Path) -> None:
    generations = []
    for _ in range(4):
        store = Store(tmp_path, now=clock_at(1000.0))
        if not store.buckets():
            store.create_bucket("bucket", {})
        else:
            for _ in range(2):  # and once without any change in between
                store.close()
                store = Store(tmp_path, now=clock_at(1000.0))
        piece = store.data.store(iter([b"x"]))
        stored = store.put("bucket", "name", (piece,), md5=None, fields={}, conditions=NONE)
        generations.append(stored.generation)
        store.delete("bucket", "name", None, NONE)
        store.close()
    assert generations == sorted(set(generations))


class Waits(Faults):
    """Never waits: adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = 0.0

    def wait(self, seconds: float | None) -> None:
        self.waited_s += seconds or 0.0


def test_a_cap_lets_each_stream_have_its_own_rate() -> None:
    slow = Rule("slow", bandwidth_bytes_per_s=1000.0)
    one, other = Waits(), Waits()

    def stream(faults: Waits, blocks: int) -> Iterator[bytes]:
        return faults.throttle(slow, iter([b"x" * 500] * blocks), clock=lambda: faults.waited_s)

    sent = [len(b"".join(stream(one, 4))), len(b"".join(stream(other, 10)))]
    assert sent == [2000, 5000]
    assert (one.waited_s, other.waited_s) == pytest.approx((2.0, 5.0))


def test_an_upload_found_after_a_kill_goes_on_at_a_whole_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (BLOCK_BYTES + 5))
    incoming = Incoming(tmp_path / "file", keep=True)
    assert (incoming.size_bytes, incoming.crc32c) == (BLOCK_BYTES, google_crc32c.value(b"x" * BLOCK_BYTES))
    incoming.append(b"y")
    assert incoming.piece().size_bytes == (tmp_path / "file").stat().st_size == BLOCK_BYTES + 1
