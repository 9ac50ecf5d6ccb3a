"""The whole story on this machine: a run on a local cloud whose VMs are taken away, and one that nobody touched."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.localcloud.state import Running, bring_down, bring_up
from infra.reading.fetch import fetch_result, read_result
from job.errors import BatonError, ExitCode, Transient, UsageError
from job.run.claims import read_claims
from job.run.head import read_head
from job.run.segments import join_metrics, read_rows
from job.storage import Bucket, open_bucket
from job.views.status import RunStatus, read_status

ROOT = Path(__file__).parents[1]
RECIPE = Path("recipes/demo.toml")
PROJECT, RUN = "baton-demo", "demo"
SCALE = 20.0
"""Boot, notice and grace of the cloud are so many times shorter: 120 s of notice take 6."""
LAUNCH = ("launch", str(RECIPE), "--gpu", "a100", "--spot", "--run", RUN, "--yes", "--watch-here")
ADAPTER = Path("adapter/adapter_model.safetensors")
LOOK_EVERY_S = 0.05
WINDOW = 10  # steps whose mean counts as the reward at the start, and at the end
RISE = 0.3  # what the reward has to gain


@dataclass(frozen=True)
class Preemption:
    """One VM that is taken away."""

    step: int
    """Once this step is durable."""
    notice_s: int
    """120, of the platform's clock; 0: the power is cut."""


@dataclass(frozen=True)
class Outcome:
    """What the demo saw."""

    preempted: RunStatus
    untouched: RunStatus
    preempted_sha256: str
    untouched_sha256: str
    rewards: tuple[float, ...]
    """Mean reward of each step of the preempted run, from step 1."""
    preempted_s: float
    untouched_s: float
    result: Path
    """The preempted run's, fetched from its bucket."""

    @property
    def identical(self) -> bool:
        """Whether both adapters are the same bytes."""
        return self.preempted_sha256 == self.untouched_sha256

    @property
    def rise(self) -> float:
        """Mean of the last steps less mean of the first."""
        return mean(self.rewards[-WINDOW:]) - mean(self.rewards[:WINDOW])


def mean(values: tuple[float, ...]) -> float:
    """The arithmetic mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def plan_preemptions(max_steps: int, moments: random.Random) -> tuple[Preemption, ...]:
    """With notice in the second quarter of the run, without in the third; pure but for `moments`."""
    quarter = max_steps // 4
    early, late = (moments.randrange(max(1, quarter // 2)) for _ in range(2))
    return Preemption(quarter + early, 120), Preemption(2 * quarter + quarter // 2 + late, 0)


def tell(folder: Path, seed: int, say: Callable[[str], None]) -> Outcome:
    """Runs the story in `folder`. Raises UsageError outside a clone, and what a command ended with by itself."""
    recipe = ROOT / RECIPE
    if not recipe.is_file():
        raise UsageError(f"there is no {recipe}.", fix="`baton demo` runs in a clone of the repository.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty.", fix="Name another folder; the demo begins two runs of its own.")
    from job.settings import load_settings

    max_steps = load_settings(recipe, (), {}, None).settings.train.max_steps
    assert max_steps is not None, "the demo's recipe counts steps"
    preemptions = plan_preemptions(max_steps, random.Random(seed))

    with local_cloud(folder.absolute() / "cloud") as cloud:
        bucket = open_bucket(f"gs://{cloud.bucket}/runs/{RUN}")
        began_s = time.monotonic()
        say(f"1. On a local cloud, its clock {SCALE:g} times faster: baton {' '.join(LAUNCH)}")
        _launch(cloud, bucket, preemptions, say)
        preempted_s = time.monotonic() - began_s
        preempted, rewards = read_status(bucket), _rewards(bucket, max_steps)
        result = folder / "result"
        fetch_result(bucket, read_result(bucket), result, lambda line: None)

    untouched = open_bucket(f"file://{folder.absolute()}/untouched")
    began_s = time.monotonic()
    say(f"2. The same in a folder, by a process that nobody touches: baton train {RECIPE} --run {untouched.uri}")
    _run([sys.executable, "-m", "job", str(RECIPE), "--run", untouched.uri], _environment({}), say, lambda: None)
    untouched_s = time.monotonic() - began_s

    return Outcome(
        preempted,
        read_status(untouched),
        _sha256(result / ADAPTER),
        hashlib.sha256(untouched.read(f"result/{ADAPTER}")[0]).hexdigest(),
        rewards,
        preempted_s,
        untouched_s,
        result,
    )


@contextmanager
def local_cloud(home: Path) -> Iterator[Running]:
    """A cloud of the demo's own, and this process pointed at it."""
    before = dict(os.environ)
    passed_on = [f"{name}={before[name]}" for name in ("BATON_CACHE", "OMP_WAIT_POLICY") if name in before]
    flags = [flag for pair in passed_on for flag in ("--image-env", pair)]
    try:
        cloud, _ = bring_up(home, PROJECT, SCALE, flags)
        os.environ.update(cloud.environment())
        os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
        yield cloud
    finally:
        os.environ.clear()
        os.environ.update(before)
        bring_down(home)


