"""The real client of Compute Engine, against a server on loopback: what is asked, what answers mean, whose rights."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from google.auth.compute_engine import Credentials as MachineCredentials
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError

from infra.cloud.types import Advice, CloudError, OperationKind, TroubleKind, VmOrder, VmStatus
from infra.compute import NO_CREDENTIALS, OVERRIDE, ComputeEngine, endpoint, find_credentials
from infra.naming import request_id, run_labels, vm_name
from job.errors import UsageError
from tests.infra.compute_server import ComputeServer, compute_server

RUN = "gs://bucket/runs/sums"
NAME, LABELS = vm_name(RUN, 1), run_labels(RUN, 1)
ORDER = VmOrder(
    name=NAME,
    zone="us-central1-a",
    machine_type="g2-standard-4",
    spot=True,
    boot_image="project/family",
    boot_disk_gb=100,
    service_account="vm@p.iam.gserviceaccount.com",
    subnet="baton",
    request_id=request_id(RUN, 1, 0.0),
    labels=LABELS,
    notice_s=120,
    max_run_s=3600,
    attributes={"baton-run": RUN},
)
STARTED = "2026-11-21T03:00:00.000-08:00"
STARTED_S = 1795258800.0


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with compute_server() as known:
        yield known


@pytest.fixture
def cloud(server: ComputeServer) -> ComputeEngine:
    return ComputeEngine("p", {OVERRIDE: f"{server.url}/compute/v1/", NO_CREDENTIALS: "true"})


def an_operation(**more: Any) -> dict[str, Any]:
    said = {
        "kind": "compute#operation",
        "id": "77",
        "name": "operation-1",
        "operationType": "insert",
        "status": "RUNNING",
        "targetId": "4711",
        "targetLink": f"https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/instances/{NAME}",
        "user": "me@example.com",
        "insertTime": STARTED,
        "clientOperationId": ORDER.request_id,
    }
    return said | more


def an_instance(**more: Any) -> dict[str, Any]:
    said = {
        "id": "4711",
        "name": NAME,
        "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a",
        "machineType": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/machineTypes/g2-standard-4",
        "status": "RUNNING",
        "labels": LABELS,
        "scheduling": {"provisioningModel": "SPOT", "preemptible": True},
        "creationTimestamp": STARTED,
        "lastStartTimestamp": STARTED,
    }
    return said | more


def test_advice_is_asked_of_one_zone_and_read_as_the_service_says_it(
    server: ComputeServer, cloud: ComputeEngine
) -> None:
    scores = {"obtainability": 0.4, "estimatedUptime": "600s"}
    server.answer((200, {"recommendations": [{"scores": scores, "shards": [{"zone": "us-central1-a"}]}]}))
    assert cloud.advice("us-central1-a", "g2-standard-4") == Advice(0.4, 600.0)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/compute/v1/projects/p/regions/us-central1/advice/capacity")
    assert asked.body.pop("size") in (1, "1")
    assert asked.body == {
        "instanceProperties": {"scheduling": {"provisioningModel": "SPOT"}},
        "instanceFlexibilityPolicy": {"instanceSelections": {"one": {"machineTypes": ["g2-standard-4"]}}},
        "distributionPolicy": {"targetShape": "ANY_SINGLE_ZONE", "zones": [{"zone": "zones/us-central1-a"}]},
    }


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, None),
        ({"recommendations": []}, None),
        ({"recommendations": [{}]}, Advice(None, None)),
        ({"recommendations": [{"scores": {"obtainability": 7, "estimatedUptime": "soon"}}]}, Advice(1.0, None)),
    ],
)
def test_advice_that_is_absent_is_not_known(
    server: ComputeServer, cloud: ComputeEngine, said: dict[str, Any], meant: Advice | None
) -> None:
    server.answer((200, said))
    assert cloud.advice("us-central1-a", "g2-standard-4") == meant


def an_error(status: int, reason: str, message: str = "words") -> tuple[int, dict[str, Any]]:
    said = {"code": status, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}
    return status, {"error": said}


NO_VM = an_error(404, "notFound", f"The resource 'projects/p/zones/us-central1-a/instances/{NAME}' was not found")
TAKEN = an_error(409, "alreadyExists", f"The resource 'projects/p/zones/us-central1-a/instances/{NAME}' already exists")


def trouble_of(cloud: ComputeEngine, order: VmOrder = ORDER) -> TroubleKind:
    with pytest.raises(CloudError) as caught:
        cloud.insert(order)
    return caught.value.trouble.kind


def test_an_insert_names_its_request_and_waits_for_nothing(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer((200, an_operation()))
    operation = cloud.insert(ORDER)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/compute/v1/projects/p/zones/us-central1-a/instances")
    assert asked.query["requestId"] == ORDER.request_id
    assert asked.authorization is None
    assert operation.kind is OperationKind.INSERT
    assert not operation.done
    assert (operation.name, operation.instance_id, operation.request_id) == ("operation-1", "4711", ORDER.request_id)
    assert operation.at_s == STARTED_S


def test_a_vm_of_that_name_with_our_labels_is_adopted(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer(TAKEN, (200, an_instance()))
    operation = cloud.insert(ORDER)
    assert operation.done
    assert operation.trouble is None
    assert operation.instance_id == "4711"


def test_a_vm_of_that_name_with_other_labels_is_somebody_elses(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer(TAKEN, (200, an_instance(labels=LABELS | {"baton-attempt": "2"})))
    assert trouble_of(cloud) is TroubleKind.TAKEN


def test_a_vm_that_goes_away_between_two_replies_is_asked_for_later(
    server: ComputeServer, cloud: ComputeEngine
) -> None:
    server.answer(TAKEN, NO_VM)
    assert trouble_of(cloud) is TroubleKind.NOT_READY


def test_a_stockout_is_found_in_the_operation(server: ComputeServer, cloud: ComputeEngine) -> None:
    error = {"errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "message": "no capacity"}]}
    running = an_operation()
    server.answer((200, running), (200, an_operation(status="DONE", endTime=STARTED, error=error)))
    operation = cloud.wait("us-central1-a", "operation-1", timeout_s=30)
    assert len(server.asked) == 2, "the first wait came back before the operation was done, so it waited again"
    assert operation.done
    assert operation.trouble is not None
    assert operation.trouble.kind is TroubleKind.STOCKOUT


def test_a_wait_ends_when_its_time_is_over(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer((200, an_operation()))
    assert not cloud.wait("us-central1-a", "operation-1", timeout_s=0).done


def test_a_quota_in_an_operation_tells_its_details(server: ComputeServer, cloud: ComputeEngine) -> None:
    details = {
        "quotaInfo": {
            "metricName": "compute.googleapis.com/preemptible_nvidia_l4_gpus",
            "limit": 1,
            "dimensions": {"region": "us-central1"},
        }
    }
    error = {"errors": [{"code": "QUOTA_EXCEEDED", "message": "over", "errorDetails": [details]}]}
    server.answer((200, an_operation(status="DONE", error=error, httpErrorStatusCode=403)))
    trouble = cloud.wait("us-central1-a", "operation-1", timeout_s=5).trouble
    assert trouble is not None
    assert (trouble.kind, trouble.region, trouble.limit) == (TroubleKind.QUOTA, "us-central1", 1)
    assert trouble.metric == "PREEMPTIBLE_NVIDIA_L4_GPUS"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            an_error(403, "quotaExceeded", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally."),
            "quota everywhere",
        ),
        (an_error(403, "forbidden", "Required 'compute.instances.create' permission"), "forbidden"),
        (an_error(403, "rateLimitExceeded"), "rate limit"),
        (an_error(400, "invalid"), "invalid"),
        (an_error(503, "backendError"), "unavailable"),
        ((502, {"not": "an error"}), "unavailable"),
    ],
)
def test_a_refused_insert_says_why(
    server: ComputeServer, cloud: ComputeEngine, answer: tuple[int, Any], expected: str
) -> None:
    server.answer(answer)
    assert trouble_of(cloud) == expected
    assert len(server.asked) == 1, "it is not tried again here"


def test_a_list_is_one_request_for_all_zones_and_tells_which_did_not_answer(
    server: ComputeServer, cloud: ComputeEngine
) -> None:
    page = {
        "items": {
            "zones/us-central1-a": {"instances": [an_instance()]},
            "zones/us-east1-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}},
            "zones/us-west1-b": {"warning": {"code": "UNREACHABLE"}},
        },
        "unreachables": ["regions/europe-west4"],
        "nextPageToken": "more",
    }
    last = {"items": {"zones/us-east1-b": {"instances": [an_instance(name="other", status="STOPPING")]}}}
    server.answer((200, page), (200, last))
    found = cloud.list_vms({"baton": "run", "baton-run": LABELS["baton-run"]})
    assert server.asked[0].query["filter"] == f'(labels.baton = "run") AND (labels.baton-run = "{LABELS["baton-run"]}")'
    assert server.asked[1].query["pageToken"] == "more"
    assert found.unreachable == {"us-west1-b", "europe-west4"}
    assert [(vm.name, vm.status) for vm in found.vms] == [(NAME, VmStatus.RUNNING), ("other", VmStatus.STOPPING)]
    vm = found.vms[0]
    assert (vm.zone, vm.machine_type, vm.instance_id, vm.spot) == ("us-central1-a", "g2-standard-4", "4711", True)
    assert (vm.created_s, vm.started_s, vm.stopped_s) == (STARTED_S, STARTED_S, None)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("PENDING", VmStatus.STARTING),
        ("STAGING", VmStatus.STARTING),
        ("RUNNING", VmStatus.RUNNING),
        ("PENDING_STOP", VmStatus.STOPPING),
        ("DEPROVISIONING", VmStatus.STOPPING),
        ("TERMINATED", VmStatus.STOPPED),
        ("SOMETHING_NEW", VmStatus.STOPPING),
    ],
)
def test_states_of_a_vm(server: ComputeServer, cloud: ComputeEngine, said: str, status: VmStatus) -> None:
    server.answer((200, an_instance(status=said)))
    vm = cloud.get_vm("us-central1-a", NAME)
    assert vm is not None
    assert vm.status is status


def test_only_the_word_that_this_vm_is_not_there_means_gone(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer(NO_VM)
    assert cloud.get_vm("us-central1-a", NAME) is None
    server.answer(an_error(404, "notFound", "The resource 'projects/p' was not found"))
    with pytest.raises(CloudError):
        cloud.get_vm("us-central1-a", NAME)


def test_operations_of_a_vm_are_asked_for_by_its_number(server: ComputeServer, cloud: ComputeEngine) -> None:
    preempted = an_operation(
        name="systemevent-1",
        operationType="compute.instances.preempted",
        user="system",
        status="DONE",
        insertTime="2026-11-21T04:00:00.000-08:00",
    )
    server.answer((200, {"items": [preempted, an_operation(status="DONE")]}))
    found = cloud.operations("us-central1-a", NAME, "4711")
    assert server.asked[0].query["filter"] == "targetId = 4711"
    assert [one.kind for one in found] == [OperationKind.INSERT, OperationKind.PREEMPTED], "oldest first"
    assert [one.by_platform for one in found] == [False, True]


def test_without_a_number_operations_are_asked_for_by_name_and_others_left_out(
    server: ComputeServer, cloud: ComputeEngine
) -> None:
    other = an_operation(targetLink=f"https://x/projects/p/zones/us-central1-a/instances/{NAME}9")
    server.answer((200, {"items": [an_operation(), other]}))
    found = cloud.operations("us-central1-a", NAME)
    assert server.asked[0].query["filter"] == f'targetLink eq ".*/instances/{NAME}"'
    assert len(found) == 1


@pytest.mark.parametrize("answer", [(200, an_operation()), NO_VM, an_error(400, "resourceNotReady")])
def test_deleting_and_stopping_what_is_gone_or_going_is_no_error(
    server: ComputeServer, cloud: ComputeEngine, answer: tuple[int, Any]
) -> None:
    server.answer(answer)
    cloud.delete("us-central1-a", NAME)
    cloud.stop("us-central1-a", NAME)
    assert [asked.method for asked in server.asked] == ["DELETE", "POST"]
    assert server.asked[1].path.endswith(f"/instances/{NAME}/stop")


def test_a_refused_delete_is_an_error(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer(an_error(403, "forbidden"))
    with pytest.raises(CloudError):
        cloud.delete("us-central1-a", NAME)


def test_a_family_becomes_the_dated_image_behind_it(server: ComputeServer, cloud: ComputeEngine) -> None:
    server.answer((200, {"name": "common-v20261101"}))
    assert cloud.dated_image("images/common") == "projects/images/global/images/common-v20261101"
    assert server.asked[0].path == "/compute/v1/projects/images/global/images/family/common"
    assert cloud.dated_image("projects/images/global/images/common-v1") == "projects/images/global/images/common-v1"
    assert len(server.asked) == 1


def test_where_nobody_listens_the_refused_connection_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cloud = ComputeEngine("p", {OVERRIDE: f"http://127.0.0.1:{port}/compute/v1/", NO_CREDENTIALS: "true"})
    with pytest.raises(CloudError) as caught:
        cloud.list_vms({"baton": "run"})
    assert caught.value.trouble.kind is TroubleKind.UNAVAILABLE
    assert caught.value.trouble.code == "connection refused"


def test_without_credentials_the_trouble_is_credentials() -> None:
    cloud = ComputeEngine("p", {OVERRIDE: "http://127.0.0.1:9/compute/v1/"})
    with pytest.raises(CloudError) as caught:
        cloud.list_vms({"baton": "run"})
    assert caught.value.trouble.kind is TroubleKind.CREDENTIALS


def test_a_label_that_could_change_the_filter_is_refused(cloud: ComputeEngine) -> None:
    with pytest.raises(ValueError, match="cannot stand in a filter"):
        cloud.list_vms({"baton": 'run") OR (labels.x = "y'})


def test_anonymous_only_where_the_environment_says_so() -> None:
    here = "http://127.0.0.1:9020"
    assert isinstance(find_credentials(here, {NO_CREDENTIALS: "true"}), AnonymousCredentials)
    assert isinstance(find_credentials(here, {"GCE_METADATA_HOST": "127.0.0.1:9030"}), MachineCredentials)
    with pytest.raises(DefaultCredentialsError, match=NO_CREDENTIALS):
        find_credentials(here, {})


def test_where_the_service_is() -> None:
    assert endpoint("") == "https://compute.googleapis.com"
    assert endpoint("http://127.0.0.1:9020/compute/v1/") == "http://127.0.0.1:9020"
    for wrong in ("127.0.0.1:9020", "ftp://x/compute/v1/", "http://127.0.0.1:9020/compute/beta/"):
        with pytest.raises(UsageError, match="is not where Compute Engine v1 could be"):
            endpoint(wrong)
