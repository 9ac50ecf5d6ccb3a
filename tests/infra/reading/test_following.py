"""Whoever follows a run hears of each phase once, with its seconds, of each end, and what comes next; then it ends."""

from typing import Any

import pytest
from vm_runs import NOW_S, PREEMPTED, head, make, vm

import infra.cli.follow
from infra.cli.run import run
from infra.reading.following import Follower, Seen, newest_rows, phases, shown_rows, verdict
from job.run.attempt import AttemptRecord, Ended, ResumedFrom, write_record
from job.run.claims import Claim, Claims, Want, update_claims
from job.run.console import VmPhase
from job.run.head import Head, Status
from job.run.heartbeat import Heartbeat
from job.run.layout import HEAD, heartbeat_name
from job.run.looked import Looked
from job.run.segments import SegmentWriter
from job.storage import Bucket, open_bucket

URI = "gs://b/runs/x"
BOOTED = (VmPhase("boot", NOW_S + 30), VmPhase("pull", NOW_S + 50), VmPhase("container", NOW_S + 110))


def seen(**more: Any) -> Seen:
    plain: dict[str, Any] = {"uri": URI, "claims": claims(open_vm(1)), "head": None, "record": None, "heartbeat": None}
    plain |= {"booted": (), "rows": None, "first_step_s": None, "looked": None, "now_s": NOW_S + 200}
    return Seen(**(plain | more))


def claims(*attempts: Claim, want: Want = "run", reason: str | None = None) -> Claims:
    return Claims(want=want, reason=reason, attempts=attempts)


def open_vm(number: int) -> Claim:
    return vm(number).model_copy(update={"claimed_at_s": NOW_S})


def record(*, train: bool = False, step: int = 0, ended: Ended | None = None, kind: Any = "vm") -> AttemptRecord:
    resumed = ResumedFrom(step=step, folder="c") if step else None
    told = {"look": 2.0, "import": 6.0, **({"train": 5.0} if train else {})}
    started_s = NOW_S + 112
    return AttemptRecord(
        number=1, kind=kind, host="h", pid=1, started_at_s=started_s, phases=told, resumed_from=resumed, ended=ended
    )


def beat(step: int | None, phase: str = "train", progress_s: float = NOW_S + 125) -> tuple[Heartbeat, float]:
    told = Heartbeat(attempt=1, incarnation=0, phase=phase, step=step, progress_s=progress_s, beat_s=0.0, number=1)
    return told, NOW_S + 190


def told(*looks: Seen) -> list[str]:
    lines: list[str] = []
    follower = Follower(lines.append)
    for look in looks:
        follower.tell(look)
    return lines


def test_each_phase_is_told_once_when_it_is_over() -> None:
    looked = Looked(watcher="w", at_s=NOW_S + 190, next_at_s=NOW_S + 300)
    looks = [
        seen(looked=looked),
        seen(looked=looked, booted=BOOTED[:1]),
        seen(looked=looked, booted=BOOTED),
        seen(looked=looked, booted=BOOTED, record=record()),
        seen(looked=looked, booted=BOOTED, record=record(train=True), heartbeat=beat(0)),
        seen(looked=looked, booted=BOOTED, record=record(train=True), heartbeat=beat(1), now_s=NOW_S + 123.5),
        seen(looked=looked, booted=BOOTED, record=record(train=True), heartbeat=beat(9), now_s=NOW_S + 245),
    ]
    assert told(*looks, *looks[-1:]) == [
        "attempt 1: z-a g2-standard-4 spot, $3.60 an hour",
        "  create         30.0 s",
        "  boot           20.0 s",
        "  pull           60.0 s",
        "  restore        10.0 s",
        "  first step      3.5 s",
    ]


def test_who_comes_late_is_not_told_a_first_step_that_nobody_saw() -> None:
    late = seen(booted=BOOTED, record=record(train=True, step=40), heartbeat=beat(60))
    lines = told(late, late)
    assert not [line for line in lines if "first step" in line]
    assert f"  resumed {URI} from step 40 (c): nothing was lost" in lines


def test_a_first_step_that_the_attempt_told_of_needs_nobody_to_see_it() -> None:
    steps: dict[str, Any] = {"rows": (41, 60), "first_step_s": 2.5, "heartbeat": beat(60)}
    late = seen(booted=BOOTED, record=record(train=True, step=40), **steps)
    assert "  first step      2.5 s" in told(late, late)
    later = seen(booted=BOOTED, record=record(train=True, step=39), **steps)
    assert not [line for line in told(later) if "first step" in line], "41 is not its first"


