"""Proves that what setup grants the watchdog is what its calls take, no more and no less; that it makes no VM with
other rights than an attempt's, touches none that is called otherwise; that an attempt's account has nothing of it.

Each call goes over the wire, from the real client, with the account's token. tests/story/test_secrets.py holds the same
of objects, by whole runs.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from compute_world import PROJECT, ZONE, Cloud

import infra.compute
from infra.cloud.types import Cloud as CloudProtocol
from infra.cloud.types import CloudError, TroubleKind, VmOrder
from infra.compute import NO_CREDENTIALS, OVERRIDE, ComputeEngine
from infra.localcloud.compute.rights import ACT_AS, acted_as, of_insert
from infra.setup.grants import COMPUTE, VM, WATCHDOG
from tests.infra.localcloud.test_secret_manager import Showing
from tests.infra.test_golden_requests import the_order

TOKENS = {"vm": f"{VM}@{PROJECT}.iam.gserviceaccount.com", "watchdog": f"{WATCHDOG}@{PROJECT}.iam.gserviceaccount.com"}


@pytest.fixture
def as_account(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ComputeEngine]:
    cloud.machines.tokens = dict(TOKENS)

    def client(token: str) -> ComputeEngine:
        monkeypatch.setattr(infra.compute, "find_credentials", lambda at, env: Showing(token))
        return ComputeEngine(PROJECT, {OVERRIDE: cloud.server.url})

    return client


def order(**changes: Any) -> VmOrder:
    """As the watchdog makes one."""
    return replace(the_order("l4"), zone=ZONE, service_account=TOKENS["vm"], **changes)


def test_every_call_of_a_watchdog_is_granted_and_nothing_else_is(
    cloud: Cloud, as_account: Callable[[str], ComputeEngine]
) -> None:
    client, wanted = as_account("watchdog"), order()
    done = {
        "insert": client.insert(wanted),
        "list_vms": client.list_vms(wanted.labels),
        "get_vm": client.get_vm(ZONE, wanted.name),
        "operations": client.operations(ZONE, wanted.name),
        "stop": client.stop(ZONE, wanted.name),
        "delete": client.delete(ZONE, wanted.name),
    }
    calls = {name for name, _ in inspect.getmembers(CloudProtocol, inspect.isfunction) if not name.startswith("_")}
    assert set(done) == calls, "all that a watchdog can ask of a cloud"
    used = set(cloud.server.service.rights.used()[TOKENS["watchdog"]])
    assert used == COMPUTE | {f"{ACT_AS} {VM}"}


@pytest.mark.parametrize("account", [TOKENS["watchdog"], "123-compute@developer.gserviceaccount.com", "owner@x.iam"])
def test_it_makes_no_vm_that_has_other_rights_than_an_attempts(
    as_account: Callable[[str], ComputeEngine], account: str
) -> None:
    with pytest.raises(CloudError, match=ACT_AS) as refused:
        as_account("watchdog").insert(replace(order(), service_account=account))
    assert refused.value.trouble.kind is TroubleKind.FORBIDDEN


def test_it_touches_no_vm_that_is_not_called_ours(cloud: Cloud, as_account: Callable[[str], ComputeEngine]) -> None:
    theirs = order(name="database-1")
    laptop = ComputeEngine(PROJECT, {OVERRIDE: cloud.server.url, NO_CREDENTIALS: "true"})
    laptop.insert(theirs)
    client = as_account("watchdog")
    acts: list[Callable[[], object]] = [
        lambda: client.insert(replace(theirs, name="database-2")),
        lambda: client.delete(ZONE, theirs.name),
        lambda: client.stop(ZONE, theirs.name),
        lambda: client.get_vm(ZONE, theirs.name),
    ]
    for act in acts:
        with pytest.raises(CloudError) as refused:
            act()
        assert refused.value.trouble.kind is TroubleKind.FORBIDDEN
    assert [vm.name for vm in client.list_vms(theirs.labels).vms] == ["database-1"], "names may be seen"


def test_an_attempts_account_has_none_of_it(as_account: Callable[[str], ComputeEngine]) -> None:
    client, wanted = as_account("vm"), order()
    acts: list[Callable[[], object]] = [
        lambda: client.insert(wanted),
        lambda: client.list_vms(wanted.labels),
        lambda: client.get_vm(ZONE, wanted.name),
        lambda: client.operations(ZONE, wanted.name),
        lambda: client.stop(ZONE, wanted.name),
        lambda: client.delete(ZONE, wanted.name),
    ]
    for act in acts:
        with pytest.raises(CloudError) as refused:
            act()
        assert refused.value.trouble.kind is TroubleKind.FORBIDDEN


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        ({}, {"compute.instances.create"}),
        ({"tags": {"items": ["x"]}}, {"compute.instances.create", "compute.instances.setTags"}),
        (
            {"networkInterfaces": [{"network": "global/networks/default", "accessConfigs": [{}]}]},
            {"compute.instances.create", "compute.networks.use", "compute.subnetworks.useExternalIp"},
        ),
        ({"disks": [{"source": "zones/z/disks/d"}]}, {"compute.instances.create", "compute.disks.use"}),
    ],
)
def test_what_an_insert_takes_goes_by_what_it_asks_for(body: dict[str, Any], needed: set[str]) -> None:
    assert of_insert(body) == needed
    assert acted_as({"serviceAccounts": [{"email": "a@p"}]}) == ["a@p"]
