"""Segments: every row is written once and found again, and the join reads as if one attempt had done it all."""

import contextlib
import json
from collections.abc import Mapping

import pytest
from faults import FaultyBucket, Killed
from hypothesis import given
from hypothesis import strategies as st

from job.errors import Transient
from job.run import segments
from job.run.layout import segment_name
from job.run.segments import Row, SegmentWriter, join_metrics, newest_row, read_rows, row_kind
from job.storage import Bucket


def rows(bucket: Bucket, kind: str = "metrics") -> list[tuple[int, dict[str, object]]]:
    return [(row.attempt, dict(row.fields)) for row in read_rows(bucket, kind)]


def test_rows_come_back_in_order_by_attempt(bucket: Bucket) -> None:
    for attempt in (1, 2):
        writer = SegmentWriter(bucket, attempt, "metrics")
        for step in range(4):
            writer.add({"step": step, "text": "two\nlines ✓"})
            if step % 2:
                writer.flush()
        writer.flush()
    SegmentWriter(bucket, 1, "events").add({"never": "flushed"})
    assert rows(bucket) == [(a, {"step": s, "text": "two\nlines ✓"}) for a in (1, 2) for s in range(4)]
    assert [i.name for i in bucket.list("")] == [segment_name(a, "metrics", 1) for a in (1, 2)]


def test_a_row_is_taken_as_it_is_when_it_is_added(bucket: Bucket) -> None:
    writer, row = SegmentWriter(bucket, 1, "metrics"), {"step": 1}
    writer.add(row)
    row["step"] = 2
    writer.flush()
    assert rows(bucket) == [(1, {"step": 1})]