def test_of_many_rows_at_once_the_newest_is_shown_and_every_evaluation() -> None:
    rows: list[dict[str, Any]] = [{"step": 1, "reward": 1}, {"step": 1, "eval_reward": 1}, {"step": 2, "reward": 2}]
    assert shown_rows([*rows, {"step": 2, "train_loss": 3}]) == rows[1:]
    assert shown_rows([]) == []


def test_an_attempt_that_falls_silent_is_said_to_be() -> None:
    looks = [seen(record=record(train=True), heartbeat=beat(3), now_s=NOW_S + at) for at in (200, 400, 600)]
    assert [line for line in told(*looks) if "no sign" in line] == ["attempt 1: no sign of life for 4 min"]


def test_without_a_console_what_is_known_is_told() -> None:
    assert [(p.name, p.to_s - p.from_s) for p in phases(open_vm(1), seen(record=record(train=True)), None)] == [
        ("restore", 8.0)
    ]
    process = Claim(number=1, kind="process", claimed_at_s=NOW_S, host="box", pid=1)
    assert [p.name for p in phases(process, seen(record=record(train=True, kind="process")), NOW_S + 130)] == [
        "restore",
        "first step",
    ]


def test_an_end_is_told_and_then_the_next_attempt() -> None:
    ended = Ended(exit_code=75, reason="SIGTERM", step=7, at_s=NOW_S)
    hostile = vm(1, PREEMPTED.model_copy(update={"detail": "gone\x1b[2J"}))
    lines = told(
        seen(record=record(ended=ended)),
        seen(claims=claims(hostile)),
        seen(claims=claims(hostile, open_vm(2))),
    )
    assert lines == [
        "attempt 1: z-a g2-standard-4 spot, $3.60 an hour",
        "attempt 1 is over: preempted: SIGTERM",
        f"nobody has ever looked after it: baton watchdog run {URI}, or baton watchdog up",
        "attempt 2: z-a g2-standard-4 spot, $3.60 an hour",
    ]


def test_attempts_that_came_and_went_between_two_looks_are_told_too() -> None:
    stockout = vm(2, PREEMPTED.model_copy(update={"how": "stockout", "detail": "no L4"}))
    drilled = vm(1, PREEMPTED).model_copy(update={"drill": "me@box"})
    assert told(seen(), seen(claims=claims(drilled, stockout, open_vm(3)))) == [
        "attempt 1: z-a g2-standard-4 spot, $3.60 an hour",
        "attempt 1 is over: preempted (a drill by me@box)",
        "attempt 2: z-a g2-standard-4 spot, $3.60 an hour",
        "attempt 2 is over: stockout: no L4",
        "attempt 3: z-a g2-standard-4 spot, $3.60 an hour",
    ]


def test_what_the_watchdog_waits_for_is_told_while_nothing_works() -> None:
    def waits(note: str) -> Seen:
        looked = Looked(watcher="w", at_s=NOW_S + 190, next_at_s=NOW_S + 300, note=note)
        return seen(claims=claims(vm(1, PREEMPTED)), looked=looked)

    lines = told(waits("no capacity in z-a"), waits("no capacity in z-a"), waits("next try in 5 min"))
    assert lines[-2:] == ["  no capacity in z-a", "  next try in 5 min"]


@pytest.mark.parametrize(
    ("look", "exit_code", "said"),
    [
        (seen(head=head(Status.FINISHED, step=100)), 0, "is finished after step 100; its result: baton get"),
        (seen(claims=claims(vm(1, PREEMPTED), want="stop", reason="by me")), 75, "is stopped: by me"),
        (seen(claims=claims(vm(1, PREEMPTED), want="failed", reason="crash loop")), 3, "has failed: crash loop"),
    ],
)
def test_there_is_an_end_to_it(look: Seen, exit_code: int, said: str) -> None:
    found = verdict(look)
    assert found is not None
    assert (found.exit_code, said in found.line) == (exit_code, True)


def test_a_run_that_was_told_to_stop_is_watched_until_its_attempt_has_left() -> None:
    assert verdict(seen(claims=claims(open_vm(1), want="stop"))) is None
    assert verdict(seen(claims=claims(open_vm(1)))) is None


