"""One owner at any time: taking over, fencing, lost replies, and what a head may never say."""

import itertools
import threading

import pytest
from faults import FaultyBucket
from pydantic import ValidationError

from job.errors import Fenced, NeedsPerson, Transient, UsageError
from job.run.head import CheckpointRef, Head, Owner, Status, Waiting, read_head
from job.run.layout import HEAD
from job.storage import Bucket


def ref(step: int, attempt: int = 1, nonce: str = "aa") -> CheckpointRef:
    return CheckpointRef(
        folder=f"checkpoints/{step:06d}-{attempt:04d}-{nonce}", step=step, attempt=attempt, manifest_crc32c=step
    )


def test_the_first_owner_makes_head(bucket: Bucket) -> None:
    assert read_head(bucket) is None
    owner = Owner.take_over(bucket, 1, fingerprint="f")
    head = read_head(bucket)
    assert head == owner.head
    assert (head.owner, head.status, head.checkpoint, head.kept, head.fingerprint) == (
        (1, 0),
        Status.RUNNING,
        None,
        (),
        "f",
    )


def test_a_successor_takes_over_with_the_checkpoints(bucket: Bucket) -> None:
    first = Owner.take_over(bucket, 1, fingerprint="f")
    first.publish(checkpoint=ref(1))
    first.publish(checkpoint=ref(2), status=Status.RELEASED)
    second = Owner.take_over(bucket, 2)
    assert second.head.kept == (ref(2), ref(1))
    assert second.head.checkpoint == ref(2)
    assert (second.head.owner, second.head.status, second.head.fingerprint) == ((2, 0), Status.RUNNING, "f")


def test_the_same_attempt_takes_over_as_its_next_incarnation(bucket: Bucket) -> None:
    assert Owner.take_over(bucket, 3).head.owner == (3, 0)
    assert Owner.take_over(bucket, 3).head.owner == (3, 1)
    assert Owner.take_over(bucket, 3, 7).head.owner == (3, 7)
    assert Owner.take_over(bucket, 4).head.owner == (4, 0)


@pytest.mark.parametrize(("attempt", "incarnation"), [(2, None), (2, 9), (3, 1), (3, 0)])
def test_only_the_newer_takes_over(bucket: Bucket, attempt: int, incarnation: int | None) -> None:
    owner = Owner.take_over(bucket, 3, 1)
    with pytest.raises(Fenced, match=r"attempt 3\.1 owns"):
        Owner.take_over(bucket, attempt, incarnation)
    assert read_head(bucket) == owner.head


def test_threads_of_one_owner_that_publish_at_once_do_not_fence_each_other(faulty: FaultyBucket) -> None:
    owner = Owner.take_over(faulty, 1)
    first_writes, goes_on = threading.Event(), threading.Event()

    def stop_the_first(number: int, method: str, name: str) -> None:
        if method == "write" and not first_writes.is_set():
            first_writes.set()
            assert goes_on.wait(60)

    faulty.before = stop_the_first
    ends: list[object] = []
    first = threading.Thread(target=lambda: ends.append(owner.publish(checkpoint=ref(1))))
    second = threading.Thread(target=lambda: ends.append(owner.publish(status=Status.RELEASED)))
    first.start()
    assert first_writes.wait(60)
    second.start()
    goes_on.set()
    first.join()
    second.join()
    head = read_head(faulty)
    assert head is not None
    assert ends == [(), ()]
    assert (head.checkpoint, head.status) == (ref(1), Status.RELEASED)


def test_a_zombie_that_publishes_is_fenced_and_changes_nothing(bucket: Bucket) -> None:
    zombie = Owner.take_over(bucket, 1)
    zombie.publish(checkpoint=ref(5))
    successor = Owner.take_over(bucket, 2)
    before = bucket.read(HEAD)
    for _ in range(2):
        with pytest.raises(Fenced, match=r"attempt 2\.0 owns .*; this is attempt 1\.0"):
            zombie.publish(checkpoint=ref(6), status=Status.RELEASED)
    assert bucket.read(HEAD) == before
    assert zombie.head.checkpoint == ref(5)
    successor.publish(checkpoint=ref(6, attempt=2))


def test_a_zombie_incarnation_of_the_same_attempt_is_fenced_too(bucket: Bucket) -> None:
    zombie = Owner.take_over(bucket, 1)
    Owner.take_over(bucket, 1)
    with pytest.raises(Fenced):
        zombie.publish(status=Status.RELEASED)


def test_an_owner_whose_head_was_deleted_is_fenced(bucket: Bucket) -> None:
    owner = Owner.take_over(bucket, 1)
    bucket.delete(HEAD)
    with pytest.raises(Fenced, match="nobody owns"):
        owner.publish(checkpoint=ref(1))
    assert read_head(bucket) is None


def test_a_lost_reply_is_read_back_and_found_to_be_mine(faulty: FaultyBucket) -> None:
    owner = Owner.take_over(faulty, 1)
    faulty.lose_replies(1)
    before = len(faulty.calls)
    owner.publish(checkpoint=ref(1))
    assert [method for method, _ in faulty.calls[before:]] == ["write", "write", "read"]
    assert read_head(faulty.inner) == owner.head
    owner.publish(checkpoint=ref(2))
    assert read_head(faulty.inner) == owner.head
    assert owner.head.kept == (ref(2), ref(1))


def test_a_lost_reply_of_the_take_over_is_found_to_be_mine(faulty: FaultyBucket) -> None:
    faulty.lose_replies(1)
    assert Owner.take_over(faulty, 1).head == read_head(faulty.inner)
    faulty.lose_replies(1)
    assert Owner.take_over(faulty, 1).head.owner == (1, 1)


