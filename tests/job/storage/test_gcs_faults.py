"""Over the wire: one fault in any kind of request is got over without a trace, one that stays is told by its class.

Refusals, busy answers, connections cut at any byte, replies that are lost, bytes that change on the way, streams that
stand still; for small and large objects. What is asked of the service is counted, so that a retry too many shows.
"""

import os
import secrets
import threading
from collections.abc import Callable

import pytest

from infra.localcloud.storage.process import BUCKET, StorageProcess
from job.errors import NeedsPerson, Transient
from job.storage import NotFound, ObjectInfo, PreconditionFailed, gcs_read
from job.storage.gcs import TRIES, GcsBucket
from job.storage.gcs_wire import Wire

SMALL = os.urandom(5_000)
LARGE = os.urandom(300_000)
STALL_S = 0.3


@pytest.fixture
def bucket(cloud: StorageProcess) -> GcsBucket:
    """Objects above 64 KiB are large to it."""
    bucket = GcsBucket(
        f"gs://{BUCKET}/runs/{secrets.token_hex(8)}",
        stall_s=STALL_S,
        write_interval_s=0,
        single_bytes=1 << 16,
        smallest_span_bytes=1 << 16,
        streams=3,
    )
    bucket.write("before", SMALL)
    bucket.write("large/before", LARGE)
    cloud.clear()
    return bucket


def content(bucket: GcsBucket, name: str) -> bytes:
    return bucket.read(name)[0]


def create(bucket: GcsBucket) -> None:
    info = bucket.write("new", SMALL, if_generation=0)
    assert (content(bucket, "new"), bucket.stat("new")) == (SMALL, info)


def swap(bucket: GcsBucket) -> None:
    before = bucket.read("before")[1]
    info = bucket.write("before", b"after", if_generation=before.generation)
    assert (content(bucket, "before"), bucket.stat("before")) == (b"after", info)


def overwrite(bucket: GcsBucket) -> None:
    bucket.write("before", b"after")
    assert content(bucket, "before") == b"after"


def create_large(bucket: GcsBucket) -> None:
    info = bucket.write("large/new", [LARGE, memoryview(LARGE)], if_generation=0)
    assert (content(bucket, "large/new"), bucket.stat("large/new")) == (LARGE + LARGE, info)


def read(bucket: GcsBucket) -> None:
    assert content(bucket, "before") == SMALL


def read_into(bucket: GcsBucket) -> None:
    buffer = bytearray(len(SMALL))
    bucket.read_into("before", memoryview(buffer))
    assert buffer == SMALL


def read_into_large(bucket: GcsBucket) -> None:
    buffer = bytearray(len(LARGE))
    bucket.read_into("large/before", memoryview(buffer))
    assert buffer == LARGE


def look(bucket: GcsBucket) -> None:
    info = bucket.stat("before")
    assert info is not None
    assert info.size_bytes == len(SMALL)
    assert bucket.stat("nothing") is None


def enumerate_all(bucket: GcsBucket) -> None:
    assert "before" in [info.name for info in bucket.list("")]


def delete(bucket: GcsBucket) -> None:
    bucket.delete("before")
    assert bucket.stat("before") is None


def delete_generation(bucket: GcsBucket) -> None:
    info = bucket.stat("before")
    assert info is not None
    bucket.delete("before", if_generation=info.generation)
    assert bucket.stat("before") is None


Work = Callable[[GcsBucket], None]
WRITES = [(create, "upload"), (swap, "upload"), (overwrite, "upload"), (create_large, "upload")]
OTHERS = [
    (create_large, "compose"),
    (look, "get"),
    (enumerate_all, "list"),
    (delete, "delete"),
    (read_into_large, "get"),
]
READS = [(read, "download"), (read_into, "download"), (read_into_large, "download")]
CHANGES = [*WRITES, (create_large, "compose"), (delete, "delete"), (delete_generation, "delete")]
MID_LARGE = {"object": "*large/*", "after_bytes": 40_000}


def got_over(cloud: StorageProcess, bucket: GcsBucket, work: Work) -> None:
    """The work is done as if nothing had happened, the fault did strike, and no part of an object is left."""
    work(bucket)
    assert cloud.armed() == []
    assert [info.name for info in bucket.list("") if info.name.endswith(".part")] == []


