"""Proves that a local VM is one: it boots the repository's startup script, its container is the real agent, what the
platform does to it reaches the right processes in the right order, and nothing of it is left afterwards.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vms import ACCOUNT, BUCKET, World, processes_below, wait_until, world_in

from infra.vm import boot_attributes
from job.run.claims import Claims
from job.run.head import Status, read_head
from tests.story.workplace import make_workplace

ROOT = Path(__file__).parents[3]
HOLD = """
import time

batches = []


def hold():
    batches.append(1)
    while len(batches) > 1 and not Path(os.environ["GO_ON"]).exists():
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    make_workplace(folder)
    task = folder / "story_task.py"  # stays in its second batch, after step 4 of 6, until it may go on
    task.write_text(task.read_text().replace("note_it():\n", "note_it():\n    hold()\n", 1) + HOLD)
    recipe = folder / "story.toml"
    recipe.write_text(recipe.read_text().replace('"micro"', f'"{folder}/micro"'))  # part of the image
    return folder


def image_env(folder: Path) -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GO_ON": str(folder / "go-on")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_in(tmp_path, image_env(tmp_path)) as world:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", world.storage.url)
        yield world


@pytest.fixture
def launched(world: World, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """With a run that waits for its first attempt."""
    monkeypatch.chdir(workplace)
    (tmp_path / "scratch").mkdir()
    world.launch(workplace, tmp_path / "scratch")
    world.claim(1)
    return world


def container_pid(world: World, name: str) -> int:
    """Of the container's first process, once there is one."""
    file = world.folder / "vms" / name / "disk/var/lib/docker/containers/baton/pid"
    wait_until(lambda: file.exists() and bool(file.read_text()), lambda: world.machines.console(name))
    return int(file.read_text())


def wait_for_step(world: World, name: str, step: int) -> None:
    wait_until(lambda: world.durable_step() >= step, lambda: f"step {step}\n{world.machines.console(name)}")


def test_a_vm_trains_is_stopped_by_acpi_and_the_next_one_finishes(launched: World) -> None:
    world = launched
    first = world.boot(1)
    wait_for_step(world, first, 1)
    world.machines.acpi_stop(first, 30)
    world.wait_for_end(first)
    assert (world.exit_of(1).exit_code, world.exit_of(1).reason) == (75, "exit")
    head = read_head(world.run)
    assert head is not None
    assert head.status is Status.RELEASED
    console = world.shipped(1)
    phases = [line.split() for line in console.splitlines() if line.startswith("baton-phase")]
    assert [phase for _, phase, _ in phases] == ["boot", "driver", "pull", "container"]
    assert console.endswith("baton: the container ended with 75 (exit)\n"), "shipped to the last line"
    assert console == world.machines.console(first)

    (world.folder / "go-on").touch()
    world.claim(2)
    second = world.boot(2)
    world.wait_for_end(second)
    assert world.exit_of(2).exit_code == 0, world.machines.console(second)
    assert world.run.stat("result/MANIFEST.json") is not None
    assert processes_below(world.folder) == []


def test_a_host_error_ends_every_process_at_once_and_nothing_is_said(launched: World) -> None:
    world = launched
    name = world.boot(1)
    wait_for_step(world, name, 1)
    assert len(processes_below(world.folder)) > 5
    world.machines.kill(name)
    assert processes_below(world.folder) == []
    assert not world.machines.is_running(name)
    world.wait_for_end(name)
    assert world.run.stat("attempts/0001/exit.json") is None
    head = read_head(world.run)
    assert head is not None
    assert head.status is Status.RUNNING


def test_a_container_that_takes_longer_than_the_grace_is_cut_off(launched: World) -> None:
    world = launched
    name = world.boot(1)
    pid = container_pid(world, name)
    os.kill(pid, signal.SIGSTOP)  # it hears nothing of SIGTERM
    world.machines.acpi_stop(name, 1.0)
    world.wait_for_end(name)
    assert processes_below(world.folder) == []
    assert world.run.stat("attempts/0001/exit.json") is None


def test_a_sick_gpu_is_reported_and_nothing_is_trained(launched: World) -> None:
    world = launched
    world.machines.sick_gpu("vm-1")
    name = world.boot(1, gpu="l4")
    world.wait_for_end(name)
    ended = world.exit_of(1)
    assert ended.reason == "sick gpu"
    assert "Unable to determine the device handle" in ended.detail
    assert world.shipped(1).count("the GPU is sick") == 3, "three tries: one failed answer is no verdict"
    assert read_head(world.run) is None


@pytest.mark.long
def test_a_gpu_that_falls_sick_while_it_trains_is_found_at_the_next_start(launched: World) -> None:
    world = launched
    name = world.boot(1, gpu="l4")
    pid = container_pid(world, name)
    assert "NVIDIA L4 is well" in world.machines.console(name)
    world.machines.sick_gpu(name)
    os.kill(pid, signal.SIGKILL)
    world.wait_for_end(name)
    assert world.exit_of(1).reason == "sick gpu"


@pytest.mark.long
def test_an_out_of_memory_kill_is_told_apart_and_its_log_survives(launched: World) -> None:
    world = launched
    name = world.boot(1)
    for start in range(1, 4):
        pid = container_pid(world, name)
        world.machines.out_of_memory(name)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
        said = "the container ended with 137 (out of memory)"
        wait_until(lambda start=start, said=said: world.machines.console(name).count(said) == start)
        if start < 3:
            assert world.run.stat("attempts/0001/exit.json") is None, "it is started again: that was no end"
            box = world.folder / "vms" / name / "disk/var/lib/docker/containers/baton/pid"
            wait_until(lambda box=box, pid=pid: box.exists() and box.read_text().strip() not in ("", str(pid)))
    world.wait_for_end(name)
    assert (world.exit_of(1).exit_code, world.exit_of(1).reason) == (137, "out of memory")
    assert world.shipped(1).count("(out of memory)") == 3


@pytest.mark.long
def test_an_image_that_cannot_be_pulled_is_told_apart(world: World) -> None:
    world.machines.registry_down("vm-1")
    name = world.boot(1)
    world.wait_for_end(name)
    ended = world.exit_of(1)
    assert ended.reason == "pull"
    assert "baton: the boot ends here" in world.shipped(1)


def test_a_vm_that_is_preempted_while_it_boots_is_gone_in_time(tmp_path: Path) -> None:
    with world_in(tmp_path, {}, pull_s=600.0) as world:
        name = world.boot(1)
        wait_until(lambda: "baton-phase pull" in world.machines.console(name))
        world.machines.acpi_stop(name, 30)
        world.wait_for_end(name)


def test_a_vm_without_a_startup_script_idles_until_it_is_stopped(world: World) -> None:
    world.boot(1, attributes={"note": "mine"})
    assert world.machines.is_running("vm-1")
    world.machines.acpi_stop("vm-1", 30)
    world.wait_for_end("vm-1")


def test_only_the_repositorys_own_script_is_ever_run(world: World) -> None:
    hostile = dict.fromkeys(boot_attributes(), "#!/bin/bash\ntouch hostile\n")
    world.boot(1, attributes=hostile)
    world.wait_for_end("vm-1")  # it has no role
    assert "'role=$(attribute baton-role)' failed" in world.machines.console("vm-1")
    assert list(world.folder.rglob("hostile")) == []


def test_the_container_has_no_more_rights_than_a_real_vm(launched: World) -> None:
    world = launched
    name = world.boot(1)
    pid = container_pid(world, name)
    env = dict(entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry)
    assert env["BATON_RUN"] == world.uri
    assert {key for key in env if key.startswith("LOCAL_VM")} == set()
    assert world.machines.token_account("nobody's") is None
    wait_for_step(world, name, 0)
    token = next(iter(json.loads((world.folder / "policy.json").read_text())["tokens"]))
    assert world.machines.token_account(token) == ACCOUNT
    claims = f"{world.storage.url}/storage/v1/b/{BUCKET}/o/runs%2Fstory%2Fcontrol%2Fclaims.json"
    head = claims.replace("control%2Fclaims", "head")
    asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}"]

    def status(*request: str) -> str:
        return subprocess.run([*asked, *request], capture_output=True, text=True, check=True).stdout

    assert status(claims) == "200"
    assert status("-X", "DELETE", claims) == "403"
    assert status(head) == "200"
    assert status("-X", "DELETE", head) == "204"
    assert Claims.read(world.run, "control/claims.json") is not None


