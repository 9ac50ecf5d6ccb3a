"""Proves that lists leave out what the filter says and nothing else, page by page, and name zones that are silent."""

from typing import Any

import httpx
import pytest
from compute_world import PROJECT, ZONE, Cloud
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from infra.cloud.vm_request import advice_request
from infra.localcloud.compute.filters import compile_filter
from infra.localcloud.errors import Refusal

VM = {
    "name": "baton-mine-0a1b2c3d-a0003",
    "id": "7000782669636149773",
    "status": "RUNNING",
    "labels": {"baton": "run", "baton-attempt": "3"},
    "scheduling": {"preemptible": True},
    "creationTimestamp": "2026-11-21T06:00:00.000-08:00",
    "targetLink": "https://x/zones/z/instances/baton-mine",
}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", True),
        ("labels.baton=run", True),
        ('labels.baton = "run"', True),
        ("labels.baton=watchdog", False),
        ("labels.baton!=watchdog", True),
        ("labels.owner=x", False),
        ("labels.owner!=x", True),
        ("labels.baton:*", True),
        ("labels.owner:*", False),
        ("labels.baton-attempt=3 AND status=RUNNING", True),
        ("labels.baton-attempt=3 AND status=TERMINATED", False),
        ("(labels.baton = run) (status = RUNNING)", True),
        ("(labels.baton = run) (status = STOPPING)", False),
        ("status=TERMINATED OR status=RUNNING", True),
        ("(status=TERMINATED OR status=STOPPING) AND labels.baton=run", False),
        ("NOT status=TERMINATED", True),
        ("NOT (status=RUNNING)", False),
        ("id=7000782669636149773", True),
        ("id > 1", True),
        ("id < 1", False),
        ("scheduling.preemptible = true", True),
        ("scheduling.preemptible = false", False),
        ('creationTimestamp > "2026-11-21T13:59:59Z"', True),
        ('creationTimestamp > "2026-11-21T14:00:01Z"', False),
        ("name:mine", True),
        ("name:other", False),
        ('name eq "baton-.*"', True),
        ('name eq "baton"', False),
        ('name ne "baton-.*"', False),
        ('targetLink eq ".*/instances/baton-mine"', True),
        ("name='baton-mine-0a1b2c3d-a0003'", True),
    ],
)
def test_a_filter_means_what_the_api_says(text: str, meant: bool) -> None:
    assert compile_filter(text)(VM) is meant


