"""Proves that `baton local` starts one cloud, points clients at it, makes its troubles, and leaves nothing behind.

The cloud is the real one: a daemon with real VMs, asked by Google's own client and by gcloud.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from compute_world import ZONE, order
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from infra.localcloud.state import home_folder
from infra.vm import boot_attributes

ROOT = Path(__file__).parents[3]
BATON = [sys.executable, "-c", "from infra.cli import main; main()"]
Baton = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def baton(tmp_path: Path) -> Iterator[Baton]:
    """`baton ...` with a local cloud of its own, which is down again in the end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BATON_")}
    environment |= {"BATON_LOCAL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*BATON, *arguments], env=environment, capture_output=True, text=True, timeout=120)

    yield run
    assert run("local", "down").returncode == 0
    assert processes_of(tmp_path) == []


def processes_of(folder: Path) -> list[str]:
    """Processes that name the folder in their command or their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in told and b"pytest" not in told:
                found.append(told.decode(errors="replace")[:200])
    return found


def wait_until(holds: Callable[[], object]) -> None:
    for _ in range(6000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came to hold")


class Up:
    """A cloud that is up, as its clients see it."""

    def __init__(self, baton: Baton, *flags: str) -> None:
        started = baton("local", "up", "--scale", "60", *flags)
        assert started.returncode == 0, started.stderr
        self.env: dict[str, str] = json.loads(baton("local", "env", "--json").stdout)
        self.url = "http://" + self.env["GCE_METADATA_HOST"]
        self.project = self.env["BATON_PROJECT"]
        options = {"credentials": AnonymousCredentials(), "client_options": {"api_endpoint": self.url}}
        self.instances = compute_v1.InstancesClient(**options)
        self.operations = compute_v1.ZoneOperationsClient(**options)

    def insert(self, name: str, **changes: object) -> None:
        """A VM that runs; without a startup script it idles."""
        resource = order(name, **{"metadata": {"items": []}} | changes)
        asked = self.instances.insert_unary(project=self.project, zone=ZONE, instance_resource=resource)
        over = self.operations.wait(project=self.project, zone=ZONE, operation=asked.name)
        assert over.status == compute_v1.Operation.Status.DONE
        assert not over.error.errors

    def vms(self) -> dict[str, str]:
        return {vm["name"]: vm["status"] for vm in httpx.get(f"{self.url}/_control").json()["vms"]}

    def console(self, name: str) -> str:
        found = self.instances.get_serial_port_output(project=self.project, zone=ZONE, instance=name)
        return str(found.contents)

    def events(self, name: str) -> list[str]:
        found = httpx.get(f"{self.url}/_control/events?after=0").json()["events"]
        return [event["what"] for event in found if event["vm"] == name]


@pytest.mark.parametrize("command", [["env"], ["preempt", "x"], ["stockout", ZONE], ["api-down", "5"], ["status"]])
def test_without_a_cloud_every_command_says_how_to_start_one(baton: Baton, command: list[str]) -> None:
    found = baton("local", *command)
    assert found.returncode == 2
    assert "the local cloud is not up" in found.stderr
    assert "baton local up" in found.stderr
    assert found.stdout == ""
    assert baton("local", "down").returncode == 0


def test_up_twice_is_one_cloud_and_what_it_kept_is_there_after_the_next_up(baton: Baton) -> None:
    up = Up(baton)
    again = baton("local", "up", "--scale", "60")
    assert again.returncode == 0
    assert "up already" in again.stderr
    other = baton("local", "up", "--scale", "7")
    assert other.returncode == 2
    assert "--scale 60" in other.stderr
    bucket = up.env["BATON_BUCKET"].removeprefix("gs://")
    upload = f"{up.env['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o?uploadType=media&name=kept"
    assert httpx.post(upload, content=b"kept").status_code == 200
    up.insert("vm-1")
    assert baton("local", "down").returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(up.url)
    second = Up(baton)
    assert second.env == up.env  # a shell that was pointed at the first one finds it
    assert httpx.get(f"{up.env['STORAGE_EMULATOR_HOST']}/{bucket}/kept").content == b"kept"
    assert second.vms() == {"vm-1": "TERMINATED"}


def test_a_vm_boots_the_repositorys_startup_script_whatever_it_was_sent(baton: Baton, tmp_path: Path) -> None:
    up = Up(baton)
    mine = tmp_path / "mine"
    attributes = boot_attributes() | {"startup-script": f"touch {mine}", "baton-role": "attempt", "baton-attempt": "1"}
    attributes |= {"baton-run": f"{up.env['BATON_BUCKET']}/runs/r", "baton-image": "any", "baton-gpu": "none"}
    items = [{"key": key, "value": value} for key, value in attributes.items()]
    up.insert("vm-1", metadata={"items": items})
    wait_until(lambda: "baton-phase" in up.console("vm-1"))
    assert not mine.exists()


def test_troubles_come_as_they_are_ordered(baton: Baton) -> None:
    up = Up(baton)
    for name in ("taken", "failed", "undead", "cut"):
        up.insert(name)
        wait_until(lambda name=name: "boot" in up.events(name))
    assert baton("local", "preempt", "taken").returncode == 0
    wait_until(lambda: "taken" not in up.vms())
    assert baton("local", "host-error", "failed").returncode == 0
    wait_until(lambda: up.vms()["failed"] == "TERMINATED")
    assert baton("local", "zombie", "undead").returncode == 0
    assert "undead" not in up.vms()
    assert baton("local", "partition", "cut").returncode == 0
    assert baton("local", "sick-gpu", "not-there-yet").returncode == 0
    assert baton("local", "stockout", "us-*").returncode == 0
    assert baton("local", "stockout", "--over", "us-east1-b").returncode == 0
    assert baton("local", "quota", "NVIDIA_L4_GPUS", "--limit", "2", "--in", "http").returncode == 0
    shown = json.loads(baton("local", "status", "--json").stdout)
    assert [each["zone"] for each in shown["faults"]["stockouts"]] == ["us-east1-b", "us-*"]
    assert shown["faults"]["quotas"][0]["limit"] == 2
    assert "cut" in baton("local", "status").stdout
    assert baton("local", "api-down", "60").returncode == 0
    assert httpx.get(f"{up.url}/compute/v1/projects/{up.project}/zones").status_code == 503
    assert baton("local", "clear").returncode == 0
    assert httpx.get(f"{up.url}/compute/v1/projects/{up.project}/zones").status_code == 200
    wrong = baton("local", "preempt", "nobody")
    assert wrong.returncode == 2
    assert "There is no VM nobody" in wrong.stderr


def test_when_the_cloud_is_killed_nothing_is_left_and_the_next_up_goes_on(baton: Baton, tmp_path: Path) -> None:
    up = Up(baton)
    up.insert("vm-1")
    wait_until(lambda: "boot" in up.events("vm-1"))
    pid = json.loads((tmp_path / "home" / "cloud.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: processes_of(tmp_path) == [])
    assert "the local cloud is not up" in baton("local", "env").stderr
    again = Up(baton)
    assert again.vms() == {"vm-1": "TERMINATED"}
    found = httpx.get(f"{again.url}/compute/v1/projects/{again.project}/zones/{ZONE}/operations").json()["items"]
    assert found[-1]["operationType"] == "compute.instances.hostError"


def test_a_shell_takes_the_environment_as_it_is_printed(baton: Baton) -> None:
    up = Up(baton)
    printed = baton("local", "env").stdout
    script = f"GOOGLE_APPLICATION_CREDENTIALS=x; {printed}\nenv; echo left=$GOOGLE_APPLICATION_CREDENTIALS"
    seen = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {f"{name}={value}" for name, value in up.env.items()} <= set(seen)
    assert "left=" in seen


@pytest.mark.needs_system("gcloud")
def test_gcloud_creates_lists_describes_stops_and_deletes(baton: Baton, tmp_path: Path) -> None:
    up = Up(baton)
    own = {"CLOUDSDK_CONFIG": str(tmp_path / "gcloud"), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}

    def gcloud(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["timeout", "-k", "5", "100", "gcloud", *arguments]
        return subprocess.run(command, env=os.environ | up.env | own, capture_output=True, text=True)

    def instances(verb: str, *arguments: str) -> str:
        found = gcloud("compute", "instances", verb, *arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout

    machine = ["--machine-type=g2-standard-8", "--provisioning-model=SPOT", "--maintenance-policy=TERMINATE"]
    image = ["--image-project=any", "--image-family=any", "--labels=baton=run"]
    instances("create", "vm-1", f"--zone={ZONE}", *machine, "--instance-termination-action=STOP", *image)
    status = ["--format=value(name,status,scheduling.provisioningModel)"]
    assert instances("list", "--filter=labels.baton=run", *status).split() == ["vm-1", "RUNNING", "SPOT"]
    assert instances("list", "--filter=labels.baton=other", *status) == ""
    instances("stop", "vm-1", f"--zone={ZONE}")
    assert instances("describe", "vm-1", f"--zone={ZONE}", *status).split()[1] == "TERMINATED"
    assert baton("local", "stockout", ZONE).returncode == 0
    refused = gcloud("compute", "instances", "start", "vm-1", f"--zone={ZONE}")
    assert refused.returncode != 0
    assert "does not have enough resources available" in " ".join(refused.stderr.split())
    instances("delete", "vm-1", f"--zone={ZONE}")
    assert up.vms() == {}
    kinds = gcloud("compute", "operations", "list", "--format=value(operationType)").stdout.split()
    assert sorted(kinds) == ["delete", "insert", "start", "stop"]
    copied = gcloud("storage", "ls")
    assert copied.stdout.strip() == f"{up.env['BATON_BUCKET']}/"


def test_the_state_is_where_the_environment_says(tmp_path: Path) -> None:
    assert home_folder({"BATON_LOCAL_HOME": "/x/y"}) == Path("/x/y")
    assert home_folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "baton" / "cloud"
    assert home_folder({}) == Path.home() / ".local/state/baton/cloud"
