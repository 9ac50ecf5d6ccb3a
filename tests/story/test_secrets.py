"""Proves that a secret of a run reaches the trainer of its VM and nothing else: it is looked for, plain and in base64,
in the whole bucket, the VMs' metadata, disks, consoles and processes, and in what every command prints. And that the
rights on objects that setup grants are those that a whole run uses, no more and no less.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cloud_runs import VmCloud, VmRun

from infra.setup.grants import ACTS_AS, COMPUTE, READ, VM, WATCHDOG, WRITE
from infra.setup.secret_steps import ACCESSOR, secret_id
from job.settings.environment import SECRETS

TASK = Path(__file__).with_name("leaky.py")
VALUES = {name: f"MARKED-{name}-not-to-be-seen" for name in SECRETS}
LAPTOPS = "MARKED-hf-of-the-laptop"
"""HF_TOKEN of the person who launches: it stays on the laptop."""


@pytest.fixture
def stored(vms: VmCloud) -> Iterator[dict[str, str]]:
    """The secrets in Secret Manager, as setup puts them there; yields their versions, by variable."""
    project = vms.running.project
    root = f"{vms.running.secrets_url}/v1/projects/{project}/secrets"
    members = [f"serviceAccount:{VM}@{project}.iam.gserviceaccount.com"]
    versions = {}
    for name, value in VALUES.items():
        one, payload = f"{root}/{secret_id(name)}", {"data": base64.b64encode(value.encode()).decode()}
        policy = {"bindings": [{"role": ACCESSOR, "members": members}]}
        asked: list[tuple[str, object]] = [
            (f"{root}?secretId={secret_id(name)}", {"replication": {"automatic": {}}}),
            (f"{one}:addVersion", {"payload": payload}),
            (f"{one}:setIamPolicy", {"policy": policy}),
        ]
        for url, body in asked:
            httpx.post(url, json=body, trust_env=False).raise_for_status()
        versions[name] = f"projects/{project}/secrets/{secret_id(name)}/versions/1"
    dotenv = vms.workplace / ".env"
    lines = [f"BATON_SECRET_{name}={version}" for name, version in versions.items()]
    dotenv.write_text("\n".join([f"HF_TOKEN={LAPTOPS}", *lines]) + "\n")
    yield versions
    dotenv.unlink()


@pytest.mark.long
def test_a_secret_reaches_the_trainer_and_nothing_else(vm_run: VmRun, stored: dict[str, str]) -> None:
    cloud = vm_run.cloud
    shutil.copy(TASK, cloud.workplace)
    vm_run.settings.append("task=leaky.py:Leaky")
    vm_run.stay_at("scored", 1)
    cloud.baton(*vm_run.launch_words("--detach"))  # the bucket's watchdog VM is the only one that watches
    vm_run.wait_at(1)
    assert leaks_of_processes() == [], "while it trains"
    assert leaks_below(cloud.home) == []
    listed = httpx.get(f"{cloud.running.compute_url}/compute/v1/projects/{cloud.running.project}/aggregated/instances")
    assert "startup-script" in listed.text
    assert not any(value in listed.text for value in (*VALUES.values(), LAPTOPS))
    cloud.order("preempt", vm=vm_run.vm(1), notice_s=0)
    vm_run.wait_until(vm_run.is_finished, "the run's end")
    vm_run.wait_until(lambda: vm_run.vms() == [], "the end of its VMs")

    said = cloud.baton("logs", vm_run.name).stdout
    token = VALUES["HF_TOKEN"]
    assert f"the token is ********, its hash {hashlib.sha256(token.encode()).hexdigest()}" in said, "the trainer has it"
    for words in (
        ["status"],
        ["status", "--json"],
        ["ls"],
        ["ls", "--json"],
        ["logs"],
        ["report"],
        ["status", "--verify"],
    ):
        shown = cloud.baton(*words, *([] if words[0] == "ls" else [vm_run.name]))
        assert not leaks_in((shown.stdout + shown.stderr).encode()), words
    assert leaks_below(cloud.home) == [], "bucket, disks, consoles, journals, metadata"
    spec = json.loads(vm_run.read("control/spec/0001.json"))
    assert spec["machine"]["secrets"] == stored, "names travel"
    assert leaks_in((cloud.home / "secrets.json").read_bytes()), "the search finds what is there"

    check_rights(cloud)


def check_rights(cloud: VmCloud) -> None:
    """What the accounts of VMs have used is what they are granted."""
    reply = httpx.get(f"{cloud.running.storage_url}/_faults", trust_env=False).raise_for_status()
    used = {
        account.partition("@")[0]: {place: set(verbs) for place, verbs in places.items()}
        for account, places in reply.json()["rights"].items()
    }
    assert used[VM] == {"runs/*/control/": READ, "runs/": READ | WRITE}
    assert used[WATCHDOG] == {"runs/*/control/": READ | WRITE, "runs/": READ, "watchdog/": WRITE}
    rights = cloud.running.look()["rights"]
    of_vms = {account.partition("@")[0]: set(permissions) for account, permissions in rights.items()}
    assert VM not in of_vms
    acting = {f"iam.serviceAccounts.actAs {other}" for other in ACTS_AS[WATCHDOG]}
    assert {"compute.instances.create", "compute.instances.delete", *acting} <= of_vms[WATCHDOG] <= COMPUTE | acting


def leaks_below(folder: Path) -> list[str]:
    """Files with a secret in them; the place where secrets are kept is none of those."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path) for path in files if path.name != "secrets.json" and leaks_in(_bytes_of(path))]


def leaks_of_processes() -> list[str]:
    """Processes of this machine that show a secret in their command line or their environment."""
    shown = [path for kind in ("cmdline", "environ") for path in Path("/proc").glob(f"[0-9]*/{kind}")]
    assert shown
    return [str(path) for path in shown if leaks_in(_bytes_of(path))]


def leaks_in(data: bytes) -> list[str]:
    """The variables whose value is in there, as it is or in base64."""
    values = {**VALUES, "the laptop's": LAPTOPS}
    return [
        name
        for name, value in values.items()
        if value.encode() in data or base64.b64encode(value.encode()).rstrip(b"=")[:-1] in data
    ]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it is gone, or somebody else's
        return b""