@pytest.mark.parametrize("kind", ["408", "429", "500", "502", "503", "504", "401", "cut"])
@pytest.mark.parametrize(("work", "verb"), [*WRITES, *OTHERS, *READS])
def test_an_answer_or_a_connection_that_fails_once_is_got_over(
    cloud: StorageProcess, bucket: GcsBucket, work: Work, verb: str, kind: str
) -> None:
    cloud.arm(kind, verb=verb)
    got_over(cloud, bucket, work)


@pytest.mark.parametrize(("work", "verb"), CHANGES)
@pytest.mark.parametrize("times", [1, 2])
def test_a_change_whose_reply_is_lost_is_known_to_be_done(
    cloud: StorageProcess, bucket: GcsBucket, work: Work, verb: str, times: int
) -> None:
    cloud.arm("lost_reply", verb=verb)
    if times == 2:
        cloud.arm("503", verb=verb)
    got_over(cloud, bucket, work)


@pytest.mark.parametrize("kind", ["cut", "corrupt", "stall"])
@pytest.mark.parametrize("after_bytes", [1, 4_000])
@pytest.mark.parametrize(("work", "verb"), [*WRITES, *READS])
def test_a_stream_that_breaks_in_the_middle_is_got_over(
    cloud: StorageProcess, bucket: GcsBucket, work: Work, verb: str, kind: str, after_bytes: int
) -> None:
    cloud.arm(kind, verb=verb, after_bytes=after_bytes, delay_s=None)
    if (work, verb) == (overwrite, "upload"):
        cloud.clear()
        cloud.arm(kind, verb=verb, after_bytes=min(after_bytes, 3), delay_s=None)
    if work is swap:
        cloud.clear()
        cloud.arm(kind, verb=verb, after_bytes=min(after_bytes, 3), delay_s=None)
    got_over(cloud, bucket, work)


@pytest.mark.parametrize(("work", "verb"), [*WRITES, *OTHERS, *READS])
def test_trouble_that_stays_is_transient_after_a_few_tries(
    cloud: StorageProcess, bucket: GcsBucket, work: Work, verb: str
) -> None:
    cloud.arm("503", verb=verb, count=None)
    with pytest.raises(Transient, match="the service answers 503"):
        work(bucket)
    tries = [entry for entry in cloud.requests() if entry["status"] == 503]
    assert TRIES <= len(tries) <= 3 * TRIES  # parts and ranges are tried each for itself
    cloud.clear()
    assert content(bucket, "before") == SMALL
    assert bucket.stat("new") is bucket.stat("large/new") is None
    assert [info.name for info in bucket.list("") if info.name.endswith(".part")] == []


@pytest.mark.parametrize(("work", "verb"), [*WRITES, *OTHERS, *READS])
def test_a_refusal_is_asked_for_once_and_needs_a_person(
    cloud: StorageProcess, bucket: GcsBucket, work: Work, verb: str
) -> None:
    cloud.arm("403", verb=verb, count=None)
    with pytest.raises(NeedsPerson, match="permission denied") as caught:
        work(bucket)
    assert "roles/storage.objectUser" in caught.value.fix
    refused = [entry for entry in cloud.requests() if entry["status"] == 403]
    assert 1 <= len(refused) <= (3 if verb in ("upload", "download") and "large" in work.__name__ else 1)


