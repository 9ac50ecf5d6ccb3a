"""Everything that a run's report says, read from its bucket: the verdict, curves, attempts, samples and lineage."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from job.checkpoint.manifest import ManifestFile, ResultManifest
from job.errors import ExitCode, NeedsPerson
from job.run.head import CheckpointRef, Head, Status, read_head
from job.run.layout import RESULT_MANIFEST
from job.run.segments import Row, join_metrics, read_rows, row_kind
from job.run.spec import Input, Spec, SpecModel, read_spec
from job.settings.tree import Attempt
from job.storage import Bucket
from job.views.attempts import AttemptView
from job.views.boots import has_run, with_boots
from job.views.report_series import Series, make_series
from job.views.status import RunStatus, read_status

MOST_PARTS = 24
"""Parts of the reward that are drawn. A task of one's own may have any number."""
MOST_SAMPLED_STEPS = 12
METRICS = (
    "reward/none_share",
    "frac_reward_zero_std",
    "loss",
    "kl",
    "entropy",
    "completions/mean_length",
    "completions/clipped_ratio",
    "grad_norm",
    "learning_rate",
    "step_time",
)
"""What TRL logs and is drawn where a run has it, beside the parts of the reward."""

TOLD_TO_GO = ("preempted", "stopped", "capped")
"""Ends of a VM as seen from outside, which the attempt may not have lived to tell of."""
Ending = Literal["at work", "finished", "preempted", "lost", "failed", "never began"]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Verdict(_View):
    """The run in numbers."""

    steps: int
    """Durable ones."""
    attempts: int
    preempted: int
    """Attempts that were told to go: they left in order, or their VM is known to have been taken back."""
    lost: int
    """Attempts that ended without a word: killed, or their machine gone."""
    failed: int
    lost_steps: int
    """Steps that were made again, as far as is known."""
    maybe_more_lost: bool
    """Whether an attempt that ended without a word may have lost steps that nobody was told of."""
    wall_s: float | None
    """From the beginning of the first attempt to the last sign of the newest."""
    phases_s: dict[str, float]
    """Seconds by phase of all attempts together."""
    cost_usd: float | None
    """Of the VMs with their disks, by their claims, and of other machines while attempts had them, where their price
    is set; None: not known."""


class Sample(_View):
    """One completion and what it was given for it."""

    prompt: str
    completion: str
    reward: float | None


class SampledStep(_View):
    """A few completions of one step."""

    step: int
    attempt: int
    samples: tuple[Sample, ...]


class Lineage(_View):
    """What the result was made from, each by its hash."""

    checkpoint: CheckpointRef | None
    """Head's newest."""
    kept: int
    inputs: dict[str, Input]
    model: SpecModel | None
    fingerprint: str | None
    revision: int | None
    accepted: tuple[str, ...]
    started_by: str | None
    commit: str | None
    created_at_s: float | None
    result: dict[str, ManifestFile]
    """By name in result/; without report.html, which is written after this was read."""


class Report(_View):
    """What `baton report` shows, and prints as JSON."""

    run: RunStatus
    verdict: Verdict
    reward: Series | None
    evaluation: Series | None
    """eval_reward."""
    metrics: tuple[Series, ...]
    samples: tuple[SampledStep, ...]
    """The first and the last that were recorded, and some between."""
    lineage: Lineage
    recipe: dict[str, Any]
    usd_per_hour: float | None = None
    """Of a machine that is no VM of ours; None where nobody said."""
    read_at_s: float


def read_report(bucket: Bucket) -> Report:
    """Looks at a run, reading only. Raises UsageError where there is no run."""
    run = with_boots(bucket, read_status(bucket))
    head, durable_step = read_head(bucket), run.durable_step or 0
    rows = join_metrics(read_rows(bucket, "metrics"), durable_step) if head is not None else []
    try:
        found = ResultManifest.read(bucket, RESULT_MANIFEST)
    except NeedsPerson:  # `baton status --verify` names what is wrong with it
        found = None
    return make_report(bucket, run, head, rows, {} if found is None else found[0].files)


def finished_report(bucket: Bucket, rows: Sequence[Mapping[str, Any]], files: Mapping[str, ManifestFile]) -> Report:
    """The report that is published with the result: the run is as it will be once head says so."""
    run, head = with_boots(bucket, read_status(bucket)), read_head(bucket)
    assert head is not None
    ended = {"ended": True, "exit_code": int(ExitCode.FINISHED), "how": "finished", "heard_s": time.time()}
    ended |= {"last_step": run.durable_step}
    attempts = tuple(a.model_copy(update=ended) if a.number == head.attempt else a for a in run.attempts)
    finished = {"status": Status.FINISHED.value, "at_work": False, "attempts": attempts}
    return make_report(bucket, run.model_copy(update=finished), head, rows, files)


