"""How long from the start of the process to the first training step, with and without a restore.

    python -m benchmarks.restore [--pairs 6] [--json FILE]       about 6 minutes on two quiet cores

Real attempts (`python -m job`), cold: each imports everything anew. A fresh run and a copy of one that was stopped
take turns. Both are stopped when they have trained; the seconds by phase are those of their own attempt.json.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.measure import (
    ROOT,
    Claim,
    Interval,
    hold_to_cores,
    options,
    progress,
    ratio_of_sums,
    report,
    warn_if_busy,
)
from job.errors import ExitCode
from job.run.attempt import read_record
from job.run.head import read_head
from job.storage import open_bucket

GOAL_PERCENT = 10.0
TRAINING = ("train", "evaluation", "flush", "result")  # phases from the first step on
START = "start and end of the process"
STOP_AT_STEP = 2
WAIT_S = 300.0


@dataclass(frozen=True)
class Case:
    """A model whose state is restored."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """A case: seconds by phase of each attempt, (without, with a restore)."""

    case: Case
    state_mb: float
    pairs: list[tuple[dict[str, float], dict[str, float]]]

    def added_percent(self) -> Interval:
        """What the restore adds to the time until the first step."""
        ratio = ratio_of_sums([(sum(restored.values()), sum(fresh.values())) for fresh, restored in self.pairs])
        return Interval(ratio.value - 1, ratio.low - 1, ratio.high - 1).scaled(100)


def measure(case: Case, pairs: int, scratch: Path) -> Measured:
    """Alternates attempts with and without something to restore."""
    scratch.mkdir()
    stopped = scratch / "stopped"
    attempt(stopped, case)
    head = read_head(open_bucket(stopped.as_uri()))
    assert head is not None
    assert head.checkpoint is not None
    state_bytes = sum(path.stat().st_size for path in (stopped / head.checkpoint.folder).iterdir())
    seen = []
    for n in range(pairs):
        results = {}
        for what in ("fresh", "restored") if n % 2 == 0 else ("restored", "fresh"):
            run = scratch / f"{what}-{n}"
            if what == "restored":
                shutil.copytree(stopped, run)
            results[what] = attempt(run, case)
            shutil.rmtree(run)
        seen.append((results["fresh"], results["restored"]))
    return Measured(case, state_bytes / 1e6, seen)


def attempt(run: Path, case: Case) -> dict[str, float]:
    """Seconds by phase until the first step. The attempt is stopped when it has made some steps durable."""
    bucket = open_bucket(run.as_uri())
    before = read_head(bucket)
    target = STOP_AT_STEP + (before.checkpoint.step if before and before.checkpoint else 0)
    command = [sys.executable, "-m", "job", str(ROOT / "recipes" / "demo.toml"), "--run", run.as_uri()]
    for override in ("train.max_steps=100000", *case.overrides):
        command += ["--set", override]
    env = {key: value for key, value in os.environ.items() if not key.startswith("BATON_") or key == "BATON_CACHE"}
    log = run.with_suffix(".log")
    began_s = time.monotonic()
    with log.open("wb") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=env | {"HF_HUB_OFFLINE": "1"}, stdout=err, stderr=err)
    try:
        while (head := read_head(bucket)) is None or head.checkpoint is None or head.checkpoint.step < target:
            if process.poll() is not None or time.monotonic() - began_s > WAIT_S:
                raise RuntimeError(f"the attempt did not train:\n{log.read_text()}")
            time.sleep(0.05)  # between two looks
        process.send_signal(signal.SIGTERM)
        code = process.wait(WAIT_S)
    finally:
        process.kill()
    assert code == ExitCode.PREEMPTED, log.read_text()
    lived_s = time.monotonic() - began_s
    record = read_record(bucket, head.attempt)
    assert record is not None
    resumed = record.resumed_from is not None
    assert resumed == (before is not None), "restored when there was nothing, or not when there was"
    phases = {phase: seconds for phase, seconds in record.phases.items() if phase not in TRAINING}
    return {START: lived_s - sum(record.phases.values()), **phases}


def claims_of(measured: Sequence[Measured]) -> list[Claim]:
    """What is claimed; pure."""
    claims = []
    for m in measured:
        added = m.added_percent().value
        claims.append(
            Claim(
                f"{m.case.name}: a restore of {m.state_mb:.0f} MB adds to the time until the first step",
                added,
                "%",
                f"< {GOAL_PERCENT:.0f}",
                added < GOAL_PERCENT,
            )
        )
    return claims


def table_of(m: Measured) -> Table:
    """Seconds by phase."""
    table = Table(
        "phase", "without, s", "with, s", title=f"{m.case.name}: {len(m.pairs)} pairs, medians (restore || import)"
    )
    names = list(dict.fromkeys(name for pair in m.pairs for phases in pair for name in phases))
    for name in names:
        table.add_row(name, *(f"{median(pair[i].get(name, 0.0) for pair in m.pairs):.2f}" for i in (0, 1)))
    table.add_section()
    table.add_row("until the first step", *(f"{median(sum(pair[i].values()) for pair in m.pairs):.2f}" for i in (0, 1)))
    table.add_row("added by the restore, % [95 %]", "", m.added_percent().text(1))
    return table


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--pairs", type=int, default=6, help="attempts of each kind")
    given = parser.parse_args(argv)
    hold_to_cores()
    if not given.quick:
        warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        scratch = Path(folder)
        measured = []
        for case in _cases(scratch, quick=given.quick):
            pairs = 1 if given.quick else given.pairs
            progress(f"{case.name}: {pairs} attempts of each kind")
            measured.append(measure(case, pairs, scratch / case.name))
    report([table_of(m) for m in measured], claims_of(measured), given)


def _cases(scratch: Path, *, quick: bool) -> list[Case]:
    """The demo, and a model that is trained as a whole: as much state as an adapter of Llama-3.2-1B has."""
    from job.training.tiny_model import TinySpec, ensure_tiny, make_tiny

    def folder(name: str, spec: TinySpec) -> str:
        path = scratch / f"model-{name}"
        path.mkdir()
        make_tiny(path, spec)
        return str(path)

    small = ("train.batch_size_per_device=8", "train.max_completion_tokens=4")
    if quick:
        moment = TinySpec(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64, warmup_steps=0)
        return [Case("smoke", (f"model.name={folder('moment', moment)}", "train.cpu_threads=1", *small))]
    ensure_tiny()
    large = TinySpec(hidden=512, layers=4, heads=8, kv_heads=4, intermediate=1296, warmup_steps=0)
    return [
        Case("demo", ()),
        Case("11M parameters", (f"model.name={folder('large', large)}", "lora.enabled=false", *small)),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
