"""From a preemption to the first new step: where the seconds go, and how soon a watchdog of 20 runs sees it.

    python -m benchmarks.recovery [--full] [--json FILE]       about 9 minutes on two quiet cores; --full: 45

A run with steps of two seconds and more trains on the local cloud's VMs and is preempted time after time, with the
notice of 120 s, with 30 s, and by a power cut, at random moments. A real watchdog replaces its VMs; it watches 19 more
runs, which are preempted at random moments as well. Cloud boot and notice are as many times shorter as the scale says;
everything else takes its real time. Times are the events' own.

Beside the watchdog, computed from the same events and not measured: when a loop that looks every 15 s, as SkyPilot's
does, would have looked first.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks import recovery_task
from benchmarks.measure import ROOT, Claim, hold_to_cores, options, progress, report, warn_if_busy
from benchmarks.recovery_idle import IdleRuns
from benchmarks.recovery_phases import OURS, Marks, own_share_s, percentile, polled, seconds
from benchmarks.recovery_world import ENDS, World, watchdog_of, world_in
from infra.launch.planning import Asked, Surroundings, make_plan
from infra.launch.prepare import Prepared
from infra.launch.starting import begin, claim_vm
from infra.naming import vm_name
from job.run.attempt import AttemptRecord, read_record
from job.run.console import read_phases
from job.run.inputs import INPUT_KEYS, input_path
from job.run.layout import exit_name
from job.run.model_source import resolve_model
from job.run.spec import SpecModel
from job.settings import load_settings
from job.storage import Bucket, open_bucket

SCALE = 10.0
NOTICES = (120, 30, 0)
RUNS, QUICK_RUNS = 20, 3
CHURN_S = 5.0
POLL_S = 15.0
DETECTION_S, OWN_SHARE_S, STEP_S = 5.0, 5.0, 2.0
USUAL_STEPS = 3
"""Of an attempt before it is preempted: its first, and others to know what is usual."""
MOMENT_STEPS = 4
RECIPE = ("train.max_steps=100000", "train.cpu_threads=1", "attempt.heartbeat_s=10")
LONG_STEPS = ("train.batch_size_per_device=512",)
"""More than two seconds of one thread."""


@dataclass(frozen=True)
class Run:
    """The run that is measured."""

    world: World
    bucket: Bucket
    steps_file: Path

    def steps(self) -> dict[int, dict[int, float]]:
        """By attempt: when each step was made."""
        made: dict[int, dict[int, float]] = {}
        text = self.steps_file.read_text() if self.steps_file.exists() else ""
        for line in text.splitlines():
            attempt, step, at_s = line.split()
            made.setdefault(int(attempt), {}).setdefault(int(step), float(at_s))
        return made

    def usual_step_s(self) -> float:
        """The median of all steps so far but the first of each attempt."""
        made = [sorted(times.values()) for times in self.steps().values()]
        return median(after - before for times in made for before, after in pairwise(times))

    def wait_for_steps(self, attempt: int, count: int) -> None:
        """Until the attempt has made so many."""
        self.world.wait(
            lambda: True if len(self.steps().get(attempt, {})) >= count else None, f"step {count} of attempt {attempt}"
        )


def launch(world: World, overrides: Sequence[str], steps_file: Path) -> Run:
    """The run, with a claim for its first VM, as `baton launch` leaves it: any watchdog asks for that one."""
    task = f"task={recovery_task.__file__}:{recovery_task.Sums.__name__}"
    notice = f"attempt.notice_s={NOTICES[0] / world.cloud.scale:g}"
    resolved = load_settings(ROOT / "recipes" / "demo.toml", (*RECIPE, task, notice, *overrides), env={}, dotenv=None)
    settings = resolved.settings
    files = {key: path for key in INPUT_KEYS if (path := input_path(settings, key)) is not None}
    prepared = Prepared(settings, resolved.origins, files, settings.train.max_steps, None)
    like = world.machine(gpu="l4")
    around = Surroundings(
        uri=f"{world.bucket_uri}/runs/measured",
        project=like.project,
        image=like.image,
        boot_image=like.boot_image,
        service_account=like.service_account,
        bucket_region=None,
        endpoints=(world.cloud.compute_url, world.cloud.storage_url),
    )
    plan = make_plan(Asked("l4", spot=True, max_usd=like.max_usd), prepared, around)
    source = resolve_model(settings.model.name)
    bucket = open_bucket(plan.uri)
    begin(bucket, plan, prepared, SpecModel(name=source.name, revision=source.revision, sha256=source.sha256))
    claim_vm(bucket, plan, time.time())
    return Run(world, bucket, steps_file)


def preempt(run: Run, number: int, notice: int, draw: random.Random) -> Marks:
    """Preempts attempt `number` at a random moment; what was seen until its successor had made some steps."""
    usual_s = run.usual_step_s()
    time.sleep(draw.uniform(0.0, MOMENT_STEPS * usual_s))  # anywhere in a step, and between two durable ones
    world, before, after = run.world, vm_name(run.bucket.uri, number), vm_name(run.bucket.uri, number + 1)
    world.cloud.order("preempt", vm=before, **({} if notice == NOTICES[0] else {"notice_s": notice}))  # as it asked
    began_s = world.event(before, "notice" if notice else ENDS[0]).at_s
    over_s = world.event(before, *ENDS).at_s
    _, ended_s = world.when_ended(run.bucket, number)
    asked_s = world.event(after, "PROVISIONING").at_s
    run.wait_for_steps(number + 1, USUAL_STEPS)
    booted = world.wait(lambda: _whole_boot(run.bucket, number + 1), f"the console of attempt {number + 1}")
    record = world.wait(lambda: _trains(run.bucket, number + 1), f"attempt.json of attempt {number + 1}")
    assert record.resumed_from is not None
    stopped_s = began_s
    if (last_word := run.bucket.stat(exit_name(number))) is not None:
        over_s = min(over_s, last_word.updated_s)
    last = read_record(run.bucket, number)
    if notice == NOTICES[0] and last is not None and last.ended is not None:  # it trained on
        stopped_s = min(over_s, last.ended.at_s - last.phases["flush"])
    steps = run.steps()
    return Marks(
        notice=notice,
        began_s=began_s,
        stopped_s=stopped_s,
        over_s=over_s,
        ended_s=ended_s,
        asked_s=asked_s,
        booted=booted,
        started_s=record.started_at_s,
        phases=record.phases,
        stepped_s=min(steps[number + 1].values()),
        step_s=usual_s,
        made=max(steps[number]),
        resumed=record.resumed_from.step,
    )


def _whole_boot(bucket: Bucket, attempt: int) -> dict[str, float] | None:
    """When the phases of its boot began, once all were shipped."""
    found = {phase.name: phase.at_s for phase in read_phases(bucket, attempt)}
    return found if "container" in found else None


def _trains(bucket: Bucket, attempt: int) -> AttemptRecord | None:
    """Its record, once it tells of the whole way to the first step."""
    record = read_record(bucket, attempt)
    return record if record is not None and "train" in record.phases else None


def claims_of(measured: Sequence[Marks], detections: Sequence[tuple[float, float]], runs: int) -> list[Claim]:
    """What is claimed; pure."""
    found_s = [seconds_ for _, seconds_ in detections]
    own_s = [own_share_s(m) for m in measured]
    step_s = median(m.step_s for m in measured)
    detection, own = percentile(found_s, 99), percentile(own_s, 95)
    by_poll = percentile(polled([over_s for over_s, _ in detections], POLL_S), 99)
    told = max((m.lost_steps for m in measured if m.notice), default=0)
    untold = max((m.lost_steps for m in measured if not m.notice), default=0)
    return [
        Claim(
            f"detection, p99 of {len(found_s)} preemptions, {runs} runs watched",
            detection,
            "s",
            f"<= {DETECTION_S:g}",
            detection <= DETECTION_S,
        ),
        Claim(f"computed, not measured: a loop that looks every {POLL_S:g} s, p99", by_poll, "s", "beside it", None),
        Claim(f"our own share of a recovery, p95 of {len(own_s)}", own, "s", f"<= {OWN_SHARE_S:g}", own <= OWN_SHARE_S),
        Claim("steps lost with a notice of 120 or 30 s, at most", told, "steps", "0", told == 0),
        Claim("steps lost without notice, a core free, at most", untold, "steps", "<= 1", untold <= 1),
        Claim("a step", step_s, "s", f">= {STEP_S:g}", step_s >= STEP_S),
    ]


def phases_table(measured: Sequence[Marks], scale: float) -> Table:
    """Seconds by phase, for each notice."""
    kinds = {notice: [m for m in measured if m.notice == notice] for notice in NOTICES}
    title = f"From the preemption to the first new step, s: median (most); notice and cloud boot {scale:g} times faster"
    columns = [f"notice {notice} s: {len(some)}" for notice, some in kinds.items()]
    table = Table("phase", "ours", *columns, title=title)

    def cells(values: Sequence[Sequence[float]]) -> list[str]:
        return [f"{median(some):.2f} ({max(some):.2f})" if some else "-" for some in values]

    for phase in seconds(measured[0]):
        table.add_row(
            phase,
            "yes" if phase in OURS else "",
            *cells([[seconds(m)[phase] for m in some] for some in kinds.values()]),
        )
    table.add_section()
    table.add_row("our own share", "yes", *cells([[own_share_s(m) for m in some] for some in kinds.values()]))
    table.add_row("in all", "", *cells([[sum(seconds(m).values()) for m in some] for some in kinds.values()]))
    lost = [f"{sum(m.lost_steps for m in some)}" for some in kinds.values()]
    table.add_row("steps lost, in all", "", *lost)
    return table


def detection_table(detections: Sequence[tuple[float, float]]) -> Table:
    """Ours, and a loop's by the same events."""
    ours = [found_s for _, found_s in detections]
    theirs = polled([over_s for over_s, _ in detections], POLL_S)
    table = Table("s", "median", "p90", "p99", "most", title="From the end that can be seen to its detection")
    for name, values in (("measured", ours), (f"a loop every {POLL_S:g} s (computed)", theirs)):
        table.add_row(
            name, *(f"{value:.2f}" for value in (median(values), *(percentile(values, p) for p in (90, 99, 100))))
        )
    return table


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--full", action="store_true", help="30 preemptions of each kind instead of 5")
    parser.add_argument("--each", type=int, help="preemptions of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of all preemptions")
    given = parser.parse_args(argv)
    each = given.each or (1 if given.quick else 30 if given.full else 5)
    hold_to_cores()
    if not given.quick:
        warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        measured, detections = measure(Path(folder), each, given)
    runs = QUICK_RUNS if given.quick else RUNS
    report([phases_table(measured, SCALE), detection_table(detections)], claims_of(measured, detections, runs), given)