def test_another_writer_between_a_lost_reply_and_the_next_try_is_not_taken_for_ones_own(
    cloud: StorageProcess, bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bucket.read("before")[1]
    other = GcsBucket(bucket.uri, write_interval_s=0)
    upload = bucket._wire.upload

    def another_comes_in(*args: object, **kwargs: object) -> object:
        try:
            return upload(*args, **kwargs)  # type: ignore[arg-type]
        except Transient:
            other.write("before", b"another's")
            raise

    monkeypatch.setattr(bucket._wire, "upload", another_comes_in)
    cloud.arm("lost_reply", verb="upload")
    with pytest.raises(PreconditionFailed):
        bucket.write("before", b"mine", if_generation=before.generation)
    assert content(bucket, "before") == b"another's"


def test_bytes_that_change_every_time_are_never_handed_out(cloud: StorageProcess, bucket: GcsBucket) -> None:
    for work in (read, read_into, read_into_large):
        cloud.arm("corrupt", verb="download", count=None)
        with pytest.raises(Transient, match="other bytes arrived"):
            work(bucket)
        cloud.clear()


def test_bytes_that_change_on_the_way_up_are_never_stored(cloud: StorageProcess, bucket: GcsBucket) -> None:
    cloud.arm("corrupt", verb="upload", count=None)
    for name, data in (("new", SMALL), ("large/new", LARGE)):
        with pytest.raises(Transient, match="not those that were sent"):
            bucket.write(name, data, if_generation=0)
    cloud.clear()
    assert bucket.stat("new") is bucket.stat("large/new") is None


def test_an_object_that_is_replaced_while_it_is_read_comes_back_whole(
    cloud: StorageProcess, bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ranges name the generation that the first look saw."""
    newer, look_once = os.urandom(len(LARGE)), gcs_read.blob_of

    def replaced_after_the_first_look(wire: Wire, target: str, generation: int | None = None) -> object:
        blob = look_once(wire, target, generation)
        monkeypatch.setattr(gcs_read, "blob_of", look_once)
        bucket.write("large/before", newer)
        return blob

    monkeypatch.setattr(gcs_read, "blob_of", replaced_after_the_first_look)
    buffer = bytearray(len(LARGE))
    info = bucket.read_into("large/before", memoryview(buffer))
    assert buffer == newer
    assert info == bucket.stat("large/before")


def test_credentials_that_fail_at_the_start_need_a_person_and_later_only_patience(cloud: StorageProcess) -> None:
    bucket = GcsBucket(f"gs://{BUCKET}/runs/{secrets.token_hex(8)}", write_interval_s=0)
    cloud.arm("401", count=None)
    with pytest.raises(NeedsPerson, match="credentials"):
        bucket.stat("head.json")
    cloud.clear()
    bucket.write("head.json", b"{}")
    cloud.arm("401", count=None)
    with pytest.raises(Transient, match="credentials"):
        bucket.write("head.json", b"{}")
    cloud.clear()
    bucket.write("head.json", b"{}")


def test_a_bucket_that_is_missing_is_named_with_how_to_make_it(cloud: StorageProcess) -> None:
    bucket = GcsBucket("gs://no-such-bucket-1/runs/x", write_interval_s=0)
    for work in (
        lambda: bucket.stat("head.json"),
        lambda: bucket.read("head.json"),
        lambda: bucket.write("head.json", b"", if_generation=0),
        lambda: list(bucket.list("")),
        lambda: bucket.delete("head.json"),
    ):
        with pytest.raises(NeedsPerson, match="gs://no-such-bucket-1 does not exist") as caught:
            work()
        assert "gcloud storage buckets create gs://no-such-bucket-1" in caught.value.fix


def test_a_server_that_is_not_there_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(Transient, match="failed: Connection refused"):
        GcsBucket(f"gs://{BUCKET}/runs/x").stat("head.json")


def test_what_is_asked_of_the_service_is_as_little_as_it_can_be(cloud: StorageProcess, bucket: GcsBucket) -> None:
    def asked(work: Callable[[], object]) -> list[str]:
        cloud.clear()
        work()
        return sorted(entry["operation"] for entry in cloud.requests())

    assert asked(lambda: bucket.write("new", SMALL, if_generation=0)) == ["insert"]
    assert asked(lambda: bucket.read("new")) == ["download"]
    assert asked(lambda: bucket.read_into("new", memoryview(bytearray(len(SMALL))))) == ["download"]
    assert asked(lambda: bucket.read_into("large/before", memoryview(bytearray(len(LARGE))))) == [
        *["download"] * 3,
        "get",
    ]
    assert asked(lambda: list(bucket.list(""))) == ["list"]
    assert asked(lambda: bucket.delete("new")) == ["delete"]
    parts = 5  # of 64 KiB: as few as the size that is not told beforehand allows
    assert asked(lambda: bucket.write("large/new", iter([LARGE]), if_generation=0)) == [
        "compose",
        *["delete"] * parts,
        *["insert"] * parts,
    ]


@pytest.mark.long
def test_nothing_is_asked_about_the_bucket_itself(cloud: StorageProcess) -> None:
    """The client would, in a thread of its own, and a VM may not have that right."""
    bucket = GcsBucket(f"gs://{BUCKET}/runs/{secrets.token_hex(8)}")
    list(bucket.list(""))
    bucket.stat("head.json")
    wait_for_threads(lambda name: "_fetch_background" in name)
    assert [entry["operation"] for entry in cloud.requests()] == ["list", "get"]


def wait_for_threads(which: Callable[[str], bool]) -> None:
    for thread in threading.enumerate():
        if which(thread.name):
            thread.join(20)


def test_what_is_asked_is_counted_as_the_service_bills_it(cloud: StorageProcess, bucket: GcsBucket) -> None:
    before = bucket.usage
    cloud.arm("503", verb="upload")
    bucket.write("new", SMALL, if_generation=0)
    bucket.read("new")
    list(bucket.list(""))
    bucket.delete("new")
    usage = bucket.usage - before
    assert (usage.class_a, usage.class_b, usage.free) == (3, 1, 1)
    assert usage.received_bytes == len(SMALL)
    assert 2 * len(SMALL) < usage.sent_bytes < 2 * len(SMALL) + 2_000


def test_every_write_of_a_large_object_has_its_precondition(
    cloud: StorageProcess, bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions: list[int | None] = []
    upload = bucket._wire.upload

    def noted(*args: object, if_generation: int | None, **kwargs: object) -> object:
        conditions.append(if_generation)
        return upload(*args, if_generation=if_generation, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket._wire, "upload", noted)
    with pytest.raises(PreconditionFailed):
        bucket.write("large/before", LARGE, if_generation=0)
    assert conditions
    assert set(conditions) == {0}
    assert content(bucket, "large/before") == LARGE


def test_more_parts_than_are_joined_at_once_become_one_object(cloud: StorageProcess) -> None:
    bucket = GcsBucket(f"gs://{BUCKET}/runs/{secrets.token_hex(8)}", write_interval_s=0, single_bytes=100)
    data = os.urandom(100_000)
    written = bucket.write("x", (data[at : at + 77] for at in range(0, len(data), 77)), if_generation=0)
    assert content(bucket, "x") == data
    assert written == bucket.stat("x")
    assert [info.name for info in bucket.list("")] == ["x"]
    assert len(cloud.requests("compose")) > 1


def test_a_long_listing_comes_page_by_page_and_a_page_that_fails_is_asked_for_again(
    cloud: StorageProcess, bucket: GcsBucket
) -> None:
    names = [f"segments/{number:04}" for number in range(1100)]
    for name in names:
        bucket.write(name, b"")
    cloud.clear()
    cloud.arm("503", verb="list", skip=1)
    found: list[ObjectInfo] = list(bucket.list("segments/"))
    assert [info.name for info in found] == names
    assert cloud.armed() == []
    assert len(cloud.requests("list")) == 3


def test_writes_of_one_name_keep_to_the_pace_of_the_service(
    cloud: StorageProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = GcsBucket(f"gs://{BUCKET}/runs/{secrets.token_hex(8)}")
    slept: list[float] = []
    monkeypatch.setattr("job.storage.gcs_write.time.sleep", slept.append)
    for _ in range(3):
        bucket.write("head.json", b"{}")
    bucket.write("attempts/0001/heartbeat.json", b"{}")
    assert slept[0] == slept[3] == 0
    assert 0.5 < slept[1] <= 1 < slept[2] <= 2


def test_a_missing_object_is_missing_after_trouble_too(cloud: StorageProcess, bucket: GcsBucket) -> None:
    cloud.arm("503", verb="download")
    with pytest.raises(NotFound):
        bucket.read("nothing")


def test_the_location_of_a_bucket_is_told_where_it_may_be_asked_for(cloud: StorageProcess, bucket: GcsBucket) -> None:
    assert bucket.location() == "US"
    cloud.arm("403", verb="bucket", count=None)
    assert bucket.location() is None
