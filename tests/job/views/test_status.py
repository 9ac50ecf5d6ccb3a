"""Status: what is wanted goes over what the owner says, and every attempt shows how it ended, from the best witness."""

import io
from typing import Any

import pytest
from rich.console import Console

from job.errors import UsageError
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, write_record
from job.run.claims import Claim, Claims, SeenEnd, update_claims
from job.run.head import CheckpointRef, Head, Owner, Status, Waiting
from job.run.heartbeat import Heartbeat
from job.run.layout import heartbeat_name
from job.run.segments import SegmentWriter
from job.run.spec import Spec, SpecModel, write_spec
from job.storage import Bucket
from job.storage.usage import Usage
from job.views.status import RunStatus, describe, read_status
from job.views.status_table import headline, render

NOW_S = 1_000_000.0
URI = "file:///runs/a"


def spec(**recipe: Any) -> Spec:
    return Spec(
        revision=1,
        recipe={"train": {"max_steps": 100}, "attempt": {"heartbeat_s": 10.0}} | recipe,
        model=SpecModel(name="tiny"),
        fingerprint="f",
        started_by="somebody",
        created_at=NOW_S,
    )


def claim(number: int, ended: SeenEnd | None = None) -> Claim:
    return Claim(number=number, kind="process", claimed_at_s=NOW_S - 500, host="box", pid=1, ended=ended)


def claims(*attempts: Claim, want: str = "run", reason: str | None = None) -> Claims:
    return Claims.model_validate({"want": want, "reason": reason, "attempts": attempts})


def record(number: int, exit_code: int | None = None, reason: str = "", **more: Any) -> AttemptRecord:
    ended = None if exit_code is None else Ended(exit_code=exit_code, reason=reason, step=7, at_s=NOW_S)
    return AttemptRecord(number=number, host="box", pid=1, started_at_s=NOW_S - 400, ended=ended, **more)


def head(step: int | None, attempt: int = 1, status: Status = Status.RUNNING, waiting: Waiting | None = None) -> Head:
    ref = None if step is None else CheckpointRef(folder="c", step=step, attempt=attempt, manifest_crc32c=0)
    return Head(
        attempt=attempt,
        incarnation=0,
        status=status,
        waiting=waiting,
        checkpoint=ref,
        kept=() if ref is None else (ref,),
        write_id="w",
    )


def beat(number: int, age_s: float, step: int | None = 9) -> tuple[Heartbeat, float]:
    told = Heartbeat(attempt=number, incarnation=0, phase="train", step=step, progress_s=0.0, beat_s=0.0, number=1)
    return told, NOW_S - age_s


def look(
    claimed: Claims,
    owner: Head | None = None,
    records: tuple[AttemptRecord, ...] = (),
    heartbeat: tuple[Heartbeat, float] | None = None,
) -> RunStatus:
    heartbeats = {} if heartbeat is None else {heartbeat[0].attempt: heartbeat}
    return describe(URI, spec(), claimed, owner, records, heartbeats, None, NOW_S)


def test_a_run_at_work_shows_its_step_and_what_is_durable() -> None:
    run = look(claims(claim(1)), head(8), (record(1),), beat(1, age_s=4))
    assert (run.status, run.at_work, run.step, run.durable_step, run.max_steps) == ("running", True, 9, 8, 100)
    assert run.attempts[0].how == "at work: train"
    assert headline(run)[:2] == [f"{URI}: running", "step 9 of 100, durable up to step 8"]


@pytest.mark.parametrize(("want", "shown"), [("stop", "stopped"), ("failed", "failed")])
def test_what_is_wanted_goes_over_what_the_owner_says(want: str, shown: str) -> None:
    run = look(claims(claim(1), want=want, reason="over the cap"), head(8), (record(1, 3),))
    assert (run.status, run.reason) == (shown, "over the cap")


def test_a_finished_run_stays_finished() -> None:
    assert look(claims(claim(1), want="stop"), head(8, status=Status.FINISHED)).status == "finished"


def test_a_waiting_run_says_why() -> None:
    waiting = Waiting(until_s=NOW_S + 60, why="the judge\x1b[2J is down")
    run = look(claims(claim(1)), head(8, status=Status.WAITING, waiting=waiting))
    assert (run.status, run.reason) == ("waiting", "the judge\ufffd[2J is down")


def test_a_run_without_head_is_starting() -> None:
    run = look(claims(claim(1)))
    assert (run.status, run.step, run.attempts[0].how) == ("starting", None, "claimed, not yet begun")


@pytest.mark.parametrize(
    ("exit_code", "reason", "how"),
    [
        (0, "finished", "finished"),
        (1, "it broke", "bug: it broke"),
        (3, "out of memory", "needs a person: out of memory"),
        (4, "attempt 2 owns it", "fenced: attempt 2 owns it"),
        (75, "SIGTERM", "preempted: SIGTERM"),
        (76, "", "transient trouble"),
        (99, "", "exit 99"),
    ],
)
def test_an_attempts_own_last_word_counts_first(exit_code: int, reason: str, how: str) -> None:
    seen = SeenEnd(how="preempted", at_s=NOW_S)
    attempt = look(claims(claim(1, ended=seen)), head(7), (record(1, exit_code, reason),)).attempts[0]
    assert (attempt.how, attempt.exit_code, attempt.ended, attempt.last_step) == (how, exit_code, True, 7)


def test_then_counts_what_was_seen_from_outside() -> None:
    seen = SeenEnd(how="preempted", at_s=NOW_S)
    assert look(claims(claim(1, ended=seen)), head(7), (record(1),)).attempts[0].how == "preempted"