def measure(folder: Path, each: int, given: argparse.Namespace) -> tuple[list[Marks], list[tuple[float, float]]]:
    """All preemptions of the run that trains, and all detections."""
    draw = random.Random(given.seed)
    overrides, model_env = _model(folder, quick=given.quick)
    steps_file = folder / "steps"
    image_env = model_env | {recovery_task.STEPS: str(steps_file), "HF_HUB_OFFLINE": "1"}
    runs, every_s = (QUICK_RUNS, 2.0) if given.quick else (RUNS, CHURN_S)
    measured = []
    with world_in(folder, SCALE, image_env) as world:
        idle = IdleRuns(world, runs - 1, every_s, random.Random(given.seed + 1))
        run = launch(world, overrides, steps_file)
        with watchdog_of(world):
            run.wait_for_steps(1, USUAL_STEPS)
            with idle:
                # All of one kind in a row, as a run meets them: what follows from several of them shows.
                kinds = [notice for notice in NOTICES for _ in range(each)]
                for number, notice in enumerate(kinds, 1):
                    measured.append(preempt(run, number, notice, draw))
                    idle.check()
                    progress(_told(measured[-1]))
    return measured, [*idle.detections, *((m.over_s, m.detection_s) for m in measured)]


def _told(m: Marks) -> str:
    return (
        f"notice {m.notice} s: detected after {m.detection_s:.2f} s, our own share {own_share_s(m):.2f} s, "
        f"first step {m.stepped_s - m.stopped_s:.1f} s after the last; {m.lost_steps} lost"
    )


def _model(folder: Path, *, quick: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """The demo's model with a batch that makes its steps long enough, or a model that is made in a moment: settings,
    and what a container's environment needs for it."""
    from job.training.tiny_model import TinySpec, ensure_tiny, make_tiny

    if not quick:
        return LONG_STEPS, {"BATON_CACHE": str(ensure_tiny().parent)}
    base = folder / "moment"
    base.mkdir()
    make_tiny(base, TinySpec(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64, warmup_steps=0))
    return (f"model.name={base}", "train.batch_size_per_device=8"), {}


if __name__ == "__main__":
    main(sys.argv[1:])