def _launch(cloud: Running, bucket: Bucket, preemptions: tuple[Preemption, ...], say: Callable[[str], None]) -> None:
    """`baton launch`, which watches too, until the run is finished; its VMs are taken away meanwhile."""
    command = [sys.executable, "-c", "from infra.cli import main; main()", *LAUNCH]
    left = list(preemptions)

    def look() -> None:
        if not left or _durable_step(bucket) < left[0].step:
            return
        owner, running = _owner(bucket), {vm["name"]: vm for vm in cloud.look()["vms"] if vm["status"] == "RUNNING"}
        if (vm := running.get(owner)) is None:
            return
        preemption = left.pop(0)
        if preemption.notice_s:
            say(f"   -> {vm['zone']} has no capacity any more, {vm['name']} gets {preemption.notice_s} s of notice")
            cloud.order("stockout", zone=vm["zone"])
        else:
            say(f"   -> the power of {vm['name']} is cut, without notice")
        cloud.order("preempt", vm=vm["name"], notice_s=preemption.notice_s)

    _run(command, _environment(cloud.environment()), say, look)
    assert not left, "the run was over before all its VMs were taken away"


def _owner(bucket: Bucket) -> str | None:
    """The VM of the attempt that owns head; None while that attempt is being replaced."""
    claims, head = read_claims(bucket), read_head(bucket)
    newest = claims.newest
    return newest.vm if newest is not None and head is not None and head.attempt == newest.number else None


def _run(command: list[str], env: Mapping[str, str], say: Callable[[str], None], look: Callable[[], None]) -> None:
    """A command as a person would start it, its lines told. Raises BatonError unless it ends with 0."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the demo, which then ends the command itself
    )
    lines = threading.Thread(target=_relay, args=(process, say), daemon=True)
    lines.start()
    try:
        while process.poll() is None:
            look()
            time.sleep(LOOK_EVERY_S)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    lines.join()
    if code != ExitCode.FINISHED:
        raise BatonError(f"a command of the demo ended with {code}.", fix="What it printed stands above.")


def _relay(process: "subprocess.Popen[str]", say: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        say(f"   {line.rstrip()}")


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This one's, without a person's own settings of Baton."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BATON_") or name == "BATON_CACHE"}
    return kept | dict(extra)


def _durable_step(bucket: Bucket) -> int:
    try:
        head = read_head(bucket)
    except Transient:
        return -1
    return -1 if head is None or head.checkpoint is None else head.checkpoint.step


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rewards(bucket: Bucket, max_steps: int) -> tuple[float, ...]:
    rows: list[Any] = list(join_metrics(read_rows(bucket, "metrics"), max_steps))
    return tuple(row["reward"] for row in rows if "reward" in row)
