"""Segments: every row is written once and found again, and the join reads as if one attempt had done it all."""

import json

import pytest
from faults import FaultyBucket
from hypothesis import given
from hypothesis import strategies as st

from job.errors import Transient
from job.run.layout import segment_name
from job.run.segments import Row, SegmentWriter, join_metrics, read_rows, row_kind
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
    assert [i.name for i in bucket.list("")] == [segment_name(a, "metrics", n) for a in (1, 2) for n in (1, 2)]


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
    writer = SegmentWriter(bucket, 1, "metrics")
    for step in range(4):
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