def test_only_the_newest_segment_of_metrics_is_read() -> None:
    names = ["attempt.json", "metrics/000001.jsonl", "metrics/000002.jsonl", "console/000001.log"]
    assert newest_rows(names) == ["attempt.json", "metrics/000002.jsonl", "console/000001.log"]


def write_attempt(bucket: Bucket, number: int, steps: range, ended: Ended | None = None) -> None:
    phases_s = {"look": 1.0, "train": 1.0}
    write_record(
        bucket,
        AttemptRecord(number=number, kind="vm", host="h", pid=1, started_at_s=NOW_S, phases=phases_s, ended=ended),
    )
    beating = Heartbeat(
        attempt=number, incarnation=0, phase="train", step=steps[-1], progress_s=NOW_S, beat_s=NOW_S, number=1
    )
    bucket.write(heartbeat_name(number), beating.to_bytes())
    writer = SegmentWriter(bucket, number, "metrics")
    for step in steps:
        writer.add({"step": step, "reward": 0.5, "reward_std": 0.1, "loss": 0.01, "step_time": 0.2})
    writer.flush()


def test_attach_shows_the_run_through_a_preemption_to_its_end(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = open_bucket(f"file://{tmp_path}/runs/x")
    make(bucket, vm(1))
    turns = iter(range(100))

    def pass_time(_: float) -> None:
        turn = next(turns)
        if turn == 0:
            console = f"baton-phase boot {NOW_S}\nbaton-phase pull {NOW_S + 9}\n"
            bucket.write("attempts/0001/console/000001.log", console.encode())
            write_attempt(bucket, 1, range(1, 5))
            bucket.write("attempts/0001/heartbeat.json", b"nonsense \x1b[2J")
        if turn == 1:
            update_claims(bucket, lambda before: before.model_copy(update={"attempts": (vm(1, PREEMPTED), vm(2))}))
            write_attempt(bucket, 2, range(3, 9))
        if turn == 2:
            bucket.write(HEAD, head(Status.FINISHED, attempt=2, step=100).to_bytes())

    monkeypatch.setattr(infra.cli.follow.time, "sleep", pass_time)
    assert run(["attach", bucket.uri]) == 0
    shown = capsys.readouterr().err
    assert "attempt 1: z-a g2-standard-4 spot" in shown
    assert "  boot            9.0 s" in shown
    assert "/100  reward 0.5 ± 0.1" in shown
    assert "attempt 2: " in shown
    assert f"{bucket.uri} is finished after step 100; its result: baton get {bucket.uri}" in shown
    assert "\x1b" not in shown


def test_ctrl_c_detaches_and_says_how_to_come_back(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = open_bucket(f"file://{tmp_path}/runs/x")
    make(bucket, vm(1))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(infra.cli.follow.time, "sleep", interrupt)
    assert run(["attach", bucket.uri]) == 0
    assert f"detached; the run goes on. See it again: baton attach {bucket.uri}" in capsys.readouterr().err


def test_a_network_that_fails_is_said_once_and_got_over(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from job.errors import Transient

    bucket = open_bucket(f"file://{tmp_path}/runs/x")
    make(bucket, vm(1), status=Status.RUNNING)
    turns = iter(range(100))

    def read(*_: Any) -> Head:
        if (turn := next(turns)) < 4:
            raise Transient("no network.")
        return head(Status.FINISHED if turn > 4 else Status.RUNNING)

    monkeypatch.setattr(infra.cli.follow, "read_head", read)
    monkeypatch.setattr(infra.cli.follow.time, "sleep", lambda _: None)
    assert run(["attach", bucket.uri]) == 0
    assert capsys.readouterr().err.count("the run cannot be seen: no network. Trying on.") == 1


def test_after_ten_steps_of_its_own_the_estimate_is_replaced_by_what_was_measured() -> None:
    began_s = NOW_S + 120  # its own record has it

    def line(step: int | None, max_steps: int | None = 100) -> list[str]:
        made = 0 if step is None else step - 30
        look = seen(
            record=record(train=True, step=30),
            heartbeat=beat(step, progress_s=began_s + 2.0 * made),
            max_steps=max_steps,
        )
        return [said for said in told(look) if "measured over" in said]

    assert line(None) == line(39) == line(40, max_steps=None) == []
    (said,) = line(40)
    assert said.startswith("  measured over 10 steps: 2 s each; 2 min of steps, $")
    look = seen(record=record(train=True, step=30), heartbeat=beat(50, progress_s=began_s + 40), max_steps=100)
    assert len([said for said in told(look, look) if "measured over" in said]) == 1
