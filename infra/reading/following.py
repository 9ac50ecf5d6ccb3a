"""What a person who watches a run is told, and when: each attempt's phases with their seconds, how it ended, what comes
next. Pure, but for what a Follower remembers of what it said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from job.errors import ExitCode
from job.run.attempt import AttemptRecord
from job.run.claims import Claim, Claims
from job.run.console import VmPhase
from job.run.costs import spent_usd
from job.run.head import Head, Status
from job.run.heartbeat import Heartbeat
from job.run.looked import Looked
from job.views.attempts import AttemptView, describe_attempt, ending_words, where_words
from job.views.forecast import MEASURED_STEPS, Forecast, forecast_line, project
from job.views.progress import resumed_line
from job.views.status import describe_looked
from job.views.status_table import looked_line
from job.views.text import printable

TRAIN = "train"
SILENT_S = 60.0


@dataclass(frozen=True)
class Seen:
    """One look at a run, and at its newest attempt."""

    uri: str
    claims: Claims
    head: Head | None
    record: AttemptRecord | None
    heartbeat: tuple[Heartbeat, float] | None
    """With the bucket's time of it."""
    booted: tuple[VmPhase, ...]
    rows: tuple[int, int] | None
    """First and newest step of the attempt's metrics that were read."""
    first_step_s: float | None
    """What the first of them took."""
    looked: Looked | None
    now_s: float
    max_steps: int | None = None


@dataclass(frozen=True)
class Phase:
    """A part of an attempt's way to its first step; by whichever clock told of it."""

    name: str
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Verdict:
    """Why there is nothing more to watch."""

    exit_code: int
    line: str


def phases(claim: Claim | None, seen: Seen, stepped_s: float | None) -> list[Phase]:
    """The phases that are over, in their order; pure. `stepped_s`: when the first step was seen, where it was."""
    marks: list[tuple[str, float | None]] = []
    if claim is not None and claim.kind == "vm":
        at = {phase.name: phase.at_s for phase in seen.booted}
        marks = [("create", claim.claimed_at_s), ("boot", at.get("boot")), ("pull", at.get("pull"))]
        began_s = None if seen.record is None else seen.record.started_at_s
        marks.append(("restore", at.get("container", began_s)))
    elif seen.record is not None:
        marks.append(("restore", seen.record.started_at_s))
    began_s, begun_at = training_s(seen), begun_at_step(seen)
    if began_s is not None and seen.rows is not None and seen.first_step_s is not None and seen.rows[0] == begun_at + 1:
        stepped_s = began_s + seen.first_step_s  # its own word is better than when somebody looked
    marks += [("first step", began_s), ("", stepped_s)]
    found = []
    for (name, from_s), (_, to_s) in pairwise(marks):
        if from_s is None or to_s is None:
            continue
        found.append(Phase(name, from_s, max(from_s, to_s)))
    return found


def training_s(seen: Seen) -> float | None:
    """When the trainer began to train, by the attempt's clock; None before it."""
    record, beat = seen.record, seen.heartbeat
    if record is not None and TRAIN in record.phases:
        before = list(record.phases)[: list(record.phases).index(TRAIN)]
        return record.started_at_s + sum(record.phases[name] for name in before)
    return beat[0].progress_s if beat is not None and beat[0].phase == TRAIN else None


def is_stepping(number: int, seen: Seen) -> bool:
    """Whether the attempt has made a step of its own."""
    told = seen.heartbeat[0].step if seen.heartbeat is not None else None
    head = seen.head
    durable = head.checkpoint.step if head is not None and head.attempt == number and head.checkpoint else 0
    newest = 0 if seen.rows is None else seen.rows[1]
    return max(told or 0, durable, newest) > begun_at_step(seen)


def begun_at_step(seen: Seen) -> int:
    """The step that the attempt went on from."""
    resumed = None if seen.record is None else seen.record.resumed_from
    return 0 if resumed is None else resumed.step


def measured(claim: Claim, seen: Seen) -> Forecast | None:
    """What the rest takes by the attempt's own steps, which replaces the plan's estimate; None before there are enough.
    Both times are of the attempt's clock."""
    began_s, beat = training_s(seen), seen.heartbeat
    if began_s is None or beat is None or beat[0].step is None or seen.max_steps is None:
        return None
    made = beat[0].step - begun_at_step(seen)
    if made < MEASURED_STEPS or beat[0].progress_s <= began_s:
        return None
    step_s = (beat[0].progress_s - began_s) / made
    spent = spent_usd(seen.claims.attempts, seen.now_s) if claim.kind == "vm" else None
    return project(step_s, made, max(0, seen.max_steps - beat[0].step), claim.usd_per_hour, spent)