@pytest.mark.parametrize("text", ["labels.baton", "= run", "(name=x", "name=x)", "name=x AND", 'name eq "("', "a=b=c"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="filter"):
        compile_filter(text)


def some_vms(cloud: Cloud) -> None:
    for number, zone in enumerate([ZONE, ZONE, "us-east1-b", "europe-west4-a"]):
        cloud.insert(f"vm-{number}", zone, labels={"number": str(number)})
    cloud.pass_time(60)


def everywhere(cloud: Cloud, **request: Any) -> dict[str, list[str]]:
    pages = cloud.instances.aggregated_list(request={"project": PROJECT, **request}, retry=None)
    return {zone: [vm.name for vm in scope.instances] for zone, scope in pages if scope.instances}


def test_one_list_has_the_vms_of_all_zones(cloud: Cloud) -> None:
    some_vms(cloud)
    assert everywhere(cloud) == {
        f"zones/{ZONE}": ["vm-0", "vm-1"],
        "zones/us-east1-b": ["vm-2"],
        "zones/europe-west4-a": ["vm-3"],
    }
    assert everywhere(cloud, filter="labels.number=2") == {"zones/us-east1-b": ["vm-2"]}
    empty = dict(cloud.instances.aggregated_list(project=PROJECT))["zones/us-west1-a"]
    assert empty.warning.code == "NO_RESULTS_ON_PAGE"


def test_pages_leave_nothing_out_and_repeat_nothing(cloud: Cloud) -> None:
    some_vms(cloud)
    pager = cloud.instances.aggregated_list(request={"project": PROJECT, "max_results": 1})
    pages = list(pager.pages)
    assert [vm.name for page in pages for scope in page.items.values() for vm in scope.instances] == [
        f"vm-{number}" for number in range(4)
    ]
    assert len(pages) == 4
    here = cloud.instances.list(request={"project": PROJECT, "zone": ZONE, "max_results": 1})
    assert [vm.name for vm in here] == ["vm-0", "vm-1"]


def test_a_zone_that_does_not_answer_is_named_or_fails_the_list(cloud: Cloud) -> None:
    some_vms(cloud)
    cloud.control("unreachable", zone="us-east1-b")
    url = f"{cloud.server.url}/compute/v1/projects/{PROJECT}/aggregated/instances"
    assert httpx.get(f"{url}?returnPartialSuccess=false").status_code == 503
    (page,) = cloud.instances.aggregated_list(project=PROJECT).pages
    assert list(page.unreachables) == ["zones/us-east1-b"]
    assert page.items["zones/us-east1-b"].warning.code == "UNREACHABLE"
    assert sorted(vm.name for scope in page.items.values() for vm in scope.instances) == ["vm-0", "vm-1", "vm-3"]
    with pytest.raises(exceptions.ServiceUnavailable):
        cloud.get("vm-2", "us-east1-b")
    assert cloud.get("vm-0").status == "RUNNING"
    cloud.control("unreachable", zone="us-east1-b", over=True)
    assert cloud.get("vm-2", "us-east1-b").status == "RUNNING"


def test_the_operations_of_a_vm_are_found_by_its_number_when_it_is_gone(cloud: Cloud) -> None:
    vm = cloud.running()
    cloud.running("vm-2")
    cloud.control("preempt", vm="vm-1", notice_s=0)
    cloud.pass_time(10)
    request = {"project": PROJECT, "zone": ZONE, "filter": f"targetId={vm.id}"}
    assert [each.operation_type for each in cloud.operations.list(request=request)] == [
        "insert",
        "compute.instances.preempted",
    ]
    newest = {"project": PROJECT, "zone": ZONE, "order_by": "creationTimestamp desc", "max_results": 1}
    assert next(iter(cloud.operations.list(request=newest))).operation_type == "compute.instances.preempted"


def test_the_catalogue_says_what_is_sold_where(cloud: Cloud) -> None:
    root = f"{cloud.server.url}/compute/v1/projects/{PROJECT}"
    sold = {item["name"] for item in httpx.get(f"{root}/zones/us-west3-b/machineTypes").json()["items"]}
    assert "a2-highgpu-1g" in sold
    assert "g2-standard-8" not in sold
    machine = httpx.get(f"{root}/zones/{ZONE}/machineTypes/a2-ultragpu-1g").json()
    assert machine["accelerators"] == [{"guestAcceleratorType": "nvidia-a100-80gb", "guestAcceleratorCount": 1}]
    gpus = httpx.get(f"{root}/aggregated/acceleratorTypes").json()["items"]
    assert {gpu["name"] for gpu in gpus["zones/us-east4-b"]["acceleratorTypes"]} >= {"nvidia-h200-141gb", "nvidia-b200"}
    assert httpx.get(f"{root}/zones/us-west3-b/machineTypes/g2-standard-8").status_code == 404
    image = httpx.get(f"{cloud.server.url}/compute/v1/projects/any/global/images/family/whatever").json()
    assert image["family"] == "whatever"
    assert image["name"].startswith("whatever-v")


def test_advice_tells_a_zone_that_is_sold_out_from_one_that_is_not(cloud: Cloud) -> None:
    client = compute_v1.AdviceClient(
        credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.server.url}
    )
    cloud.control("stockout", zone="us-central1-b", machine_type="g2-*")

    def scores(zone: str, machine_type: str = "g2-standard-4") -> list[tuple[float, str]]:
        asked = {"project": PROJECT, **advice_request(zone, machine_type)}
        found = client.capacity(request=asked).recommendations
        return [(one.scores.obtainability, one.scores.estimated_uptime) for one in found]

    assert scores("us-central1-a") == [(pytest.approx(0.9), "3600s")]
    assert scores("us-central1-b") == [(pytest.approx(0.1), "3600s")]
    assert scores("us-west3-b") == [], "no such machine is sold there"
    url = f"{cloud.server.url}/compute/v1/projects/{PROJECT}/regions/us-central1/advice/capacity"
    assert httpx.post(url, json={}).status_code == 400


def test_disks_are_listed_with_their_labels_as_long_as_their_vm_is_there(cloud: Cloud) -> None:
    url = f"{cloud.server.url}/compute/v1/projects/{PROJECT}/aggregated/disks?filter=labels.baton%3Drun"
    disk = {
        "boot": True,
        "auto_delete": True,
        "initialize_params": {"source_image": "any", "disk_size_gb": 50, "labels": {"baton": "run"}},
    }
    cloud.running(disks=[disk])
    (found,) = httpx.get(url).json()["items"][f"zones/{ZONE}"]["disks"]
    assert (found["name"], found["sizeGb"], found["labels"]) == ("vm-1", "50", {"baton": "run"})
    attached = httpx.delete(f"{cloud.server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/disks/vm-1")
    assert attached.json()["error"]["errors"][0]["reason"] == "resourceInUseByAnotherResource"
    cloud.instances.delete_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(10)
    assert "disks" not in httpx.get(url).json()["items"][f"zones/{ZONE}"]
    gone = httpx.delete(f"{cloud.server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/disks/vm-1")
    assert gone.status_code == 404