def test_connections_are_known_to_be_a_vms_and_are_cut_with_its_network(launched: World) -> None:
    world = launched
    name = world.boot(1)
    pid = container_pid(world, name)
    assert pid
    assert world.machines.owns_peer(1) is None
    assert not world.machines.is_cut(1)
    url = world.machines.metadata_url(name)
    ask = ["curl", "-s", "-H", "Metadata-Flavor: Google", f"{url}/computeMetadata/v1/instance/zone"]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.endswith("zones/us-central1-a")
    world.machines.partition(name)
    assert subprocess.run(ask, capture_output=True, check=False).returncode == 52  # an empty reply
    world.machines.partition(name, cut=False)
    assert subprocess.run(ask, capture_output=True, check=False).returncode == 0


CLOUD = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/infra/localcloud")
from vms import world_in
folder = Path(sys.argv[1])
with world_in(folder, {}) as world:
    world.boot(1)
    print("up", flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_is_left_when_the_local_cloud_dies_however_it_dies(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", CLOUD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as cloud:
        assert cloud.stdout is not None
        assert cloud.stdout.readline() == b"up\n"
        below = tmp_path / "vms"
        wait_until(lambda: len(processes_below(below)) >= 2)
        cloud.send_signal(number)
        cloud.wait()
        wait_until(lambda: processes_below(below) == [], lambda: "\n".join(processes_below(below)))


def test_no_process_is_left_when_a_keeper_is_killed(launched: World) -> None:
    world = launched
    name = world.boot(1)
    container_pid(world, name)
    keeper = int(next(line for line in processes_below(world.folder) if "vm.keeper" in line).split()[0])
    os.kill(keeper, signal.SIGKILL)
    world.wait_for_end(name)
    wait_until(lambda: processes_below(world.folder) == [], lambda: "\n".join(processes_below(world.folder)))