def test_an_attempt_without_a_word_that_was_superseded_was_killed_or_lost() -> None:
    run = look(claims(claim(1), claim(2), claim(3)), head(7, 3), (record(1), record(3)), beat(3, age_s=1))
    assert [attempt.how for attempt in run.attempts] == ["killed or lost", "never began", "at work: train"]
    assert [attempt.ended for attempt in run.attempts] == [True, True, False]


def test_a_killed_attempt_shows_the_step_that_it_told_of_last() -> None:
    run = look(claims(claim(1), claim(2)), head(7), (record(1),), beat(1, age_s=90, step=8))
    assert (run.attempts[0].how, run.attempts[0].from_step, run.attempts[0].last_step) == ("killed or lost", 0, 8)
    assert run.step == 7

    resumed = record(2, resumed_from=ResumedFrom(step=5, folder="c"))
    silent = look(claims(claim(1), claim(2)), head(7), (record(1), resumed))
    assert silent.attempts[0].last_step == 5, "what the next one went on from was its work"


def test_every_attempt_tells_when_it_was_last_heard_of() -> None:
    seen = SeenEnd(how="preempted", at_s=NOW_S - 3)
    run = look(claims(claim(1), claim(2, ended=seen), claim(3)), head(7), (record(1, 75), record(2)), beat(3, age_s=90))
    assert [attempt.heard_s for attempt in run.attempts] == [NOW_S, NOW_S - 3, NOW_S - 90]
    assert look(claims(claim(1))).attempts[0].heard_s is None


def test_what_storage_was_asked_for_and_cost_is_summed_over_the_attempts() -> None:
    used = Usage(class_a=1000, class_b=200, sent_bytes=3_000_000)
    paid = {"storage": used, "storage_usd": 0.005}
    run = look(claims(claim(1), claim(2)), head(9, 2), (record(1, 75, **paid), record(2, 0, **paid)))
    assert run.storage == used + used
    assert run.storage_usd_per_hour == pytest.approx(0.01 * 3600 / 800), "each lived for 400 s"
    (line,) = [line for line in headline(run) if line.startswith("storage")]
    assert "2,400 operations, 6 MB sent" in line
    assert "$0.01" in line


def test_a_folder_bills_nothing_and_status_does_not_speak_of_it() -> None:
    run = look(claims(claim(1)), head(9), [record(1, 75)])
    assert run.storage_usd_per_hour is None
    assert not any("storage" in line for line in headline(run))


def test_an_attempt_that_went_silent_is_not_called_dead() -> None:
    run = look(claims(claim(1)), head(8), (record(1),), beat(1, age_s=240))
    assert (run.at_work, run.attempts[0].ended, run.attempts[0].how) == (False, False, "no sign of life for 4 min")
    assert headline(run)[0] == f"{URI}: running, but no attempt is at work"


def test_three_missed_heartbeats_make_it_silent() -> None:
    assert look(claims(claim(1)), head(8), (record(1),), beat(1, age_s=30)).at_work
    assert not look(claims(claim(1)), head(8), (record(1),), beat(1, age_s=31)).at_work


def test_an_attempt_that_ended_is_not_at_work_however_fresh_its_heartbeat() -> None:
    assert not look(claims(claim(1)), head(8), (record(1, 75),), beat(1, age_s=1)).at_work


def test_the_table_shows_attempts_phases_and_no_control_characters() -> None:
    records = (
        record(1, 3, "bad\x1b]0;owned\x07 [red]word[/red]", phases={"import": 3.25, "train": 20.0}),
        record(2, None, phases={"import": 3.0}, resumed_from=ResumedFrom(step=7, folder="c", lost_steps=2)),
    )
    run = look(claims(claim(1), claim(2)), head(8, 2), records, beat(2, age_s=1))
    stream = io.StringIO()
    Console(file=stream, width=160).print(render(run))
    shown = stream.getvalue()
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "needs a person: bad\ufffd]0;owned\ufffd [red]word[/red]" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert any(row[:1] == ["2"] and "7 to 9" in " ".join(row) for row in rows)
    assert ["1", "3.2", "20.0"] in rows or ["1", "3.3", "20.0"] in rows
    assert ["2", "3.0"] in rows


def test_it_reads_all_of_it_from_the_bucket(bucket: Bucket) -> None:
    write_spec(bucket, spec())
    update_claims(bucket, lambda before: before.model_copy(update={"attempts": (claim(1),)}))
    owner = Owner.take_over(bucket, 1)
    owner.publish(checkpoint=CheckpointRef(folder="c", step=5, attempt=1, manifest_crc32c=0))
    write_record(bucket, record(1, phases={"train": 2.0}))
    bucket.write(heartbeat_name(1), beat(1, age_s=0, step=6)[0].to_bytes())
    metrics = SegmentWriter(bucket, 1, "metrics")
    for step in (4, 5, 6):
        metrics.add({"step": step, "reward": step / 10, "loss": 0.5, "step_time": 0.25})
        metrics.flush()
    metrics.add({"step": 5, "eval_reward": 0.9})
    metrics.flush()

    run = read_status(bucket)
    assert (run.status, run.at_work, run.step, run.durable_step) == ("running", True, 6, 5)
    assert run.training is not None
    assert (run.training.step, run.training.reward, run.training.step_s) == (5, 0.5, 0.25)
    assert headline(run)[2] == "at step 5: reward 0.5, loss 0.5, 0.25 s/step"
    assert RunStatus.model_validate_json(run.model_dump_json()) == run


def test_where_there_is_no_run_it_says_so_and_leaves_nothing(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="there is no run at"):
        read_status(bucket)
    assert list(bucket.list("")) == []
