"""The whole story on this machine: train, be killed twice, resume, finish; then compare with a run nobody touched."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import BatonError, Transient, UsageError
from job.run.head import read_head
from job.run.layout import RESULT
from job.run.segments import join_metrics, read_rows
from job.storage import Bucket, open_bucket
from job.views.status import RunStatus, read_status

ROOT = Path(__file__).parents[1]
RECIPE = Path("recipes/demo.toml")
ADAPTER = f"{RESULT}/adapter/adapter_model.safetensors"
LOOK_EVERY_S = 0.05
WINDOW = 10  # steps whose mean counts as the reward at the start, and at the end
RISE = 0.3  # what the reward has to gain


@dataclass(frozen=True)
class Kill:
    """One planned end of an attempt."""

    signal: signal.Signals
    step: int
    """Sent once this step is durable."""


@dataclass(frozen=True)
class Outcome:
    """What the demo saw."""

    killed: RunStatus
    untouched: RunStatus
    kills: tuple[Kill, ...]
    killed_sha256: str
    untouched_sha256: str
    rewards: tuple[float, ...]
    """Mean reward of each step of the killed run, from step 1."""
    killed_s: float
    untouched_s: float

    @property
    def identical(self) -> bool:
        """Whether both adapters are the same bytes."""
        return self.killed_sha256 == self.untouched_sha256

    @property
    def rise(self) -> float:
        """Mean of the last steps less mean of the first."""
        return mean(self.rewards[-WINDOW:]) - mean(self.rewards[:WINDOW])


def mean(values: tuple[float, ...]) -> float:
    """The arithmetic mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def plan_kills(max_steps: int, moments: random.Random) -> tuple[Kill, ...]:
    """Without a notice in the second quarter of the run, with one in the third; pure but for `moments`."""
    quarter = max_steps // 4
    return (
        Kill(signal.SIGKILL, quarter + moments.randrange(max(1, quarter))),
        Kill(signal.SIGTERM, 2 * quarter + moments.randrange(max(1, quarter))),
    )


def tell(folder: Path, seed: int, say: Callable[[str], None]) -> Outcome:
    """Runs the story in `folder`. Raises UsageError outside a clone, and what an attempt ended with by itself."""
    recipe = ROOT / RECIPE
    if not recipe.is_file():
        raise UsageError(f"there is no {recipe}.", fix="`baton demo` runs in a clone of the repository.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty.", fix="Name another folder; the demo begins two runs of its own.")
    from job.settings import load_settings

    max_steps = load_settings(recipe, (), {}, None).settings.train.max_steps
    assert max_steps is not None, "the demo's recipe counts steps"
    kills = plan_kills(max_steps, random.Random(seed))
    killed, untouched = (open_bucket(f"file://{folder.absolute()}/{name}") for name in ("killed", "untouched"))

    began_s = time.monotonic()
    say(f"1. A run of {max_steps} steps that is killed twice: {killed.uri}")
    for kill in kills:
        _attempt(killed, say, kill)
    _attempt(killed, say, None)
    killed_s = time.monotonic() - began_s

    began_s = time.monotonic()
    say(f"2. The same run, untouched: {untouched.uri}")
    _attempt(untouched, say, None)
    untouched_s = time.monotonic() - began_s

    return Outcome(
        read_status(killed),
        read_status(untouched),
        kills,
        _sha256(killed),
        _sha256(untouched),
        _rewards(killed, max_steps),
        killed_s,
        untouched_s,
    )


def _attempt(bucket: Bucket, say: Callable[[str], None], kill: Kill | None) -> None:
    """One attempt as a person would start it; killed from outside once the kill's step is durable."""
    process = subprocess.Popen(
        [sys.executable, "-m", "job", str(RECIPE), "--run", bucket.uri],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("BATON_")} | _cache(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the demo, which then ends the attempt itself
    )
    lines = threading.Thread(target=_relay, args=(process, say), daemon=True)
    lines.start()
    try:
        while process.poll() is None:
            if kill is not None and _durable_step(bucket) >= kill.step:
                say(f"   -> {kill.signal.name} from outside")
                process.send_signal(kill.signal)
                break
            time.sleep(LOOK_EVERY_S)
        code = process.wait()
    finally:
        process.kill()
        process.wait()
    lines.join()
    expected = {None: 0, signal.SIGTERM: 75, signal.SIGKILL: -signal.SIGKILL}[None if kill is None else kill.signal]
    if code != expected:
        raise BatonError(
            f"an attempt of the demo ended with {code} instead of {expected}.", fix="What it printed stands above."
        )


def _relay(process: "subprocess.Popen[str]", say: Callable[[str], None]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        say(f"   {line.rstrip()}")


def _cache() -> dict[str, str]:
    return {name: os.environ[name] for name in ("BATON_CACHE",) if name in os.environ}


def _durable_step(bucket: Bucket) -> int:
    try:
        head = read_head(bucket)
    except Transient:
        return -1
    return -1 if head is None or head.checkpoint is None else head.checkpoint.step


def _sha256(bucket: Bucket) -> str:
    return hashlib.sha256(bucket.read(ADAPTER)[0]).hexdigest()


def _rewards(bucket: Bucket, max_steps: int) -> tuple[float, ...]:
    rows: list[Any] = list(join_metrics(read_rows(bucket, "metrics"), max_steps))
    return tuple(row["reward"] for row in rows if "reward" in row)
