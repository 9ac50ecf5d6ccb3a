"""`baton logs`: every line once, whoever told of it, in order of time; hostile text harmless; few requests while it
follows."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from vm_runs import PREEMPTED, make, vm

import infra.cli.logs
from infra.cli.run import run
from infra.reading.log_lines import LogJoin
from infra.reading.tail import AttemptTail
from job.run.attempt import AttemptRecord, Ended, write_record
from job.run.claims import update_claims
from job.run.segments import SegmentWriter
from job.storage import Bucket, open_bucket

T = 1_790_000_000.0
Captured = pytest.CaptureFixture[str]


def rows(*lines: tuple[float, str]) -> bytes:
    return b"".join(json.dumps({"at_s": T + at, "line": line}).encode() + b"\n" for at, line in lines)


LOG = rows((30, "training begins"), (31, "step 1"), (32, "step 1"), (40, "two\nlines"))
CONSOLE = (
    f"booting\nbaton-phase boot {T + 1:.3f}\nprepared\nbaton-phase container {T + 20:.3f}\n"
    "training begins\nstep 1\nprogress\nstep 1\ntwo\nlines\nOut of memory: Killed process 7\n"
).encode()
JOINED = [
    "booting",
    f"baton-phase boot {T + 1:.3f}",
    "prepared",
    f"baton-phase container {T + 20:.3f}",
    "training begins",
    "step 1",
    "progress",
    "step 1",
    "two",
    "lines",
    "Out of memory: Killed process 7",
]


def test_both_witnesses_together_tell_each_line_once_in_its_place() -> None:
    found = LogJoin(1).add({"logs/000001.jsonl": LOG, "console/000001.log": CONSOLE}, last=True)
    assert [line.text for line in found] == JOINED
    assert [line.at_s - T for line in found[3:]] == [20, 30, 31, 31, 32, 40, 40, 40]
    assert [line.source for line in found if line.text in ("progress", "lines")] == ["console", "agent"]


@pytest.mark.parametrize("seed", range(40))
def test_in_whatever_pieces_they_arrive_every_line_comes_out_once(seed: int) -> None:
    draw = random.Random(seed)
    segments = sorted(draw.sample(range(1, len(CONSOLE)), 2))
    pieces = [CONSOLE[a:b] for a, b in zip([0, *segments], [*segments, len(CONSOLE)], strict=True)]
    steps = [("logs/000001.jsonl", LOG[: LOG.index(b"\n", cut) + 1]) for cut in sorted(draw.sample(range(len(LOG)), 3))]
    steps.append(("logs/000001.jsonl", LOG))
    console = [
        (f"console/{number:06d}.log", piece[:end])
        for number, piece in enumerate(pieces, 1)
        for end in (draw.randrange(len(piece)), len(piece))
    ]
    order = [0] * len(steps) + [1] * len(console)
    draw.shuffle(order)
    join, found, of = LogJoin(1), list[str](), (iter(steps), iter(console))
    for which in order:
        name, data = next(of[which])
        found += [line.text for line in join.add({name: data})]
    assert sorted(found) == sorted(JOINED)


def test_damaged_rows_are_left_out_and_an_unfinished_line_waits_for_its_end() -> None:
    join = LogJoin(2)
    objects = {"logs/000001.jsonl": b'{\n[]\n{"line": 3}\n{"line": "good"}\n', "console/000001.log": b"half"}
    assert [line.text for line in join.add(objects)] == ["good"]
    assert [line.text for line in join.add({"console/000001.log": b"half a line"}, last=True)] == ["half a line"]


def write(bucket: Bucket, attempt: int, *lines: str) -> SegmentWriter:
    writer = SegmentWriter(bucket, attempt, "logs")
    for line in lines:
        writer.add({"at_s": T + 100 * attempt, "line": line})
    writer.flush()
    return writer


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(f"file://{tmp_path}/runs/x")


def two_attempts(bucket: Bucket) -> None:
    make(bucket, vm(1, PREEMPTED), vm(2))
    bucket.write("attempts/0001/console/000001.log", CONSOLE)
    write(bucket, 1, "first \x1b[31mred\u202e")
    write(bucket, 2, "second", "third")


def test_all_attempts_are_shown_and_nothing_hostile_reaches_the_terminal(bucket: Bucket, capsys: Captured) -> None:
    two_attempts(bucket)
    assert run(["logs", bucket.uri]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == ["1"] * 12 + ["2"] * 2
    assert "first \ufffd[31mred\ufffd" in shown
    assert "\x1b" not in shown

    assert run(["logs", bucket.uri, "--tail", "3", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["attempt"], line["text"]) for line in told[1:]] == [(2, "second"), (2, "third")]
    assert run(["logs", bucket.uri, "--attempt", "2"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_what_is_no_run_and_what_is_no_attempt_is_said_in_a_line(bucket: Bucket, capsys: Captured) -> None:
    assert run(["logs", bucket.uri]) == 2
    assert "there is no run at" in capsys.readouterr().err
    two_attempts(bucket)
    assert run(["logs", bucket.uri, "--attempt", "9"]) == 2
    assert "has no attempt 9" in capsys.readouterr().err


def test_following_goes_on_with_the_next_attempt_and_ends_with_the_run(
    bucket: Bucket, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(bucket, vm(1))
    writer = write(bucket, 1, "one")
    now_s, happened = [1000.0], iter(range(100))

    def pass_time(spent_s: float) -> None:
        now_s[0] += spent_s
        turn = next(happened)
        if turn == 1:
            writer.add({"at_s": T, "line": "two"})
            writer.flush()
        if turn == 3:
            update_claims(bucket, lambda claims: claims.model_copy(update={"attempts": (vm(1, PREEMPTED), vm(2))}))
            write(bucket, 2, "three")
        if turn == 20:
            ended = Ended(exit_code=75, at_s=T)
            write_record(bucket, AttemptRecord(number=2, kind="vm", host="h", pid=1, started_at_s=T, ended=ended))
            update_claims(bucket, lambda claims: claims.model_copy(update={"want": "stop"}))
            bucket.write("attempts/0002/console/000001.log", b"the last words")

    monkeypatch.setattr(infra.cli.logs, "time", type("", (), {"monotonic": lambda: now_s[0], "sleep": pass_time}))
    assert run(["logs", bucket.uri, "-f"]) == 0
    shown = [line[21:] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["one", "two", "three", "the last words"]


def test_a_look_at_an_attempt_is_one_listing_and_a_read_of_what_changed(bucket: Bucket) -> None:
    writer = write(bucket, 1, "one")
    bucket.write("attempts/0001/console/000001.log", b"boot\n")
    bucket.write("attempts/0001/metrics/000001.jsonl", b"{}\n")
    tail = AttemptTail(bucket, 1, lambda name: name.startswith(("logs/", "console/")))
    assert [*tail.look()] == ["console/000001.log", "logs/000001.jsonl"]
    assert tail.look() == {}
    writer.add({"line": "two"})
    writer.flush()
    assert [*tail.look()] == ["logs/000001.jsonl"]


def test_a_reader_that_goes_away_is_no_error(bucket: Bucket) -> None:
    make(bucket, vm(1))
    write(bucket, 1, *(f"line {number}" for number in range(20_000)))
    code = f"import sys; from infra.cli.run import run; sys.exit(run(['logs', {bucket.uri!r}]))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        assert told.stdout is not None
        assert told.stderr is not None
        assert told.stdout.readline().split()[-2:] == [b"line", b"0"]
        told.stdout.close()
        assert told.stderr.read() == b""
    assert told.returncode == 0
