"""A local cloud of the benchmark's own, what happens in it, and a real watchdog beside it."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from infra.localcloud.state import Running, bring_down, bring_up
from infra.machines import machines
from job.run.claims import Claim, Claims
from job.run.layout import CLAIMS
from job.run.spec import Machine
from job.storage import Bucket

PROJECT = "benchmark"
IMAGE = f"us-docker.pkg.dev/benchmark/baton/train@sha256:{'0' * 64}"
WAIT_S = 240.0
LOOK_S = 0.1
EVENTS_WAIT_S = 2.0
ENDS = ("compute.instances.preempted", "STOPPING", "TERMINATED")
"""By which the cloud shows that a VM ends."""


@dataclass(frozen=True)
class Event:
    """What happened to a VM."""

    at_s: float
    what: str
    vm: str


class World:
    """A cloud, and what happened in it so far."""

    def __init__(self, cloud: Running, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.bucket_uri = f"gs://{cloud.bucket}"
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._over = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Follows no more."""
        self._over = True
        self._thread.join()

    def machine(self, *, gpu: str, zones: tuple[str, ...] = ()) -> Machine:
        """What a run's VMs may be."""
        return Machine(
            gpu=gpu,
            project=self.cloud.project,
            zones=zones,
            image=IMAGE,
            boot_image=machines().boot_image,
            boot_disk_gb=machines().boot_disk_gb,
            service_account=f"baton-vm@{self.cloud.project}.iam.gserviceaccount.com",
            max_usd=10_000.0,
        )

    def event(self, vm: str, *whats: str) -> Event:
        """The first of these that happened to the VM; waits for it."""

        def found() -> Event | None:
            return next((one for one in self._events if one.vm == vm and one.what in whats), None)

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None or self._over, WAIT_S):
                raise self.failed(f"{' or '.join(whats)} of {vm}")
            event = found()
        if event is None:
            raise self.failed(f"{' or '.join(whats)} of {vm}")
        return event

    def when_ended(self, run: Bucket, number: int) -> tuple[Claim, float]:
        """A claim as its end was recorded, and when; waits for it."""

        def look() -> tuple[Claim, float] | None:
            info, found = run.stat(CLAIMS), Claims.read(run, CLAIMS)
            if info is None or found is None or found[1].generation != info.generation:
                return None  # written in between
            claim = next((claim for claim in found[0].attempts if claim.number == number), None)
            # A read tells of whole seconds only.
            return None if claim is None or claim.ended is None else (claim, info.updated_s)

        return self.wait(look, f"the end of attempt {number} of {run.uri}")

    def wait(self, look: "Callable[[], Any | None]", what: str) -> Any:
        """What `look` finds."""
        until_s = time.monotonic() + WAIT_S
        while (found := look()) is None:
            if time.monotonic() > until_s:
                raise self.failed(what)
            time.sleep(LOOK_S)  # between two looks
        return found

    def failed(self, what: str) -> RuntimeError:
        """With what there is to see."""
        log = self.folder / "watchdog.log"
        words = log.read_text()[-4000:] if log.exists() else ""
        return RuntimeError(f"{what} did not come.\nwatchdog:\n{words}\ncloud: {json.dumps(self.cloud.look())[:4000]}")

    def _follow(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        after = 0
        while not self._over:
            url = f"{self.cloud.compute_url}/_control/events?after={after}&wait_s={EVENTS_WAIT_S}"
            try:
                with opener.open(url, timeout=60) as reply:
                    told = json.load(reply)["events"]
            except OSError:
                self._over = True
                told = []
            with self._changed:
                self._events += [Event(one["at_s"], one["what"], one["vm"]) for one in told]
                self._changed.notify_all()
            after = told[-1]["number"] if told else after


@contextlib.contextmanager
def world_in(folder: Path, scale: float, image_env: dict[str, str]) -> Iterator[World]:
    """A cloud, to which this process and its children are pointed."""
    pairs = [f"{name}={value}" for name, value in image_env.items()]
    running, _ = bring_up(folder / "cloud", PROJECT, scale, [flag for pair in pairs for flag in ("--image-env", pair)])
    before = dict(os.environ)
    os.environ.update(running.environment())
    world = World(running, folder)
    try:
        yield world
    finally:
        os.environ.clear()
        os.environ.update(before)
        bring_down(folder / "cloud")
        world.close()


@contextlib.contextmanager
def watchdog_of(world: World) -> Iterator[None]:
    """A `baton watchdog run --all` of the bucket, as its VM runs it."""
    command = [sys.executable, "-c", "from infra.cli import main; main()", "watchdog", "run", "--all"]
    with (world.folder / "watchdog.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
        if process.poll() is not None:
            raise world.failed("the end of the benchmark before the watchdog's")
    finally:
        process.terminate()
        process.wait()
