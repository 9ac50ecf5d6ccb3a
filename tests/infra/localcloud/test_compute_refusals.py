"""Proves that refusals come where and as Compute Engine's do: in answers and inside operations, by code and reason."""

from typing import Any

import httpx
import pytest
from compute_world import PROJECT, ZONE, Cloud, order
from google.api_core import exceptions
from google.cloud import compute_v1

STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
L4 = "PREEMPTIBLE_NVIDIA_L4_GPUS"


def failed(cloud: Cloud, asked: Any, zone: str = ZONE) -> Any:
    """The operation once it has failed."""
    cloud.pass_time(60)
    found = cloud.operation(asked.name, zone)
    assert found.status == compute_v1.Operation.Status.DONE
    assert found.error.errors
    return found


def reason(refused: pytest.ExceptionInfo[Any]) -> str:
    return str(refused.value.errors[0]["reason"])


def test_a_stockout_is_told_inside_the_operation_and_leaves_no_vm(cloud: Cloud) -> None:
    cloud.control("stockout", zone=ZONE)
    asked = cloud.insert()
    assert not asked.error.errors
    assert cloud.names() == ["vm-1"]  # for a moment it seems to come
    over = failed(cloud, asked)
    (error,) = over.error.errors
    assert error.code == STOCKOUT
    assert "does not have enough resources available to fulfill the request" in error.message
    assert over.http_error_status_code == 503
    info = next(detail.error_info for detail in error.error_details if detail.error_info.reason)
    assert dict(info.metadatas)["attachment"] == "nvidia-l4:1"
    assert cloud.names() == []
    assert cloud.machines.calls == []


def test_the_newest_word_on_a_zones_capacity_counts(cloud: Cloud) -> None:
    cloud.control("stockout", zone="*")
    cloud.control("stockout", zone="us-east1-c", over=True)
    cloud.insert("vm-1", "us-central1-b")
    cloud.insert("vm-2", "us-east1-c")
    cloud.pass_time(60)
    assert cloud.names() == ["vm-2"]
    cloud.control("clear")
    assert cloud.running("vm-3").status == "RUNNING"


def test_a_stockout_of_some_machines_leaves_the_others(cloud: Cloud) -> None:
    cloud.control("stockout", zone=ZONE, machine_type="g2-*")
    cloud.insert("vm-1")
    cloud.insert("vm-2", machine_type="a2-highgpu-1g")
    cloud.pass_time(60)
    assert cloud.names() == ["vm-2"]


def test_a_start_without_capacity_leaves_the_vm_off(cloud: Cloud) -> None:
    cloud.running(scheduling={"instance_termination_action": "STOP"})
    cloud.control("preempt", vm="vm-1", notice_s=0)
    cloud.pass_time(5)
    cloud.control("stockout", zone=ZONE)
    asked = cloud.instances.start_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    assert failed(cloud, asked).error.errors[0].code == STOCKOUT
    assert cloud.get().status == "TERMINATED"


def test_a_quota_is_told_inside_the_operation_or_at_once_as_asked(cloud: Cloud) -> None:
    cloud.control("quota", metric=L4, limit=1)
    cloud.running("vm-1")
    over = failed(cloud, cloud.insert("vm-2"))
    assert over.error.errors[0].code == "QUOTA_EXCEEDED"
    assert over.error.errors[0].message == f"Quota '{L4}' exceeded.  Limit: 1.0 in region us-central1."
    assert over.http_error_status_code == 403
    details = over.error.errors[0].error_details[0].quota_info
    assert (details.limit, dict(details.dimensions)) == (1.0, {"region": "us-central1"})
    assert cloud.names() == ["vm-1"]
    cloud.control("quota", metric=L4, limit=1, where="http")
    with pytest.raises(exceptions.Forbidden) as refused:
        cloud.insert("vm-3")
    assert reason(refused) == "quotaExceeded"
    assert cloud.names() == ["vm-1"]
    cloud.running("vm-4", zone="us-east1-b")  # another region has its own


def test_the_projects_quota_holds_everywhere_and_says_so(cloud: Cloud) -> None:
    cloud.control("quota", metric="GPUS_ALL_REGIONS", limit=1)
    cloud.running("vm-1")
    over = failed(cloud, cloud.insert("vm-2", "us-east1-b"), "us-east1-b")
    assert over.error.errors[0].message == "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally."
    cloud.running("vm-3", machine_type="e2-micro")  # takes no GPU