def make_report(
    bucket: Bucket,
    run: RunStatus,
    head: Head | None,
    rows: Sequence[Mapping[str, Any]],
    files: Mapping[str, ManifestFile],
) -> Report:
    """Puts it together from what was read, and reads spec and samples."""
    spec = read_spec(bucket)
    training = [row for row in rows if row_kind(row) == "train"]
    evaluations = [row for row in rows if row_kind(row) == "eval"]
    return Report(
        run=run,
        verdict=judge(run, price_set(spec)),
        usd_per_hour=price_set(spec),
        reward=make_series("reward", training, "reward_std"),
        evaluation=make_series("eval_reward", evaluations),
        metrics=tuple(filter(None, (make_series(name, training) for name in drawn_names(training)))),
        samples=spread_out(join_samples(read_rows(bucket, "samples"), run.durable_step or 0)),
        lineage=_lineage(spec, head, files),
        recipe={} if spec is None else spec.recipe,
        read_at_s=time.time(),
    )


def judge(run: RunStatus, usd_per_hour: float | None) -> Verdict:
    """Adds up what the attempts told; pure. `usd_per_hour`: what the machine costs, None where nobody said."""
    endings = [ending(attempt) for attempt in run.attempts]
    phases: dict[str, float] = {}
    for attempt in run.attempts:
        for phase, spent_s in attempt.phases_s.items():
            phases[phase] = phases.get(phase, 0.0) + spent_s
    begun = [attempt for attempt in run.attempts if has_run(attempt)]
    resumed = [attempt.resumed_from for attempt in begun if attempt.resumed_from is not None]
    costs = [cost_usd(attempt, usd_per_hour) for attempt in begun]
    return Verdict(
        steps=run.durable_step or 0,
        attempts=len(begun),
        preempted=endings.count("preempted"),
        lost=endings.count("lost"),
        failed=endings.count("failed"),
        lost_steps=sum(attempt.lost_steps for attempt in begun),
        maybe_more_lost=any(not origin.orderly for origin in resumed),
        wall_s=max(map(end_s, begun)) - min(attempt.started_at_s for attempt in begun) if begun else None,
        phases_s=phases,
        cost_usd=sum(known) if (known := [usd for usd in costs if usd is not None]) else None,
    )


def cost_usd(attempt: AttemptView, usd_per_hour: float | None) -> float | None:
    """What an attempt's machine cost: its VM by the claim, another one by `usd_per_hour` while it was there; pure."""
    if attempt.kind == "vm" or usd_per_hour is None:
        return attempt.usd
    return usd_per_hour / 3600 * (end_s(attempt) - attempt.started_at_s)


def price_set(spec: Spec | None) -> float | None:
    """attempt.machine_usd_per_hour of the recipe; the default is some machine's, not this one's, and says nothing."""
    told = None if spec is None else spec.recipe.get("attempt", {}).get("machine_usd_per_hour")
    return told if isinstance(told, float) and told != Attempt().machine_usd_per_hour else None


def ending(attempt: AttemptView) -> Ending:
    """How an attempt ended, as one word."""
    if attempt.incarnation is None:
        return "never began"
    if not attempt.ended:
        return "at work"
    if attempt.exit_code is None:
        return "preempted" if attempt.seen in TOLD_TO_GO else "lost"
    words: Mapping[int, Ending] = {ExitCode.FINISHED: "finished", ExitCode.PREEMPTED: "preempted"}
    return words.get(attempt.exit_code, "failed")


def end_s(attempt: AttemptView) -> float:
    """When it was last known to be there, seconds since the epoch."""
    return max(attempt.started_at_s + sum(attempt.phases_s.values()), attempt.heard_s or 0.0)


def drawn_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics to draw: the parts of the reward as the task names them, then METRICS; pure."""
    parts = dict.fromkeys(key for row in rows for key in row if key.startswith("reward/") and key not in METRICS)
    return [*list(parts)[:MOST_PARTS], *METRICS]


def join_samples(rows: Iterable[Row], durable_step: int) -> list[SampledStep]:
    """The sampled steps as if one attempt had recorded them; what is not understood is left out; pure."""
    newest: dict[int, SampledStep] = {}
    for row in rows:
        try:
            found = SampledStep.model_validate({**row.fields, "attempt": row.attempt})
        except ValidationError:
            continue
        if found.step <= durable_step and found.samples:
            before = newest.get(found.step)
            if before is None or row.attempt >= before.attempt:
                newest[found.step] = found
    return [newest[step] for step in sorted(newest)]


def spread_out(steps: Sequence[SampledStep]) -> tuple[SampledStep, ...]:
    """At most MOST_SAMPLED_STEPS of them: the first, the last, the others evenly between."""
    if len(steps) <= MOST_SAMPLED_STEPS:
        return tuple(steps)
    last = len(steps) - 1
    return tuple(steps[round(i * last / (MOST_SAMPLED_STEPS - 1))] for i in range(MOST_SAMPLED_STEPS))


def _lineage(spec: Spec | None, head: Head | None, files: Mapping[str, ManifestFile]) -> Lineage:
    return Lineage(
        checkpoint=None if head is None else head.checkpoint,
        kept=0 if head is None else len(head.kept),
        inputs={} if spec is None else spec.inputs,
        model=None if spec is None else spec.model,
        fingerprint=None if spec is None else spec.fingerprint,
        revision=None if spec is None else spec.revision,
        accepted=() if spec is None else spec.accepted,
        started_by=None if spec is None else spec.started_by,
        commit=None if spec is None else spec.commit,
        created_at_s=None if spec is None else spec.created_at,
        result=dict(files),
    )
