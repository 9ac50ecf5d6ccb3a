"""Runs beside the one that is measured: their VMs only idle, but for a watchdog they are runs like any other.

They are preempted at random moments, so that there are many detections. The cloud has no room for the VMs that replace
theirs, or this machine would have to train twenty runs at once; an idle VM takes their place.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from benchmarks.measure import ROOT
from benchmarks.recovery_world import ENDS, World
from infra.cloud.access import open_cloud
from infra.naming import request_id, vm_name
from infra.watch.orders import attempt_order
from job.run.claims import Claim, update_claims
from job.run.head import Owner
from job.run.heartbeat import Heartbeat
from job.run.layout import heartbeat_name
from job.run.revise import make_revision
from job.run.spec import SpecModel, write_spec
from job.settings import load_settings
from job.storage import Bucket, open_bucket

ZONE, MACHINE_TYPE, USD_PER_HOUR = "us-central1-a", "a2-highgpu-1g", 2.0
HEARTBEAT_S = 10.0
MAX_RUN_S = 24 * 3600


class IdleRuns:
    """So many of them. `detections` grows while `churn` runs: (when the cloud showed the end, seconds until it was
    recorded)."""

    def __init__(self, world: World, count: int, every_s: float, draw: random.Random) -> None:
        """`every_s`: between two preemptions, on average."""
        self._world, self._draw, self._every_s = world, draw, every_s
        self._machine = world.machine(gpu="a100", zones=(ZONE,))
        self._runs = [open_bucket(f"{world.bucket_uri}/runs/idle-{number}") for number in range(count)]
        self._numbers = {run.uri: 1 for run in self._runs}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failure: Exception | None = None
        self.detections: list[tuple[float, float]] = []
        settings = load_settings(ROOT / "recipes" / "demo.toml", env={}, dotenv=None).settings
        # Attempts with even numbers are those that a watchdog asks for.
        world.cloud.order(
            "fault", kind="ZONE_RESOURCE_POOL_EXHAUSTED", call="insert", vm="baton-idle-*[02468]", count=None
        )
        for run in self._runs:
            write_spec(run, make_revision(None, settings, (), SpecModel(name="idle"), machine=self._machine))
            self._insert(run)
        for run in self._runs:
            self._hand_to(run)

    def __enter__(self) -> "IdleRuns":
        for work in (self._beat, self._churn):
            self._threads.append(threading.Thread(target=self._guarded, args=(work,), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raises what ended a thread."""
        if self._failure is not None:
            raise self._failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._failure = error
            self._stopping.set()

    def _beat(self) -> None:
        """Signs of life of all."""
        while not self._stopping.wait(HEARTBEAT_S):
            for run in self._runs:
                self._heartbeat(run)

    def _churn(self) -> None:
        """Now and then one is preempted, and gets another VM once that was noticed."""
        while not self._stopping.wait(self._draw.uniform(0.5, 1.5) * self._every_s):
            run = self._draw.choice(self._runs)
            number = self._numbers[run.uri]
            vm = vm_name(run.uri, number)
            self._world.cloud.order("preempt", vm=vm, notice_s=self._draw.choice((0, 30)))
            over_s = self._world.event(vm, *ENDS).at_s
            _, ended_s = self._world.when_ended(run, number)
            self.detections.append((over_s, ended_s - over_s))
            self._world.when_ended(run, number + 1)  # no room
            self._numbers[run.uri] = number + 2
            self._insert(run)
            self._hand_to(run)

    def _claim(self, run: Bucket) -> Claim:
        number, now_s = self._numbers[run.uri], time.time()
        return Claim(
            number=number,
            kind="vm",
            claimed_at_s=now_s,
            zone=ZONE,
            vm=vm_name(run.uri, number),
            request_id=request_id(run.uri, number, now_s),
            machine_type=MACHINE_TYPE,
            spot=True,
            usd_per_hour=USD_PER_HOUR,
        )

    def _insert(self, run: Bucket) -> None:
        """A VM like any other but for its metadata: it boots nothing."""
        order = attempt_order(run.uri, self._machine, self._claim(run), MAX_RUN_S)
        open_cloud(self._machine.project).insert(replace(order, attributes={}))

    def _hand_to(self, run: Bucket) -> None:
        """The newest VM has the run, and lives."""
        number = self._numbers[run.uri]
        claim = self._claim(run)
        self._world.event(vm_name(run.uri, number), "RUNNING")
        self._heartbeat(run)
        Owner.take_over(run, number)
        update_claims(run, lambda claims: claims.model_copy(update={"attempts": (*claims.attempts, claim)}))

    def _heartbeat(self, run: Bucket) -> None:
        now_s, number = time.time(), self._numbers[run.uri]
        beat = Heartbeat(attempt=number, incarnation=0, phase="train", step=1, progress_s=now_s, beat_s=now_s, number=1)
        run.write(heartbeat_name(number), beat.to_bytes())
