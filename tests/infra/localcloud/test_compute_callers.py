"""Proves who may ask what: the laptop's user everything, a VM what its account may, pages and other users nothing."""

import http.client
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from compute_world import PROJECT, ZONE, Cloud, FakeMachines

from infra.localcloud.callers import LAPTOP, Callers
from infra.localcloud.peers import peer_uid
from infra.localcloud.storage import start

LIST = f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances"


def asked(cloud: Cloud, token: str = "", path: str = LIST, **headers: str) -> httpx.Response:
    given = headers | ({"Authorization": f"Bearer {token}"} if token else {})
    return httpx.get(cloud.server.url + path, headers=given)


def test_an_anonymous_caller_outside_a_vm_is_the_laptops_user_and_one_inside_is_nobody(cloud: Cloud) -> None:
    assert asked(cloud).status_code == 200
    assert cloud.insert().user == LAPTOP
    cloud.machines.every_peer = "vm-1"
    refused = asked(cloud)
    assert (refused.status_code, refused.json()["error"]["errors"][0]["reason"]) == (401, "required")
    assert asked(cloud, "laptop").status_code == 200  # whoever holds it; VMs cannot get it:


def test_a_vm_gets_no_token_of_the_laptops_and_makes_no_trouble(cloud: Cloud) -> None:
    token = "/computeMetadata/v1/instance/service-accounts/default/token"
    flavor = {"Metadata-Flavor": "Google"}
    assert asked(cloud, path=token, **flavor).json()["access_token"] == "laptop"
    assert asked(cloud, path=token).status_code == 403
    cloud.machines.every_peer = "vm-1"
    assert asked(cloud, path=token, **flavor).status_code == 403
    assert asked(cloud, path="/_control").status_code == 403
    assert httpx.post(f"{cloud.server.url}/_control", json={"do": "shutdown"}).status_code == 403


def test_the_account_of_attempts_has_no_right_on_vms_and_that_of_watchdogs_has(cloud: Cloud) -> None:
    cloud.machines.every_peer = "vm-1"
    cloud.machines.tokens = {"a": "baton-vm@p.iam.gserviceaccount.com", "w": "baton-watchdog@p.iam.gserviceaccount.com"}
    refused = asked(cloud, "a")
    assert refused.status_code == 403
    assert "Required 'compute.instances.list' permission" in refused.json()["error"]["message"]
    assert asked(cloud, "w").status_code == 200
    assert asked(cloud, "x").status_code == 401


def test_another_project_is_forbidden(cloud: Cloud) -> None:
    assert asked(cloud, path=f"/compute/v1/projects/other/zones/{ZONE}/instances").status_code == 403


def test_a_vm_without_network_hears_nothing(cloud: Cloud) -> None:
    class Everybody(set[int]):
        def __contains__(self, port: object) -> bool:
            return True

    cloud.machines.cut_ports = Everybody()
    with pytest.raises(httpx.RemoteProtocolError):
        asked(cloud)


def test_web_pages_are_refused(cloud: Cloud) -> None:
    port = cloud.server.url.rpartition(":")[2]
    assert asked(cloud, Host=f"localhost:{port}").status_code == 200
    for strange in ({"Host": f"evil.example:{port}"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert asked(cloud, **strange).status_code == 403
        assert httpx.post(f"{cloud.server.url}/_control", json={"do": "clear"}, headers=strange).status_code == 403


ASK = (
    "import sys,urllib.request as u\ntry: print(u.urlopen(sys.argv[1]).status)\nexcept u.HTTPError as e: print(e.code)"
)


@pytest.mark.needs_system("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
def test_other_users_of_this_machine_are_refused(cloud: Cloud) -> None:
    def as_user(uid: str, *more: str) -> str:
        # Python of the system: somebody else may not read ours.
        command = ["setpriv", "--reuid", uid, *more, "/usr/bin/python3", "-c", ASK, cloud.server.url + LIST]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()

    assert as_user("0") == "200"
    assert as_user("65534", "--clear-groups") == "403"


@pytest.mark.needs_system("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
def test_a_containers_user_is_answered_where_it_is_named_and_nobody_else() -> None:
    def as_user(uid: str, url: str) -> str:
        command = ["setpriv", "--reuid", uid, "--clear-groups", "/usr/bin/python3", "-c", ASK, url]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()

    with start(also_user=65533) as server:
        server.make_bucket("b-1")
        assert as_user("65533", f"{server.url}/storage/v1/b/b-1") == "200"
        assert as_user("65534", f"{server.url}/storage/v1/b/b-1") == "403"


def test_the_kernel_says_whose_a_connection_is_and_nobodys_when_it_is_closed(cloud: Cloud) -> None:
    server = ("127.0.0.1", int(cloud.server.url.rpartition(":")[2]))
    connection = http.client.HTTPConnection(*server)
    connection.connect()
    client = connection.sock.getsockname()
    assert peer_uid(client, server) == os.geteuid()
    connection.close()
    assert peer_uid(client, server) is None
    assert peer_uid(("127.0.0.1", 1), server) is None


def test_googles_own_libraries_find_the_laptops_credentials_and_both_servers_take_them(
    cloud: Cloud, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"tokens": {}, "accounts": {}}')
    with start(policy=policy, callers=Callers(FakeMachines(), "laptop")) as store:
        store.make_bucket("mine")
        code = f"""
import google.auth
from google.auth.compute_engine import Credentials
from google.cloud import compute_v1, storage
credentials, project = google.auth.default()
assert isinstance(credentials, Credentials), credentials
assert project == {PROJECT!r}, project
options = {{"api_endpoint": {cloud.server.url!r}}}
print(list(compute_v1.InstancesClient(client_options=options).list(project=project, zone={ZONE!r})))
options = {{"api_endpoint": {store.url!r}}}
print([b.name for b in storage.Client(credentials=credentials, project=project, client_options=options).list_buckets()])
"""
        metadata = cloud.server.url.removeprefix("http://")
        environment = {"GCE_METADATA_HOST": metadata, "GCE_METADATA_IP": metadata, "HOME": str(tmp_path)}
        found = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
        )
        assert found.stdout.split() == ["[]", "['mine']"], found.stderr
        assert {entry["account"] for entry in store.accounting.last()} == {LAPTOP}


def test_in_cloud_storage_too_a_vm_without_a_token_is_nobody(tmp_path: Path) -> None:
    machines = FakeMachines()
    policy = tmp_path / "policy.json"
    policy.write_text('{"tokens": {"t": {"account": "vm"}}, "accounts": {"vm": [{"prefix": "", "allow": ["list"]}]}}')
    with start(policy=policy, callers=Callers(machines, "laptop")) as store:
        store.make_bucket("mine")
        url = f"{store.url}/storage/v1/b/mine/o"
        assert httpx.get(url).status_code == 200
        machines.every_peer = "vm-1"
        assert httpx.get(url).status_code == 401
        assert httpx.get(f"{store.url}/mine/x").status_code == 401
        assert httpx.get(url, headers={"Authorization": "Bearer t"}).status_code == 200
        assert httpx.get(f"{url}/x", headers={"Authorization": "Bearer t"}).status_code == 403
        assert httpx.get(f"{store.url}/_faults").status_code == 403
        assert httpx.delete(f"{store.url}/_faults").status_code == 403
