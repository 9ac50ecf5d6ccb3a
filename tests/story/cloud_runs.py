"""Runs on VMs of a local cloud: `baton launch` and `baton watchdog run` as processes, troubles over the wire, and what
must hold at the end of every story.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from attempts import ROOT, wait_until, weights_sha256

from infra.localcloud.state import HOME, Running, bring_down, bring_up
from infra.naming import run_labels, vm_name
from job.run.claims import Claim, Claims, read_claims
from job.run.head import Head, Status, read_head
from job.run.layout import attempt_name
from job.run.segments import read_rows
from job.storage import Bucket, open_bucket
from job.views.status import RunStatus, read_status
from tests.infra.localcloud.vms import processes_below

SCALE = 20.0  # 120 s of notice pass in 6 s, the platform's own boot in 1.6 s
PULL_S = 0.3
BATON = Path(sys.executable).with_name("baton")
MODEL, COMMIT = "story/micro", "5e" * 20
"""The stories' model, as an image would bring it along: on the Hub it is not."""
IMAGE = f"localhost:1/baton/train@sha256:{'ab' * 32}"
ZONES = ("us-central1-a", "us-central1-b", "us-central1-c", "us-east1-b", "us-east4-a", "us-west1-a")
SETTINGS = (
    f"model.name={MODEL}",
    f"model.revision={COMMIT}",
    "attempt.machine_usd_per_hour=1000",  # checkpoints need not keep under a share of a machine's price
    "attempt.flush_margin_s=0.3",
)
CLI_S = 180.0
END_S = 180.0
LOOK_S = 0.3  # between two looks of the stories' own watchdogs


