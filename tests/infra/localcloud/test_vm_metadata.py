"""Proves that a local VM's metadata server answers as Compute Engine's: google-auth, curl and the agent ask it."""

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.auth.compute_engine import Credentials, _metadata
from google.auth.transport.requests import Request

from infra.localcloud.vm.guest import Guest
from infra.localcloud.vm.metadata import MetadataServer, serve_metadata

EMAIL = "baton-run@project.iam.gserviceaccount.com"
GUEST = Guest(
    "vm-1",
    "project",
    "us-central1-a",
    "g2-standard-8",
    4711,
    attributes={"baton-role": "attempt", "my_key": "value"},
    scheduling={"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE", "automaticRestart": False},
    service_account=EMAIL,
)


@dataclass
class Answer:
    status: int
    text: str
    headers: dict[str, str]


@dataclass
class Vm:
    host: str
    server: MetadataServer

    def ask(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        try:
            known = {"Metadata-Flavor": "Google"} if headers is None else headers
            connection.request("GET", f"/computeMetadata/v1/{path}", headers=known)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))
        finally:
            connection.close()


@pytest.fixture
def vm() -> Iterator[Vm]:
    server = MetadataServer(Guest(**vars(GUEST)), lambda: "a-token", scale=100.0)
    with serve_metadata(server, "127.77.200.1") as host:
        yield Vm(host, server)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("project/project-id", "project"),
        ("instance/id", "4711"),
        ("instance/name", "vm-1"),
        ("instance/hostname", "vm-1.us-central1-a.c.project.internal"),
        ("instance/preempted", "FALSE"),
        ("instance/maintenance-event", "NONE"),
        ("instance/scheduling/preemptible", "TRUE"),
        ("instance/scheduling/on-host-maintenance", "TERMINATE"),
        ("instance/attributes/", "baton-role\nmy_key\n"),
        ("instance/attributes/my_key", "value"),
        ("instance/service-accounts/", f"default/\n{EMAIL}/\n"),
        ("instance/service-accounts/default/email", EMAIL),
        ("instance/service-accounts/default/scopes", "https://www.googleapis.com/auth/cloud-platform\n"),
        ("universe/universe-domain", "googleapis.com"),
    ],
)
def test_what_a_vm_asks_about_itself_is_told(vm: Vm, path: str, text: str) -> None:
    answer = vm.ask(path)
    assert (answer.status, answer.text) == (200, text)
    assert answer.headers["Metadata-Flavor"] == "Google"


def test_the_zone_and_the_machine_type_name_the_project_by_its_number(vm: Vm) -> None:
    number = vm.ask("project/numeric-project-id").text
    assert vm.ask("instance/zone").text == f"projects/{number}/zones/us-central1-a"
    assert vm.ask("instance/machine-type").text == f"projects/{number}/machineTypes/g2-standard-8"


def test_a_folder_is_json_when_it_is_asked_for_with_all_below(vm: Vm) -> None:
    answer = vm.ask("instance/?recursive=true")
    assert answer.headers["Content-Type"] == "application/json"
    told: dict[str, Any] = json.loads(answer.text)
    assert told["machineType"].endswith("g2-standard-8")
    assert told["attributes"] == {"baton-role": "attempt", "my_key": "value"}, "names that people chose stay"
    assert told["serviceAccounts"]["default"]["aliases"] == ["default"]
    assert json.loads(vm.ask("instance/preempted?alt=json").text) == "FALSE"


@pytest.mark.parametrize("headers", [{}, {"Metadata-Flavor": "Google", "X-Forwarded-For": "10.0.0.1"}])
def test_nothing_is_told_without_the_header_or_through_a_proxy(vm: Vm, headers: dict[str, str]) -> None:
    assert vm.ask("instance/service-accounts/default/token", headers).status == 403


@pytest.mark.parametrize(
    "path", ["instance/nothing", "instance/attributes/nothing", "instance/service-accounts/x/token"]
)
def test_what_there_is_not_is_404(vm: Vm, path: str) -> None:
    assert vm.ask(path).status == 404


def test_a_vm_without_an_account_has_no_token() -> None:
    with serve_metadata(MetadataServer(Guest("vm", "project", "us-central1-a"), lambda: "a-token")) as host:
        vm = Vm(host, MetadataServer(GUEST, lambda: None))
        assert vm.ask("instance/service-accounts/default/token").status == 404
        assert vm.ask("instance/service-accounts/").text == ""


def test_google_auth_gets_its_token(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", vm.host)
    monkeypatch.setattr(_metadata, "_METADATA_IP_ROOT", f"http://{vm.host}", raising=False)
    credentials = Credentials()
    credentials.refresh(Request())
    assert (credentials.token, credentials.service_account_email) == ("a-token", EMAIL)
    assert _metadata.get_project_id(Request()) == "project"
    assert _metadata.get_universe_domain(Request()) == "googleapis.com"


def test_a_change_is_heard_by_whoever_waits_and_by_whoever_comes_too_late(vm: Vm) -> None:
    first = vm.ask("instance/preempted?wait_for_change=true&last_etag=0")
    assert first.text == "FALSE", "another etag than the last one: an answer at once"
    heard: list[str] = []
    path = f"instance/preempted?wait_for_change=true&last_etag={first.headers['ETag']}"
    waiting = [threading.Thread(target=lambda path=path: heard.append(vm.ask(path).text)) for path in (path, path)]
    for thread in waiting:
        thread.start()
    vm.server.announce_preemption()
    for thread in waiting:
        thread.join()
    assert heard == ["TRUE", "TRUE"]
    assert vm.ask(path).text == "TRUE"


def test_waiting_ends_after_the_time_that_was_asked_for_by_the_clouds_clock(vm: Vm) -> None:
    assert vm.ask("instance/preempted?wait_for_change=true&timeout_sec=10").text == "FALSE"


def test_a_vm_without_network_hears_nothing_and_later_all(vm: Vm) -> None:
    outcome: list[str] = []

    def wait() -> None:
        try:
            vm.ask("instance/preempted?wait_for_change=true")
        except http.client.RemoteDisconnected:
            outcome.append("cut")

    waiting = threading.Thread(target=wait)
    waiting.start()
    vm.server.cut(True)
    waiting.join()
    assert outcome == ["cut"]
    vm.server.announce_preemption()
    with pytest.raises(http.client.RemoteDisconnected):
        vm.ask("instance/preempted")
    vm.server.cut(False)
    assert vm.ask("instance/preempted").text == "TRUE"


def test_the_end_of_the_server_ends_all_waiting() -> None:
    server = MetadataServer(Guest("vm", "project", "us-central1-a"), lambda: None)
    with serve_metadata(server) as host:
        thread = threading.Thread(target=_ask_quietly, args=(Vm(host, server),))
        thread.start()
    thread.join()


def _ask_quietly(vm: Vm) -> None:
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        vm.ask("instance/preempted?wait_for_change=true")