class Follower:
    """Told of every look, it says what is new of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._number: int | None = None
        self._told: set[str] = set()
        """What was said of the attempt."""
        self._saw_training_begin = False
        self._stepped_s: float | None = None
        self._note = ""

    def tell(self, seen: Seen) -> Verdict | None:
        """Says what is new. The verdict ends it; None while there is something to wait for."""
        claim = seen.claims.newest
        if claim is not None:
            if claim.number != self._number:
                self._tell_ends(seen.claims)
                self._number, self._told, self._stepped_s, self._saw_training_begin = claim.number, set(), None, False
                self._once("begins", beginning_line(claim))
            self._tell_attempt(claim, seen)
        self._tell_watch(claim, seen)
        return verdict(seen)

    def _tell_attempt(self, claim: Claim, seen: Seen) -> None:
        if is_stepping(claim.number, seen):
            if self._saw_training_begin and self._stepped_s is None:
                self._stepped_s = seen.now_s
        elif training_s(seen) is not None:
            self._saw_training_begin = True
        for phase in phases(claim, seen, self._stepped_s):
            self._once(phase.name, f"  {phase.name:<12}{phase.to_s - phase.from_s:7.1f} s")
            if phase.name == "restore" and seen.record is not None and seen.record.resumed_from is not None:
                self._once("resumed", f"  {resumed_line(seen.uri, seen.record.resumed_from)}")
        if (found := measured(claim, seen)) is not None:
            self._once("measured", f"  {forecast_line(found, seen.now_s)}")
        view = describe_attempt(
            claim.number,
            seen.record,
            claim,
            seen.heartbeat,
            newest=True,
            handed_on=None,
            patience_s=SILENT_S,
            now_s=seen.now_s,
        )
        if view.how.startswith("no sign of life"):
            self._once("silent", f"attempt {claim.number}: {view.how}")
        if view.ended:
            self._once("over", f"attempt {claim.number} is over: {ending_words(view)}")

    def _tell_ends(self, claims: Claims) -> None:
        """How those ended that were followed by others since the last look."""
        if self._number is None:
            return
        for claim in claims.attempts[:-1]:
            if claim.number > self._number:
                self._told = set()
                self._once("begins", beginning_line(claim))
            if claim.number >= self._number and claim.ended is not None:
                self._once("over", f"attempt {claim.number} is over: {ending_words(_view(claim))}")

    def _tell_watch(self, claim: Claim | None, seen: Seen) -> None:
        """While no attempt is at work: who looks after the run, and what that one waits for."""
        head, note = seen.head, "" if seen.looked is None else printable(seen.looked.note, 200)
        if head is not None and head.waiting is not None:
            self._once("waiting", f"the run waits: {head.waiting.why}")
        idle = claim is None or claim.ended is not None or seen.record is None
        if idle and note and note != self._note:
            self._say(f"  {note}")
        self._note = note
        over = claim is None or claim.ended is not None or (seen.record is not None and seen.record.ended is not None)
        unwatched = describe_looked(seen.looked, seen.now_s)
        if over and unwatched.overdue and verdict(seen) is None:
            self._once("unwatched", looked_line(unwatched, seen.now_s, seen.uri))

    def _once(self, what: str, line: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say(printable(line))


def _view(claim: Claim) -> AttemptView:
    """The attempt by its claim alone."""
    return describe_attempt(
        claim.number, None, claim, None, newest=True, handed_on=None, patience_s=SILENT_S, now_s=claim.claimed_at_s
    )


def beginning_line(claim: Claim) -> str:
    """What an attempt runs on; pure."""
    view = _view(claim)
    price = "" if claim.usd_per_hour is None else f", ${claim.usd_per_hour:.2f} an hour"
    return f"attempt {claim.number}: {where_words(view)}{price}"


def verdict(seen: Seen) -> Verdict | None:
    """Whether the run is over for whoever watches; pure."""
    uri, head, claims, record = seen.uri, seen.head, seen.claims, seen.record
    if head is not None and head.status is Status.FINISHED:
        step = 0 if head.checkpoint is None else head.checkpoint.step
        return Verdict(ExitCode.FINISHED, f"{uri} is finished after step {step}; its result: baton get {uri}")
    claim = claims.newest
    over = claim is None or claim.ended is not None or (record is not None and record.ended is not None)
    because = f": {claims.reason}" if claims.reason else ""
    if claims.want == "failed" and over:
        return Verdict(ExitCode.NEEDS_PERSON, f"{uri} has failed{because}; mended, it goes on by: baton resume {uri}")
    if claims.want == "stop" and over:
        return Verdict(ExitCode.PREEMPTED, f"{uri} is stopped{because}; it goes on by: baton resume {uri}")
    if claim is not None and claim.kind == "process" and record is not None and record.ended is not None:
        line = f"nobody starts a process again; it goes on by: baton train --run {uri}"
        return Verdict(record.ended.exit_code, line)
    return None


def shown_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the rows that came since the last look those to show: evaluations, and the newest of training; pure."""
    evaluations = [row for row in rows if "eval_reward" in row]
    training = [row for row in rows if "reward" in row and "eval_reward" not in row]
    return [*evaluations, *training[-1:]]


def newest_rows(names: Sequence[str]) -> list[str]:
    """Of the names that changed those to read: all but metrics before the newest segment; pure."""
    metrics = [name for name in names if name.startswith("metrics/")]
    return [name for name in names if name not in metrics or name == max(metrics)]
