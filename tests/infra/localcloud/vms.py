"""A small cloud for tests: storage with a policy, VMs, and a run of the stories' recipe that they may train."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.localcloud.storage import StorageServer, start
from infra.localcloud.vm.machines import Machines
from infra.vm import boot_attributes
from job.run.blobs import put_blob
from job.run.claims import Claim, update_claims
from job.run.exit import ContainerExit, read_exit
from job.run.head import read_head
from job.run.inputs import INPUT_KEYS, input_path, pin_input
from job.run.layout import console_folder
from job.run.model_source import resolve_model
from job.run.revise import make_revision
from job.run.spec import SpecModel, write_spec
from job.settings import load_settings
from job.storage import Bucket, open_bucket

BUCKET, ZONE = "baton", "us-central1-a"
IMAGE = "us-docker.pkg.dev/project/baton/job@sha256:0123"
ACCOUNT = "baton-run@project.iam.gserviceaccount.com"
WAIT_S = 120.0  # for what takes seconds; a machine with other work on it may be slow


def wait_until(condition: Callable[[], bool], what: Callable[[], str] = lambda: "") -> None:
    """Waits for a condition, not for a time."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, what()
        time.sleep(0.01)  # between two looks


def processes_below(folder: Path) -> list[str]:
    """Every process of this machine that works in a folder or below it, or whose environment or command names it."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known = command, (process / "environ").read_text(errors="replace"), str((process / "cwd").readlink())
            state = (process / "stat").read_text().rpartition(") ")[2][0]
        except OSError:
            continue  # it has ended, or is the kernel's
        if state != "Z" and any(str(folder) in text for text in known) and process.name != str(os.getpid()):
            found.append(f"{process.name} {command}")
    return found


@dataclass
class World:
    """Storage, the VMs, and who has ended."""

    folder: Path
    storage: StorageServer
    machines: Machines
    ended: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        """The run."""
        return f"gs://{BUCKET}/runs/story"

    @property
    def run(self) -> Bucket:
        """As the laptop sees it."""
        return open_bucket(self.uri)

    def boot(self, attempt: int = 1, *, gpu: str = "none", **more: Any) -> str:
        """Switches an attempt's VM on; its name."""
        name = f"vm-{attempt}"
        attributes = boot_attributes() | {
            "baton-role": "attempt",
            "baton-run": self.uri,
            "baton-attempt": str(attempt),
            "baton-image": IMAGE,
            "baton-gpu": gpu,
        }
        options = {"machine_type": "e2-standard-8" if gpu == "none" else "g2-standard-8", "attributes": attributes}
        self.machines.boot(name, instance_id=attempt, zone=ZONE, service_account=ACCOUNT, **options | more)
        return name

    def wait_for_end(self, name: str) -> None:
        """Returns when the VM is off."""
        wait_until(lambda: name in self.ended, lambda: f"{name} is still on:\n{self.machines.console(name)}")

    def exit_of(self, attempt: int) -> ContainerExit:
        """What the attempt's VM wrote of its end."""
        found = read_exit(self.run, attempt)
        assert found is not None, self.machines.console(f"vm-{attempt}")
        return found[0]

    def shipped(self, attempt: int) -> str:
        """The console as it lies in the bucket."""
        names = [info.name for info in self.run.list(console_folder(attempt))]
        return b"".join(self.run.read(name)[0] for name in names).decode()

    def durable_step(self) -> int:
        """Head's, -1 before there is one."""
        head = read_head(self.run)
        return -1 if head is None or head.checkpoint is None else head.checkpoint.step

    def weights_sha256(self) -> str:
        """Of the result."""
        return hashlib.sha256(self.run.read("result/adapter/adapter_model.safetensors")[0]).hexdigest()

    def claim(self, number: int) -> None:
        """As whoever creates a VM does before."""
        claim = Claim(number=number, kind="vm", claimed_at_s=time.time(), zone=ZONE, vm=f"vm-{number}")
        update_claims(self.run, lambda claims: claims.model_copy(update={"attempts": (*claims.attempts, claim)}))

    def launch(self, workplace: Path, scratch: Path) -> None:
        """As a launch does: files to blobs, then the spec that pins them."""
        settings = load_settings(workplace / "story.toml", ()).settings
        given = {key: path for key in INPUT_KEYS if (path := input_path(settings, key)) is not None}
        inputs = [pin_input(self.run, key, path, None, scratch) for key, path in given.items()]
        for pinned in inputs:
            put_blob(self.run, pinned.path)
        source = resolve_model(settings.model.name)
        model = SpecModel(name=source.name, sha256=source.sha256)
        write_spec(self.run, make_revision(None, settings, inputs, model, machine=None))


@contextmanager
def world_in(folder: Path, image_env: Mapping[str, str], **more: Any) -> Iterator[World]:
    """A cloud until the end of the block; then nothing of it may be left."""
    policy = folder / "policy.json"
    policy.write_text("{}")
    with start(policy=policy) as storage:
        storage.make_bucket(BUCKET, "us-central1")
        machines = Machines(
            folder / "vms",
            project="project",
            storage_url=storage.url,
            compute_url="http://127.0.0.1:1/",
            policy=policy,
            image_env=image_env,
            **more,
        )
        world = World(folder, storage, machines)
        machines.on_exit(world.ended.append)
        try:
            yield world
        finally:
            machines.close()
    assert processes_below(folder) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("keepers")]
