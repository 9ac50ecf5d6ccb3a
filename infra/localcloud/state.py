"""The local cloud of this user as others see it: where its state is, whether it runs, how to start and end it.

One folder holds everything (BATON_LOCAL_HOME); who holds its lock is the cloud. cloud.json says where it answers.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.errors import BatonError, Transient, UsageError

HOME = "BATON_LOCAL_HOME"
ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"localhost:1/baton/train@sha256:{'0' * 64}"
"""Any image is this repository there. No registry can be on that port: a launch says that it could not look."""
START_S, END_S = 60.0, 90.0
LOOK_EVERY_S = 0.05
ANSWER_S = 30.0


@dataclass(frozen=True)
class Running:
    """A cloud that runs."""

    pid: int
    compute_url: str
    storage_url: str
    secrets_url: str
    project: str
    bucket: str
    scale: float

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        """Has it do something (infra/localcloud/compute/control.py). Raises UsageError where it refuses."""
        return self._ask(json.dumps({"do": do, **details}).encode())

    def look(self) -> dict[str, Any]:
        """What there is, and what is armed."""
        return self._ask(None)

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.compute_url}/_control", data=body)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=ANSWER_S) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        except urllib.error.HTTPError as error:
            message = json.load(error)["error"]["message"]
            raise UsageError(message, fix="baton local status shows what there is.") from None
        except OSError as error:
            raise Transient(
                f"the local cloud does not answer: {error}", fix="Try again; else: baton local down"
            ) from None

    def environment(self) -> dict[str, str]:
        """What points every client at it."""
        metadata = self.compute_url.removeprefix("http://")
        return {
            "STORAGE_EMULATOR_HOST": self.storage_url,
            "GCE_METADATA_HOST": metadata,
            "GCE_METADATA_IP": metadata,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.compute_url}/compute/v1/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{self.storage_url}/storage/v1/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"{self.secrets_url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": self.project,
            "GOOGLE_CLOUD_PROJECT": self.project,
            "BATON_PROJECT": self.project,
            "BATON_BUCKET": f"gs://{self.bucket}",
            "BATON_IMAGE": IMAGE,
        }


def home_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where its state is."""
    env = os.environ if environment is None else environment
    if env.get(HOME):
        return Path(env[HOME]).absolute()
    state = env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "baton" / "cloud"


@contextmanager
def holding(home: Path) -> Iterator[None]:
    """This process is the cloud, until the end of the block. Raises UsageError when another one is."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"a local cloud with its state in {home} runs already.", fix="baton local down") from None
        yield


def is_held(home: Path) -> bool:
    """Whether a process is the cloud, ready or not."""
    try:
        with (home / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def write(home: Path, running: Running) -> None:
    """Says that it is ready."""
    fresh = home / "cloud.json.new"
    fresh.write_text(json.dumps(asdict(running), indent=2))
    fresh.replace(home / "cloud.json")


def last_known(home: Path) -> Running | None:
    """What was last said of it, whether it runs or not."""
    try:
        return Running(**json.loads((home / "cloud.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def find(home: Path) -> Running:
    """The cloud that runs. Raises UsageError when there is none."""
    found = last_known(home) if is_held(home) else None
    if found is None or not _lives(found.pid):
        raise UsageError("the local cloud is not up.", fix="baton local up")
    return found


def bring_up(home: Path, project: str, scale: float, flags: Sequence[str] = ()) -> tuple[Running, bool]:
    """The cloud, once it is ready, and whether it had to be started. Raises UsageError for one that runs otherwise."""
    if is_held(home):
        running = _wait_ready(home, None)
        if (running.project, running.scale) != (project, scale):
            raise UsageError(
                f"the local cloud runs already, as project {running.project} with --scale {running.scale:g}.",
                fix="End it first: baton local down",
            )
        return running, False
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "infra.localcloud", "--home", str(home), "--project", project]
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--scale", str(scale), *flags],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it stays when the terminal goes
        )
    return _wait_ready(home, process), True


def _wait_ready(home: Path, process: "subprocess.Popen[bytes] | None") -> Running:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = last_known(home)
        ready = found is not None and is_held(home) and _lives(found.pid)
        if found is not None and ready and (process is None or found.pid == process.pid):
            return found
        if process is not None and process.poll() is not None:
            break
        time.sleep(LOOK_EVERY_S)
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()
    raise BatonError(f"the local cloud did not start: {_last_words(home)}", fix=f"Its log is {home}/daemon.log.")


def bring_down(home: Path) -> bool:
    """Ends it and all its VMs; returns whether it ran. When this returns, no process of it is left."""
    if not is_held(home):
        return False
    found = last_known(home)
    for number, patience_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        if found is not None and _lives(found.pid):
            os.kill(found.pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not is_held(home) and (found is None or not _lives(found.pid)):
                return True
            time.sleep(LOOK_EVERY_S)
    raise BatonError(f"the local cloud does not end: {_last_words(home)}", fix=f"Its log is {home}/daemon.log.")


def _lives(pid: int) -> bool:
    """Whether it runs; one that has ended, and whose parent has not been told yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _last_words(home: Path) -> str:
    try:
        lines = (home / "daemon.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "it said nothing"
    return lines[-1] if lines else "it said nothing"