def test_quotas_are_shown_with_what_is_used_and_freed_when_a_vm_stops(cloud: Cloud) -> None:
    def shown(metric: str) -> tuple[float, float]:
        region = httpx.get(f"{cloud.server.url}/compute/v1/projects/{PROJECT}/regions/us-central1").json()
        return next((each["usage"], each["limit"]) for each in region["quotas"] if each["metric"] == metric)

    cloud.control("quota", metric="NVIDIA_L4_GPUS", limit=5, region="us-central1")
    cloud.running("vm-1")
    cloud.running("vm-2", spot=False, machine_type="g2-standard-24", scheduling={"automatic_restart": True})
    assert shown(L4) == (1.0, 128.0)
    assert shown("NVIDIA_L4_GPUS") == (2.0, 5.0)
    assert shown("SSD_TOTAL_GB")[0] == 200.0
    cloud.machines.power_off("vm-2")
    assert shown("NVIDIA_L4_GPUS")[0] == 0.0
    assert shown("SSD_TOTAL_GB")[0] == 200.0  # its disk is still there


def test_the_same_request_id_is_the_same_operation_even_when_it_failed(cloud: Cloud) -> None:
    id = "6f6ab8a5-0f5c-4d6f-8f0a-3a2f4f1f4f10"
    first = cloud.insert(request_id=id)
    again = cloud.insert(request_id=id)
    assert (again.name, again.client_operation_id) == (first.name, id)
    assert cloud.names() == ["vm-1"]
    cloud.pass_time(60)
    assert cloud.insert(request_id=id).status == compute_v1.Operation.Status.DONE
    cloud.control("stockout", zone=ZONE)
    other = "6f6ab8a5-0f5c-4d6f-8f0a-3a2f4f1f4f11"
    failed(cloud, cloud.insert("vm-2", request_id=other))
    cloud.control("clear")
    assert cloud.insert("vm-2", request_id=other).error.errors[0].code == STOCKOUT


def test_a_name_in_use_is_409_whatever_the_state_of_the_vm(cloud: Cloud) -> None:
    cloud.insert()
    for seconds in (0, 20, 60):
        cloud.pass_time(seconds)
        with pytest.raises(exceptions.Conflict) as refused:
            cloud.insert(request_id="6f6ab8a5-0f5c-4d6f-8f0a-3a2f4f1f4f12")
        assert reason(refused) == "alreadyExists"
    with pytest.raises(exceptions.MethodNotImplemented):
        cloud.insert(zone="us-east1-b")  # said to be missing, instead of a second machine under one name


def test_what_is_not_there_is_404(cloud: Cloud) -> None:
    with pytest.raises(exceptions.NotFound) as refused:
        cloud.get()
    assert reason(refused) == "notFound"
    assert f"projects/{PROJECT}/zones/{ZONE}/instances/vm-1" in str(refused.value)
    for what in (cloud.instances.delete_unary, cloud.instances.start_unary, cloud.instances.stop_unary):
        with pytest.raises(exceptions.NotFound):
            what(project=PROJECT, zone=ZONE, instance="vm-1")
    with pytest.raises(exceptions.NotFound):
        cloud.get(zone="us-central1-z")
    with pytest.raises(exceptions.NotFound):
        cloud.operation("operation-1")


