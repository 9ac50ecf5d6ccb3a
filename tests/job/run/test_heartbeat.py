"""Heartbeats: written in time, heard from, and never a danger to the training beside them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultyBucket

from job.errors import NeedsPerson, Transient
from job.run.claims import update_claims
from job.run.heartbeat import Heartbeats, read_heartbeat
from job.run.layout import CLAIMS, heartbeat_name
from job.storage import Bucket

NEVER_S = 1000.0
WAIT_S = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s
        threading.Event().wait(0.002)


class Heard:
    """What a heartbeat told its attempt."""

    def __init__(self) -> None:
        self.wants: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self.troubles: queue.Queue[str] = queue.Queue()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def beating(faulty: FaultyBucket, heard: Heard) -> Iterator[Callable[[float], Heartbeats]]:
    made = []

    def start(interval_s: float) -> Heartbeats:
        beats = Heartbeats(
            faulty,
            2,
            1,
            interval_s=interval_s,
            on_want=lambda want, reason: heard.wants.put((want, reason)),
            on_trouble=heard.troubles.put,
        )
        made.append(beats)
        beats.start()
        return beats

    yield start
    for beats in made:
        beats.stop()


Start = Callable[[float], Heartbeats]


def number(bucket: Bucket) -> int:
    found = read_heartbeat(bucket, 2)
    return 0 if found is None else found[0].number


def test_the_first_beat_comes_at_once(bucket: Bucket, beating: Start) -> None:
    assert read_heartbeat(bucket, 2) is None
    beating(NEVER_S)
    wait_until(lambda: number(bucket) == 1)
    found = read_heartbeat(bucket, 2)
    assert found is not None
    beat, updated_s = found
    assert (beat.attempt, beat.incarnation, beat.phase, beat.step) == (2, 1, "start", None)
    assert abs(updated_s - beat.beat_s) < 5


def test_beats_go_on_at_their_interval(bucket: Bucket, beating: Start) -> None:
    beating(0.001)
    wait_until(lambda: number(bucket) >= 4)


def test_a_new_phase_is_written_at_once_and_a_step_with_the_next_beat(bucket: Bucket, beating: Start) -> None:
    beats = beating(NEVER_S)
    wait_until(lambda: number(bucket) == 1)
    beats.beat(step=7)
    beats.beat(phase="start")
    beats.beat(phase="train")
    wait_until(lambda: number(bucket) == 2)
    found = read_heartbeat(bucket, 2)
    assert found is not None
    assert (found[0].phase, found[0].step) == ("train", 7)


def test_progress_is_when_phase_or_step_last_changed(bucket: Bucket, beating: Start) -> None:
    beats = beating(0.001)
    beats.beat(phase="train", step=1)
    wait_until(lambda: (found := read_heartbeat(bucket, 2)) is not None and found[0].step == 1)
    first = read_heartbeat(bucket, 2)
    beats.beat(phase="train", step=1)
    wait_until(lambda: number(bucket) >= (first[0].number if first else 0) + 2)
    later = read_heartbeat(bucket, 2)
    assert first is not None
    assert later is not None
    assert later[0].progress_s == first[0].progress_s
    assert later[0].beat_s > first[0].beat_s


@pytest.mark.parametrize("want", ["stop", "failed"])
def test_an_unwanted_run_is_heard_of_once_with_its_reason(
    bucket: Bucket, beating: Start, heard: Heard, want: str
) -> None:
    beating(0.001)
    wait_until(lambda: number(bucket) >= 2)
    assert heard.wants.empty()
    update_claims(bucket, lambda c: c.model_copy(update={"want": want, "reason": "by hand"}))
    assert heard.wants.get(timeout=WAIT_S) == (want, "by hand")
    seen = number(bucket)
    wait_until(lambda: number(bucket) >= seen + 3)
    assert heard.wants.empty()


@pytest.mark.parametrize("error", [Transient("down"), NeedsPerson("disk full")])
def test_trouble_is_told_once_and_beats_go_on_after_it(
    faulty: FaultyBucket, beating: Start, heard: Heard, error: Exception
) -> None:
    beats = beating(0.001)
    wait_until(lambda: number(faulty.inner) >= 1)
    faulty.before = lambda number, method, name: error if method == "write" else None
    assert heard.troubles.get(timeout=WAIT_S) == f"heartbeat: {error}"
    calls = len(faulty.calls)
    wait_until(lambda: len(faulty.calls) >= calls + 4)
    assert heard.troubles.empty()
    faulty.before = lambda number, method, name: None
    beats.beat(step=9)
    wait_until(lambda: (found := read_heartbeat(faulty.inner, 2)) is not None and found[0].step == 9)


def test_damaged_claims_do_not_end_the_beats(bucket: Bucket, beating: Start, heard: Heard) -> None:
    bucket.write(CLAIMS, b"{")
    beating(0.001)
    assert "claims.json cannot be read" in heard.troubles.get(timeout=WAIT_S)
    seen = number(bucket)
    wait_until(lambda: number(bucket) >= seen + 2)


def test_stopping_writes_the_last_state_and_ends_the_thread(bucket: Bucket, beating: Start) -> None:
    beats = beating(NEVER_S)
    wait_until(lambda: number(bucket) == 1)
    beats.beat(step=3)
    beats.stop()
    last = read_heartbeat(bucket, 2)
    assert last is not None
    assert (last[0].step, last[0].number) == (3, 2)
    generation = bucket.stat(heartbeat_name(2))
    beats.beat(phase="after")
    beats.stop()
    assert bucket.stat(heartbeat_name(2)) == generation


def test_the_sign_is_as_old_as_the_last_heartbeat_that_the_bucket_has(faulty: FaultyBucket, tmp_path: Path) -> None:
    sign = tmp_path / "heartbeat"
    trouble = threading.Event()
    outage = threading.Event()
    outage.set()
    faulty.before = lambda number, method, name: Transient("no bucket today") if outage.is_set() else None
    beats = Heartbeats(
        faulty, 2, 1, interval_s=0.01, on_want=lambda *_: None, on_trouble=lambda _: trouble.set(), sign=sign
    )
    beats.start()
    assert trouble.wait(WAIT_S)
    assert not sign.exists(), "the bucket has none yet"
    outage.clear()
    wait_until(sign.exists)
    beats.stop()
    assert read_heartbeat(faulty, 2) is not None
