"""The request for each GPU, as the real client sends it, is the one in tests/infra/golden, and the one a dry run shows.

`python -m tests.infra.test_golden_requests` writes the files anew, for a person to read and commit.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.cloud.types import VmOrder
from infra.cloud.vm_request import insert_request
from infra.compute import NO_CREDENTIALS, OVERRIDE, ComputeEngine
from infra.launch.planning import Asked, LaunchPlan, Surroundings, first_order, make_plan, watcher_order
from infra.launch.prepare import Prepared
from infra.launch.words import is_file
from infra.machines import machines
from job.errors import UsageError
from job.settings import Settings
from tests.infra.compute_server import ComputeServer, compute_server

PROJECT = "my-project"
GOLDEN = Path(__file__).with_name("golden")
ON_DEMAND = "l4-on-demand"
WATCHDOG = "watchdog"
CASES = [*(name for name, gpu in machines().gpu.items() if gpu.single), ON_DEMAND]
EVERY = [*CASES, WATCHDOG]
REQUEST_ID = "4c8f5a8e-6f0b-4d9b-9a55-2f1f7d3f6c11"
OPERATION = {"id": "1", "name": "operation-1", "operationType": "insert", "status": "RUNNING"}


def the_plan(case: str) -> LaunchPlan:
    settings = Settings.model_validate({"data": {"train": "rows.jsonl"}, "train": {"max_steps": 100}})
    prepared = Prepared(settings, {}, {"data.train": Path("rows.jsonl")}, 100, 1.5e9)
    around = Surroundings(
        uri="gs://bucket/runs/sums",
        project=PROJECT,
        image=f"us-docker.pkg.dev/my-project/baton/train@sha256:{'0123456789abcdef' * 4}",
        boot_image="projects/deeplearning-platform-release/global/images/common-v20261101",
        service_account="baton-vm@my-project.iam.gserviceaccount.com",
        bucket_region="us-central1",
        endpoints=("https://compute.googleapis.com", "https://storage.googleapis.com"),
    )
    gpu = "l4" if case == ON_DEMAND else case
    here = ("us-central1",)  # where it goes is not what these are about
    return make_plan(Asked(gpu, spot=case != ON_DEMAND, regions=here, max_usd=20.0), prepared, around)


def the_order(case: str) -> VmOrder:
    if case != WATCHDOG:
        return first_order(the_plan(case))
    order = watcher_order(the_plan("l4"), REQUEST_ID)
    assert order is not None
    return order


def off_the_wire(server: ComputeServer, order: VmOrder, project: str) -> dict[str, Any]:
    """What the real client sent, but for the boot files."""
    server.asked.clear()
    server.answer((200, OPERATION))
    ComputeEngine(project, {OVERRIDE: server.url, NO_CREDENTIALS: "true"}).insert(order)
    (asked,) = server.asked
    return {"method": asked.method, "path": asked.path, "query": asked.query, "body": without_files(asked.body)}


def without_files(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the boot files, which change more often than the request does."""
    items = [item for item in body["metadata"]["items"] if not is_file(item["key"])]
    return {**body, "metadata": {"items": items}}


@pytest.fixture(scope="module")
def server() -> Iterator[ComputeServer]:
    with compute_server() as known:
        yield known


@pytest.mark.parametrize("case", EVERY)
def test_the_request_off_the_wire_is_the_golden_one(server: ComputeServer, case: str) -> None:
    sent = off_the_wire(server, the_order(case), PROJECT)
    assert sent == json.loads((GOLDEN / f"insert-{case}.json").read_text())


@pytest.mark.parametrize("case", EVERY)
def test_what_a_dry_run_shows_is_what_the_client_sends(server: ComputeServer, case: str) -> None:
    order = the_order(case)
    off_the_wire(server, order, PROJECT)
    shown = insert_request(order, PROJECT)
    (asked,) = server.asked
    assert asked.body == shown.body
    assert shown.path == f"{asked.path}?requestId={asked.query['requestId']}"


def test_there_is_a_golden_request_for_each_gpu_and_no_other() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"insert-{case}.json" for case in EVERY}


@pytest.mark.parametrize("case", CASES)
def test_no_request_leaves_anything_to_be_paid_for_or_carries_a_secret(case: str) -> None:
    sent = json.loads((GOLDEN / f"insert-{case}.json").read_text())
    scheduling, (disk,) = sent["body"]["scheduling"], sent["body"]["disks"]
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert scheduling["automaticRestart"] is False
    assert scheduling["onHostMaintenance"] == "TERMINATE"
    assert int(scheduling["maxRunDuration"]["seconds"]) > 0
    assert disk["autoDelete"] is True
    keys = {item["key"] for item in sent["body"]["metadata"]["items"]} - {"block-project-ssh-keys"}
    assert not [key for key in keys if "token" in key.lower() or "secret" in key.lower() or "key" in key.lower()]
    if case == ON_DEMAND:
        assert scheduling["provisioningModel"] == "STANDARD"
        assert "preemptionNoticeDuration" not in scheduling
    else:
        assert scheduling["provisioningModel"] == "SPOT"
        assert scheduling["preemptionNoticeDuration"] == {"seconds": "120"}


@pytest.mark.parametrize("case", EVERY)
def test_no_vm_has_an_external_address_and_who_logs_in_says_iam(case: str) -> None:
    body = json.loads((GOLDEN / f"insert-{case}.json").read_text())["body"]
    region = body["machineType"].split("/")[1].rpartition("-")[0]
    assert body["networkInterfaces"] == [{"subnetwork": f"regions/{region}/subnetworks/baton"}]
    items = {item["key"]: item["value"] for item in body["metadata"]["items"]}
    assert (items["enable-oslogin"], items["block-project-ssh-keys"]) == ("TRUE", "TRUE")


def test_a_watchdog_vm_stays_and_moves_with_its_host() -> None:
    sent = json.loads((GOLDEN / f"insert-{WATCHDOG}.json").read_text())["body"]
    assert sent["scheduling"] == {
        "provisioningModel": "STANDARD",
        "automaticRestart": True,
        "onHostMaintenance": "MIGRATE",
    }
    assert [disk["autoDelete"] for disk in sent["disks"]] == [True]
    assert "guestAccelerators" not in sent


def test_every_boot_file_has_a_key_that_compute_engine_takes() -> None:
    items = insert_request(first_order(the_plan("l4")), "p").body["metadata"]["items"]
    assert {item["key"] for item in items} >= {"startup-script", "baton-file-baton_service"}
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", item["key"]) for item in items)
    assert sum(len(item["value"]) for item in items) < 512 * 1024


def test_only_a_t4_names_its_accelerator() -> None:
    named = {
        case
        for case in CASES
        if "guestAccelerators" in json.loads((GOLDEN / f"insert-{case}.json").read_text())["body"]
    }
    assert named == {"t4"}


@pytest.mark.parametrize("gpu", ["h200", "b200"])
def test_a_gpu_that_comes_by_eights_makes_no_request(gpu: str) -> None:
    with pytest.raises(UsageError, match="8 at a time only"):
        the_plan(gpu)


def main() -> None:
    """Writes the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    with compute_server() as server:
        for case in EVERY:
            sent = off_the_wire(server, the_order(case), PROJECT)
            (GOLDEN / f"insert-{case}.json").write_text(json.dumps(sent, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    os.environ.pop(OVERRIDE, None)
    main()