SPOT = {"provisioning_model": "SPOT", "on_host_maintenance": "TERMINATE", "automatic_restart": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Vm_1"}, "resource.name"),
        ({"name": "a" * 64}, "resource.name"),
        ({"machine_type": f"zones/{ZONE}/machineTypes/g9-standard-1"}, "does not exist in zone"),
        ({"machine_type": f"zones/{ZONE}/machineTypes/g4-standard-48"}, "does not exist in zone"),
        ({"machine_type": "zones/us-east1-b/machineTypes/g2-standard-8"}, f"zones/{ZONE}/machineTypes"),
        ({"labels": {"Baton": "run"}}, "resource.labels"),
        ({"labels": {"baton": "gs://bucket"}}, "resource.labels"),
        ({"disks": []}, "disk"),
        ({"disks": [{"boot": True, "auto_delete": True}]}, "No image"),
        ({"network_interfaces": []}, "network interface"),
        ({"metadata": {"items": [{"key": "k", "value": "v" * 300_000}]}}, "256 KiB"),
        ({"metadata": {"items": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]}}, "duplicate"),
        ({"scheduling": SPOT | {"automatic_restart": True}}, "restart automatically"),
        ({"scheduling": SPOT | {"on_host_maintenance": "MIGRATE"}}, "live migration"),
        ({"scheduling": SPOT | {"preemption_notice_duration": {"seconds": 60}}}, "preemptionNoticeDuration"),
        ({"scheduling": SPOT | {"max_run_duration": {"seconds": 600}}}, "instanceTerminationAction"),
        (
            {"scheduling": SPOT | {"max_run_duration": {"seconds": 5}, "instance_termination_action": "DELETE"}},
            "maxRunDuration",
        ),
        (
            {"scheduling": {"on_host_maintenance": "TERMINATE", "instance_termination_action": "DELETE"}},
            "Only for Spot VMs",
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_400_and_makes_nothing(
    cloud: Cloud, changes: dict[str, Any], words: str
) -> None:
    resource = order("vm-1")
    for key, value in changes.items():
        setattr(resource, key, value)
    with pytest.raises(exceptions.BadRequest, match=words) as refused:
        cloud.instances.insert_unary(project=PROJECT, zone=ZONE, instance_resource=resource)
    assert reason(refused) == "invalid"
    assert cloud.names() == []
    assert cloud.server.service.world.operations() == []


def test_while_the_api_is_down_vms_live_on_and_time_ends_it(cloud: Cloud) -> None:
    cloud.running()
    cloud.control("api-down", seconds=300)
    for ask in (cloud.get, cloud.insert):
        with pytest.raises(exceptions.ServiceUnavailable):
            ask()
    assert cloud.machines.is_running("vm-1")
    cloud.machines.power_off("vm-1")
    cloud.control("api-down", seconds=0)
    assert cloud.get().status == "TERMINATED"


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("403", exceptions.Forbidden, "forbidden"),
        ("429", exceptions.TooManyRequests, "rateLimitExceeded"),
        ("rate_limit", exceptions.Forbidden, "rateLimitExceeded"),
        ("quota", exceptions.Forbidden, "quotaExceeded"),
        ("500", exceptions.InternalServerError, "backendError"),
        ("503", exceptions.ServiceUnavailable, "backendError"),
    ],
)
def test_single_answers_go_wrong_on_demand(cloud: Cloud, kind: str, error: type[Exception], said: str) -> None:
    cloud.control("fault", kind=kind, call="insert", count=1)
    with pytest.raises(error) as refused:
        cloud.insert()
    assert reason(refused) == said
    assert cloud.names() == []
    cloud.insert()
    assert cloud.names() == ["vm-1"]


def test_credentials_run_out_on_demand_for_so_many_requests(cloud: Cloud) -> None:
    url = f"{cloud.server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances"
    cloud.control("fault", kind="401", count=2, skip=1)
    assert [httpx.get(url).status_code for _ in range(4)] == [200, 401, 401, 200]


def test_a_lost_reply_is_of_something_that_was_done(cloud: Cloud) -> None:
    cloud.control("fault", kind="lost_reply", call="insert")
    with pytest.raises(Exception, match="onnection aborted"):
        cloud.insert(request_id="6f6ab8a5-0f5c-4d6f-8f0a-3a2f4f1f4f13")
    assert cloud.names() == ["vm-1"]
    assert cloud.insert(request_id="6f6ab8a5-0f5c-4d6f-8f0a-3a2f4f1f4f13").operation_type == "insert"


@pytest.mark.parametrize("code", ["UNSUPPORTED_OPERATION", "RESOURCE_OPERATION_RATE_EXCEEDED", "RESOURCE_NOT_READY"])
def test_operations_fail_with_any_code_on_demand(cloud: Cloud, code: str) -> None:
    cloud.control("fault", kind=code, zone="us-central1-*")
    assert failed(cloud, cloud.insert()).error.errors[0].code == code
    assert cloud.names() == []


def test_orders_that_make_no_sense_are_refused_and_say_what_does(cloud: Cloud) -> None:
    cloud.running()
    cloud.running("standard", spot=False, machine_type="e2-micro", scheduling={"automatic_restart": True})
    url = f"{cloud.server.url}/_control"
    for bad, words in (
        ({"do": "explode"}, "do is one of"),
        ({"do": "preempt", "vm": "vm-9"}, "there are: standard, vm-1"),
        ({"do": "preempt", "vm": "vm-1", "notice_s": 60}, "notice_s is one of"),
        ({"do": "preempt", "vm": "standard"}, "no spot VM"),
        ({"do": "quota", "metric": "GPUS"}, "not one of"),
        ({"do": "fault", "kind": "whatever"}, "not one of"),
        ({"do": "stockout"}, "zone"),
    ):
        reply = httpx.post(url, json=bad)
        assert reply.status_code in (400, 404), bad
        assert words in reply.json()["error"]["message"]


def test_what_nobody_implemented_says_so(cloud: Cloud) -> None:
    for path in ("global/networks", f"zones/{ZONE}/instances/vm-1/setLabels", "global/snapshots"):
        reply = httpx.post(f"{cloud.server.url}/compute/v1/projects/{PROJECT}/{path}", json={})
        assert (reply.status_code, reply.json()["error"]["errors"][0]["reason"]) == (501, "notImplemented")
    assert cloud.server.dispatch.asked()["unknown"] == 3
