"""What a VM did before its attempt began: asked for, booted, pulled the image. The report's timeline begins with it."""

from collections.abc import Sequence
from functools import partial

from job.run.console import VmPhase, read_phases
from job.run.records import AT_ONCE
from job.storage import Bucket
from job.storage.parallel import in_parallel
from job.views.attempts import AttemptView
from job.views.status import RunStatus

CREATE = "create"
MOST_READ = 300
"""Newest attempts whose consoles are read, one call each."""


def with_boots(bucket: Bucket, run: RunStatus) -> RunStatus:
    """The run with the boots of its VMs among the phases of their attempts."""
    booted = [attempt for attempt in run.attempts[-MOST_READ:] if attempt.kind == "vm" and has_run(attempt)]
    phases = in_parallel((partial(read_phases, bucket, attempt.number) for attempt in booted), AT_ONCE)
    whole = {a.number: with_boot(a, told) for a, told in zip(booted, phases, strict=True)}
    return run.model_copy(update={"attempts": tuple(whole.get(a.number, a) for a in run.attempts)})


def has_run(attempt: AttemptView) -> bool:
    """Whether there was a process, or a VM that cost anything."""
    return attempt.incarnation is not None or (attempt.kind == "vm" and attempt.billed_s > 0)


def with_boot(attempt: AttemptView, phases: Sequence[VmPhase]) -> AttemptView:
    """The attempt from its claim on, with what came before its own phases; pure. Clocks differ a little, and a VM may
    write any time: no phase takes less than nothing, or longer than the attempt."""
    if attempt.claimed_at_s is None:
        return attempt
    began_s = attempt.claimed_at_s
    own_s = attempt.started_at_s if attempt.incarnation is not None else (attempt.heard_s or began_s)
    names = [CREATE, *(phase.name for phase in phases)]
    marks = [began_s]
    for phase in phases:
        marks.append(min(max(phase.at_s, marks[-1]), max(own_s, marks[-1])))
    ends = [*marks[1:], max(own_s, marks[-1])]
    before = {name: round(end - begin, 3) for name, begin, end in zip(names, marks, ends, strict=True)}
    spent = {name: spent_s for name, spent_s in before.items() if spent_s > 0}
    return attempt.model_copy(update={"started_at_s": began_s, "phases_s": {**spent, **attempt.phases_s}})
