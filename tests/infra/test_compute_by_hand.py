"""What only people's commands ask of Compute Engine, through the real client: a drill, disks that were left."""

from collections.abc import Iterator

import pytest

from infra.cloud.types import CloudError, Disk, TroubleKind
from infra.compute import NO_CREDENTIALS, OVERRIDE, ComputeEngine
from tests.infra.compute_server import ComputeServer, compute_server

ZONE = "projects/p/zones/us-central1-a"
DONE = {"kind": "compute#operation", "id": "7", "name": "operation-1", "status": "RUNNING"}


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with compute_server() as known:
        yield known


@pytest.fixture
def cloud(server: ComputeServer) -> ComputeEngine:
    return ComputeEngine("p", {OVERRIDE: f"{server.url}/compute/v1/", NO_CREDENTIALS: "true"})


def refusal(status: int, reason: str, message: str) -> tuple[int, object]:
    return status, {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}


def test_a_drill_is_the_platforms_own_maintenance(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer((200, DONE))
    cloud.preempt("us-central1-a", "baton-x")
    (asked,) = server.asked
    assert (asked.method, asked.path) == (
        "POST",
        f"/compute/v1/{ZONE}/instances/baton-x/simulateMaintenanceEvent",
    )
    server.answer(refusal(403, "forbidden", "Required 'compute.instances.simulateMaintenanceEvent' permission"))
    with pytest.raises(CloudError) as refused:
        cloud.preempt("us-central1-a", "baton-x")
    assert refused.value.trouble.kind is TroubleKind.FORBIDDEN


def test_disks_are_listed_by_their_labels_in_all_zones(server: ComputeServer, cloud: ComputeEngine) -> None:
    disk = {
        "name": "baton-x",
        "zone": f"https://www.googleapis.com/compute/v1/{ZONE}",
        "labels": {"baton": "run"},
        "sizeGb": "100",
        "creationTimestamp": "2026-11-21T03:00:00.000-08:00",
        "users": [f"https://www.googleapis.com/compute/v1/{ZONE}/instances/baton-x"],
    }
    server.answer((200, {"items": {"zones/us-central1-a": {"disks": [disk]}, "zones/us-central1-b": {}}}))
    assert cloud.list_disks({"baton": "run", "baton-run": "0a"}) == (
        Disk("baton-x", "us-central1-a", {"baton": "run"}, 100, 1795258800.0, ("baton-x",)),
    )
    assert server.asked[0].path == "/compute/v1/projects/p/aggregated/disks"
    assert server.asked[0].query["filter"] == '(labels.baton = "run") AND (labels.baton-run = "0a")'


def test_a_disk_that_is_gone_is_no_error_and_one_that_is_held_is(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer((200, DONE))
    cloud.delete_disk("us-central1-a", "left")
    assert (server.asked[0].method, server.asked[0].path) == ("DELETE", f"/compute/v1/{ZONE}/disks/left")
    server.answer(refusal(404, "notFound", f"The resource '{ZONE}/disks/left' was not found"))
    cloud.delete_disk("us-central1-a", "left")
    for answer in (
        refusal(404, "notFound", "The resource 'projects/p' was not found"),
        refusal(400, "resourceInUseByAnotherResource", "The disk resource is already being used by 'x'"),
    ):
        server.answer(answer)
        with pytest.raises(CloudError):
            cloud.delete_disk("us-central1-a", "left")