@dataclass
class VmCloud:
    """A local cloud of a module's own, and the user's folder that its runs are launched from."""

    home: Path
    workplace: Path
    running: Running
    seen: int = 0
    """The number of the last event that a story has waited for."""

    @property
    def places(self) -> Path:
        """Where attempts look up at which places they are to stay."""
        return self.home / "places"

    def env(self) -> dict[str, str]:
        """Of every command: nothing of the developer's own settings, and the local cloud."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BATON_", "GOOGLE_", "CLOUDSDK_", "GCE_"))}
        return {
            **kept,
            **self.running.environment(),
            HOME: str(self.home),
            "PYTHONPATH": str(ROOT),
            "BATON_IMAGE": IMAGE,
            "HF_HUB_OFFLINE": "1",
        }

    def start(self, *words: str, name: str = "command") -> "Command":
        """`baton WORDS`, in the background."""
        out, err = self.home / f"{name}.out", self.home / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [str(BATON), *words],
                cwd=self.workplace,
                env=self.env(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        return Command(process, out, err)

    def baton(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """`baton WORDS`; it has to end with `code`."""
        done = subprocess.run(
            [str(BATON), *words],
            cwd=self.workplace,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLI_S,
        )
        assert done.returncode == code, f"baton {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        """Something that happens to the cloud (infra/localcloud/compute/control.py)."""
        return self.running.order(do, **details)

    def vms(self) -> list[dict[str, Any]]:
        """All VMs that it has, watchdogs included."""
        found: list[dict[str, Any]] = self.running.look()["vms"]
        return found

    def events(self, after: int = 0, wait_s: float = 0.0) -> list[dict[str, Any]]:
        """What has happened after event number `after`; waits until there is something."""
        reply = httpx.get(
            f"{self.running.compute_url}/_control/events",
            params={"after": after, "wait_s": wait_s},
            timeout=wait_s + 30,
            trust_env=False,
        )
        found: list[dict[str, Any]] = reply.raise_for_status().json()["events"]
        return found

    def console(self, vm: str) -> str:
        """What a VM has printed so far, as long as its disk is there."""
        file = self.home / "vms" / vm / "disk/var/lib/baton/console.log"
        try:
            return file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def run(self, name: str, *settings: str) -> "VmRun":
        """A run of that name, which nobody has launched yet."""
        return VmRun(self, name, [*SETTINGS, f"attempt.notice_s={120 / self.running.scale}", *settings])


@dataclass
class Command:
    """`baton ...` in the background."""

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return f"{self.out.read_text(errors='replace')}\n{self.err.read_text(errors='replace')}"

    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def wait(self, wait_s: float = CLI_S) -> int:
        """Its exit code."""
        return self.process.wait(wait_s)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.process.kill()
        self.process.wait()


@dataclass
class VmRun:
    """One run on VMs."""

    cloud: VmCloud
    name: str
    settings: list[str] = field(default_factory=list)
    watchdogs: list[Command] = field(default_factory=list)
    """Those that this story has started."""

    @property
    def uri(self) -> str:
        """Its URI."""
        return f"gs://{self.cloud.running.bucket}/runs/{self.name}"

    @cached_property
    def store(self) -> Bucket:
        """Its objects, as the laptop sees them."""
        return open_bucket(self.uri)

    def read(self, name: str) -> bytes:
        """One object."""
        return self.store.read(name)[0]

    # --- what a person does --------------------------------------------------------------------------------------

    def launch_words(self, *more: str) -> list[str]:
        """Of the command line that launches it."""
        sets = [f"--set={setting}" for setting in self.settings]
        spot = ["--gpu", "l4", "--spot", "--max-usd", "50"]
        return ["launch", "story.toml", "--run", self.name, *spot, *sets, "--yes", *more]

    def launch(self, *more: str) -> None:
        """Launches it and returns once a VM was asked for; the bucket's watchdog VM and one here look after it."""
        self.cloud.baton(*self.launch_words("--detach", *more))
        self.watch()

    def watch(self) -> Command:
        """One more watchdog of this run alone, on this machine."""
        number = len(self.watchdogs)
        words = ("watchdog", "run", self.name, "--interval", str(LOOK_S))
        self.watchdogs.append(self.cloud.start(*words, name=f"{self.name}-watchdog-{number}"))
        return self.watchdogs[-1]

    # --- what it is ----------------------------------------------------------------------------------------------

    def vm(self, attempt: int) -> str:
        """The name of an attempt's VM."""
        return vm_name(self.uri, attempt)

    def claims(self) -> Claims:
        """Who may try it."""
        return read_claims(self.store)

    def claim(self, attempt: int) -> Claim | None:
        """One of them, None before it was claimed."""
        return next((claim for claim in self.claims().attempts if claim.number == attempt), None)

    def head(self) -> Head | None:
        """Head, None before there is one."""
        return read_head(self.store)

    def durable_step(self) -> int:
        """The step that head names, -1 before there is one."""
        head = self.head()
        return -1 if head is None or head.checkpoint is None else head.checkpoint.step

    def status(self) -> RunStatus:
        """As `baton status` shows it."""
        return read_status(self.store)

    def is_finished(self) -> bool:
        """Whether head says so."""
        head = self.head()
        return head is not None and head.status is Status.FINISHED

    def vms(self) -> list[dict[str, Any]]:
        """Its VMs that the cloud has, in whatever state."""
        label = run_labels(self.uri, 1)["baton-run"]
        return [vm for vm in self.cloud.vms() if vm["labels"].get("baton-run") == label]

    def hows(self) -> list[str | None]:
        """How its attempts ended; None for one that has not."""
        return [None if claim.ended is None else claim.ended.how for claim in self.claims().attempts]

    def vm_ids(self) -> list[str]:
        """Of all the VMs that it ever had, oldest first: the cloud gives each a number of its own."""
        names = {claim.vm for claim in self.claims().attempts}
        return list(
            dict.fromkeys(
                one["details"]["id"] for one in self.cloud.events() if one["vm"] in names and "id" in one["details"]
            )
        )

    def attempt_record(self, attempt: int) -> dict[str, Any]:
        """attempt.json."""
        found: dict[str, Any] = json.loads(self.read(attempt_name(attempt)))
        return found

    def journal(self, kind: str) -> list[Mapping[str, Any]]:
        """All events of a kind, of all attempts."""
        return [row.fields for row in read_rows(self.store, "events") if row.fields["kind"] == kind]

    # --- waiting -------------------------------------------------------------------------------------------------

    def stay_at(self, place: str, attempt: int) -> None:
        """Has an attempt that has not begun stay at `place` (tests/story/places.py) once it gets there."""
        self._place(attempt).write_text(place)

    def is_at(self, attempt: int) -> bool:
        """Whether the attempt is where it is to stay."""
        return self._place(attempt, ".at").exists()

    def wait_at(self, attempt: int) -> None:
        """Returns when the attempt is where it is to stay."""
        self.wait_until(lambda: self.is_at(attempt), f"attempt {attempt} at its place")

    def go_on(self, attempt: int) -> None:
        """Lets an attempt go on from where it stays."""
        self._place(attempt, ".at.go").touch()

    def wait_for_event(self, attempt: int, what: str, **details: str) -> None:
        """Returns when that has happened to an attempt's VM: a status, a system event, boot, done..."""
        name = self.vm(attempt)

        def happened() -> bool:
            return any(
                event["what"] == what and event["vm"] == name and details.items() <= event.items()
                for event in self.cloud.events()
            )

        self.wait_until(happened, f"{what} of {name}")

    def wait_for_phase(self, attempt: int, phase: str) -> None:
        """Returns when the attempt's VM has begun a phase of its boot: boot, driver, pull, container."""
        self.wait_until(lambda: f"baton-phase {phase} " in self.cloud.console(self.vm(attempt)), f"phase {phase}")

    def wait_for_step(self, step: int) -> None:
        """Returns when that step is durable."""
        self.wait_until(lambda: self.durable_step() >= step, f"step {step}")

    def wait_for_end(self, attempt: int) -> str:
        """How an attempt ended, once a watchdog has recorded it."""

        def ended() -> bool:
            claim = self.claim(attempt)
            return claim is not None and claim.ended is not None

        self.wait_until(ended, f"the end of attempt {attempt}")
        how = self.hows()[attempt - 1]
        assert how is not None
        return how

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition; where it does not come, shows all that is known."""
        try:
            wait_until(condition, what, wait_s=END_S)
        except AssertionError:
            print(self.all_that_is_known())
            raise

    def finish(self) -> None:
        """Returns when the run is finished and a watchdog has seen that nothing of it is left."""
        self.wait_until(self.is_finished, "the run's end")
        watchdog = next((one for one in self.watchdogs if one.lives()), None) or self.watch()
        self.wait_until(lambda: not watchdog.lives(), "the watchdog's end")
        assert watchdog.wait() == 0, watchdog.said

    # --- the end -------------------------------------------------------------------------------------------------

    def check(self, reference: str, *hows: str) -> None:
        """What holds at the end of every story: the weights are those of the untouched run, the attempts ended so and
        no other way, and nothing is left: no VM, no process, nothing that `baton gc` would delete.
        """
        assert weights_sha256(self) == reference  # type: ignore[arg-type]
        claims = self.claims()
        assert [None if claim.ended is None else claim.ended.how for claim in claims.attempts] == list(hows), (
            self.all_that_is_known()
        )
        assert [claim.number for claim in claims.attempts] == list(range(1, len(hows) + 1))
        assert claims.want == "run"
        self.check_nothing_left()

    def check_nothing_left(self) -> None:
        """No VM, no process, nothing that `baton gc` would delete."""
        assert self.vms() == []
        waste = json.loads(self.cloud.baton("gc", self.name, "--dry-run", "--json").stdout)
        assert waste["found"] == []
        for claim in self.claims().attempts:
            assert claim.vm is not None
            folder = self.cloud.home / "vms" / claim.vm
            wait_until(lambda folder=folder: processes_below(folder) == [], f"no process of {claim.vm}")  # type: ignore[misc]

    def end(self) -> None:
        """Ends what this story has started here."""
        for watchdog in self.watchdogs:
            watchdog.kill()

    def all_that_is_known(self) -> str:
        """For whoever has to find out."""
        parts = [self.claims().model_dump_json(indent=1), f"head: {self.head()}", f"VMs: {self.vms()}"]
        parts += [f"watchdog: {one.said[-2000:]}" for one in self.watchdogs]
        for claim in self.claims().attempts:
            parts.append(f"--- {claim.vm}\n{self.cloud.console(claim.vm or '')[-3000:]}")
        return "\n".join(parts)

    def _place(self, attempt: int, more: str = "") -> Path:
        return self.cloud.places / f"{self.name}-{attempt:04d}{more}"


def bake(workplace: Path, folder: Path) -> dict[str, str]:
    """What the image sets for its containers: the model in a cache of its own, and where to stay."""
    model = folder / "hub" / f"models--{MODEL.replace('/', '--')}"
    shutil.copytree(workplace / "micro", model / "snapshots" / COMMIT)
    files = {path.name: {"size": path.stat().st_size, "blob_id": "0" * 40} for path in (workplace / "micro").iterdir()}
    (model / "trees").mkdir()  # as a download leaves it: offline, it says that the snapshot is whole
    (model / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    return {
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT / 'tests/story/image'}:{ROOT}",
        "BATON_TEST_PLACES": str(folder / "home/places"),
    }


@contextmanager
def vm_cloud(folder: Path, workplace: Path, *, scale: float = SCALE, pull_s: float = PULL_S) -> Iterator[VmCloud]:
    """A local cloud until the end of the block; then no process of it is left."""
    home = folder / "home"
    (home / "places").mkdir(parents=True)
    flags = [f"--image-env={name}={value}" for name, value in bake(workplace, folder).items()]
    running, started = bring_up(home, "story-project", scale, [*flags, "--pull-s", str(pull_s)])
    assert started
    try:
        yield VmCloud(home, workplace, running)
    finally:
        bring_down(home)
    wait_until(lambda: processes_below(home) == [], f"the end of every process below {home}")