def test_after_trouble_that_lasted_the_next_publish_finds_out_what_had_arrived(
    faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.run.records.RETRY_WAIT_MAX_S", 0.01)
    owner = Owner.take_over(faulty, 1)
    owner.publish(checkpoint=ref(1))
    faulty.lose_replies(1)
    down = itertools.chain([False], itertools.repeat(True))  # the write arrives, then nothing is reached any more
    faulty.before = lambda number, method, name: Transient("down") if next(down) else None
    with pytest.raises(Transient):
        owner.publish(checkpoint=ref(2), kept=[ref(2)])
    faulty.before = lambda number, method, name: None
    found = read_head(faulty.inner)
    assert found is not None
    assert found.checkpoint == ref(2)
    assert owner.publish(checkpoint=ref(3), kept=[ref(3)]) == (ref(1),)
    assert read_head(faulty.inner) == owner.head


def test_a_lost_reply_before_a_take_over_is_fenced(faulty: FaultyBucket) -> None:
    owner = Owner.take_over(faulty, 1)

    def taken_over(number: int, method: str, name: str) -> BaseException | None:
        if method != "write":
            return None
        Owner.take_over(faulty.inner, 2)
        return Transient("the reply was lost")

    faulty.after = taken_over
    with pytest.raises(Fenced, match=r"attempt 2\.0 owns"):
        owner.publish(checkpoint=ref(1))


def test_taking_over_gets_through_while_the_owner_before_publishes(faulty: FaultyBucket) -> None:
    before = Owner.take_over(faulty.inner, 1)
    steps = iter(range(3))

    def publishes(number: int, method: str, name: str) -> BaseException | None:
        if method == "write" and (step := next(steps, None)) is not None:
            before.publish(checkpoint=ref(step))
        return None

    faulty.before = publishes
    after = Owner.take_over(faulty, 2)
    assert after.head.checkpoint == ref(2)
    with pytest.raises(Fenced):
        before.publish(checkpoint=ref(3))


def test_of_many_who_take_over_at_once_the_newest_alone_can_publish(bucket: Bucket) -> None:
    owners: list[Owner] = []

    def race(attempt: int) -> None:
        try:
            owners.append(Owner.take_over(bucket, attempt))
        except Fenced:
            return

    threads = [threading.Thread(target=race, args=(attempt,)) for attempt in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    head = read_head(bucket)
    assert head is not None
    assert head.attempt == 6
    for owner in owners:
        if owner.head.attempt == 6:
            owner.publish(checkpoint=ref(1))
        else:
            with pytest.raises(Fenced):
                owner.publish(checkpoint=ref(1))


def test_publish_says_what_it_dropped(bucket: Bucket) -> None:
    owner = Owner.take_over(bucket, 1)
    assert owner.publish(checkpoint=ref(1)) == ()
    assert owner.publish(checkpoint=ref(2)) == ()
    assert owner.publish(checkpoint=ref(3), kept=[ref(3), ref(2)]) == (ref(1),)
    scored = ref(3).model_copy(update={"addition": "scored-1", "addition_crc32c": 1})
    assert owner.publish(checkpoint=scored) == ()
    assert owner.head.kept == (scored, ref(2))


def test_the_step_falls_only_when_the_newest_checkpoint_is_quarantined(bucket: Bucket) -> None:
    owner = Owner.take_over(bucket, 1)
    owner.publish(checkpoint=ref(1))
    owner.publish(checkpoint=ref(2))
    for kept in ([ref(1)], []):
        with pytest.raises(AssertionError):
            owner.publish(kept=kept)
    assert owner.publish(kept=[ref(1)], quarantined={ref(2).folder}) == ()
    head = read_head(bucket)
    assert head is not None
    assert head.checkpoint == ref(1)


def test_waiting_goes_with_its_reason_and_ends_with_it(bucket: Bucket) -> None:
    owner = Owner.take_over(bucket, 1)
    owner.publish(status=Status.WAITING, waiting=Waiting(until_s=9.0, why="the judge is down"))
    head = read_head(bucket)
    assert head is not None
    assert head.waiting == Waiting(until_s=9.0, why="the judge is down")
    assert Owner.take_over(bucket, 2).head.waiting is None


def test_finishing_survives_a_take_over_and_finished_refuses_one(bucket: Bucket) -> None:
    owner = Owner.take_over(bucket, 1)
    owner.publish(checkpoint=ref(9), status=Status.FINISHING)
    owner = Owner.take_over(bucket, 2)
    assert owner.head.status is Status.FINISHING
    owner.publish(status=Status.FINISHED)
    with pytest.raises(UsageError, match="is finished"):
        Owner.take_over(bucket, 3)
    assert read_head(bucket) == owner.head


@pytest.mark.parametrize(
    "wrong",
    [
        {"checkpoint": ref(1)},
        {"kept": (ref(1),)},
        {"status": "waiting"},
        {"waiting": Waiting(until_s=1, why="x")},
        {"attempt": 0},
        {"surprise": 1},
    ],
)
def test_a_head_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Head.model_validate({"attempt": 1, "incarnation": 0, "status": "running", "write_id": "w", **wrong})


@pytest.mark.parametrize("damage", [b"", b"{", b'{"attempt": 1}', b"\xff\xfe"])
def test_a_damaged_head_needs_a_person(bucket: Bucket, damage: bytes) -> None:
    bucket.write(HEAD, damage)
    with pytest.raises(NeedsPerson, match=r"head\.json cannot be read"):
        read_head(bucket)