def test_numbers_that_json_cannot_say_become_null(bucket: Bucket) -> None:
    writer = SegmentWriter(bucket, 1, "metrics")
    writer.add({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": -float("inf")}})
    writer.flush()
    assert rows(bucket) == [(1, {"a": None, "b": [None, 1.5], "c": {"d": None}})]


def test_a_later_incarnation_numbers_on(bucket: Bucket) -> None:
    for step in range(3):
        writer = SegmentWriter(bucket, 1, "metrics")
        writer.add({"step": step})
        writer.flush()
    assert rows(bucket) == [(1, {"step": step}) for step in range(3)]


def test_a_segment_is_added_to_until_it_is_full(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 40)
    writer = SegmentWriter(bucket, 1, "metrics")
    for step in range(10, 18):
        writer.add({"step": step})  # 12 bytes
        writer.flush()
    writer.add({"step": 18, "long": "x" * 50})
    writer.add({"step": 19})
    writer.flush()
    sizes = [(info.name[-8:-6], info.size_bytes) for info in bucket.list("")]
    assert sizes == [("01", 36), ("02", 36), ("03", 24), ("04", 84)], "rows of one flush stay together"
    assert [row["step"] for _, row in rows(bucket)] == list(range(10, 20))


def test_a_zombie_incarnation_and_the_new_one_never_write_over_each_other(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 30)
    zombie = SegmentWriter(bucket, 1, "events")
    told = []
    for turn in range(12):
        if turn == 3:
            new = SegmentWriter(bucket, 1, "events")
        for name, writer in (("zombie", zombie), ("new", new)) if turn >= 3 else (("zombie", zombie),):
            writer.add({name: turn})
            writer.flush()
            told.append((1, {name: turn}))
    assert sorted(map(str, rows(bucket, "events"))) == sorted(map(str, told))


def test_a_segment_that_somebody_removed_does_not_stop_the_writer(bucket: Bucket) -> None:
    writer = SegmentWriter(bucket, 1, "events")
    for turn in range(3):
        writer.add({"turn": turn})
        writer.flush()
        if turn == 1:
            bucket.delete(segment_name(1, "events", 1))
    assert rows(bucket, "events") == [(1, {"turn": 2})]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(9))
def test_killed_at_any_call_of_the_bucket_what_was_flushed_is_there_once(
    faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    """Seven flushes, a list before the first: whatever call is the last one, the next incarnation goes on."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 26)
    faulty.die_at(call, after=after)
    flushed, begun = [], []
    with contextlib.suppress(Killed):
        writer = SegmentWriter(faulty, 1, "metrics")
        for step in range(7):
            writer.add({"step": step})
            begun.append(step)
            writer.flush()
            flushed.append(step)
    assert len(flushed) == min(7, max(0, call - 1)), "every call was one of these"
    found = [row["step"] for _, row in rows(faulty.inner)]
    assert found == (begun if after else flushed)
    late = SegmentWriter(faulty.inner, 1, "metrics")
    late.add({"step": 99})
    late.flush()
    assert [row["step"] for _, row in rows(faulty.inner)] == [*found, 99]


def test_the_newest_row_is_found_in_the_last_few_segments(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 12)
    writer = SegmentWriter(bucket, 1, "metrics")
    for step in range(9):
        writer.add({"step": step})
        writer.flush()

    def newest_at(step: int) -> Mapping[str, object] | None:
        return newest_row(bucket, 1, "metrics", lambda row: row["step"] <= step)

    assert [newest_at(step) for step in (8, 6)] == [{"step": 8}, {"step": 6}]
    assert newest_at(5) is None, "it does not read all of a long run"
    assert newest_row(bucket, 2, "metrics", lambda row: True) is None


def test_a_number_that_another_incarnation_took_meanwhile_is_left_alone(bucket: Bucket) -> None:
    late, early = SegmentWriter(bucket, 1, "metrics"), SegmentWriter(bucket, 1, "metrics")
    early.add({"step": 1})
    early.flush()
    late.add({"step": 2})
    late.flush()
    assert rows(bucket) == [(1, {"step": 1}), (1, {"step": 2})]


def test_a_lost_reply_writes_no_row_twice(faulty: FaultyBucket) -> None:
    writer = SegmentWriter(faulty, 1, "metrics")
    writer.add({"step": 1})
    faulty.lose_replies(2)
    writer.flush()
    assert rows(faulty.inner) == [(1, {"step": 1})]


def test_rows_of_a_failed_flush_are_written_by_the_next_one_and_once(
    faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.run.records.RETRY_WAIT_MAX_S", 0.001)
    writer = SegmentWriter(faulty, 1, "metrics")
    writer.add({"step": 1})
    faulty.before = lambda number, method, name: Transient("down") if method == "read" else None
    faulty.after = lambda number, method, name: Transient("lost") if method == "write" else None
    with pytest.raises(Transient):
        writer.flush()
    faulty.before = faulty.after = lambda number, method, name: None
    writer.add({"step": 2})
    writer.flush()
    writer.flush()
    assert rows(faulty.inner) == [(1, {"step": 1}), (1, {"step": 2})]


def test_a_missing_number_and_a_damaged_line_lose_only_themselves(bucket: Bucket) -> None:
    for step in range(4):
        writer = SegmentWriter(bucket, 1, "metrics")
        writer.add({"step": step})
        writer.flush()
    bucket.delete(segment_name(1, "metrics", 2))
    bucket.write(segment_name(1, "metrics", 3), b'{"step": \xff}\n[1]\n{"step": 9}\n')
    bad: list[str] = []
    assert [row.fields["step"] for row in read_rows(bucket, "metrics", on_bad=bad.append)] == [0, 9, 3]
    assert [line.rpartition("/")[2] for line in bad] == [
        "000003.jsonl: line 1 is damaged; left out.",
        "000003.jsonl: line 2 is damaged; left out.",
    ]


def test_the_newest_attempt_wins_for_each_step_and_kind_and_nothing_is_above_the_durable_step() -> None:
    log = [
        Row(1, {"step": 1, "loss": 1.0}),
        Row(1, {"step": 2, "loss": 1.0}),
        Row(1, {"step": 2, "eval_loss": 1.0}),
        Row(1, {"step": 3, "loss": 1.0}),
        Row(3, {"step": 2, "loss": 3.0}),
        Row(3, {"step": 4, "loss": 3.0}),
        Row(3, {"step": 3, "train_runtime": 9.0, "train_loss": 0.5}),
        Row(2, {"step": 2, "loss": 2.0}),
        Row(2, {"step": 3, "loss": 2.0}),
        Row(2, {"event": "no step"}),
    ]
    assert join_metrics(log, 3) == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 3.0},
        {"step": 2, "eval_loss": 1.0},
        {"step": 3, "loss": 2.0},
        {"step": 3, "train_runtime": 9.0, "train_loss": 0.5},
    ]


def test_of_one_attempt_the_row_written_last_wins() -> None:
    assert join_metrics([Row(1, {"step": 1, "loss": 1}), Row(1, {"step": 1, "loss": 2})], 1) == [{"step": 1, "loss": 2}]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"loss": 1, "reward": 0.5}, "train"),
        ({"eval_loss": 1, "eval_reward": 1}, "eval"),
        ({"train_runtime": 1, "train_loss": 2}, "final"),
    ],
)
def test_the_kind_of_a_row_is_told_by_its_keys(fields: dict[str, float], kind: str) -> None:
    assert row_kind(fields) == kind


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.data())
def test_a_run_killed_anywhere_logs_what_an_uninterrupted_one_logs(ends: list[int], data: st.DataObject) -> None:
    """Each attempt goes on from a durable step, logs some steps more, and dies; rows are functions of the step."""
    durable, log = 0, []
    for attempt, end in enumerate(ends, 1):
        reached = durable + end
        log += [Row(attempt, {"step": step, "loss": step * 0.5}) for step in range(durable + 1, reached + 1)]
        durable = data.draw(st.integers(durable, reached))
    assert join_metrics(log, durable) == [{"step": s, "loss": s * 0.5} for s in range(1, durable + 1)]
    json.dumps(join_metrics(log, durable))
