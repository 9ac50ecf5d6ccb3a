"""Proves whose rights are used: those of the machine, renewed when a token is refused; never a person's own login for
whatever listens on a port. Rights that are missing are named, a token that cannot be renewed is waited for.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.auth.compute_engine import _metadata
from google.auth.credentials import AnonymousCredentials

from infra.localcloud.storage.process import BUCKET, StorageProcess, serve
from infra.localcloud.vm.guest import Guest
from infra.localcloud.vm.metadata import MetadataServer, serve_metadata
from job.errors import NeedsPerson, Transient
from job.storage.gcs import GcsBucket
from job.storage.gcs_session import find_credentials

EMAIL = "vm@project.iam.gserviceaccount.com"
RULES = [
    {"prefix": "runs/x/control/", "allow": ["get", "list"]},
    {"prefix": "runs/x/", "allow": ["get", "list", "create", "delete"]},
]


@dataclass
class Machine:
    """A VM, as far as its token goes: which it is given, if any."""

    token: str | None = "first"
    handed_out: list[str] = field(default_factory=list)

    def hand_out(self) -> str | None:
        if self.token is not None:
            self.handed_out.append(self.token)
        return self.token


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    guest = Guest("vm", "project", "us-central1-a", service_account=EMAIL)
    with serve_metadata(MetadataServer(guest, machine.hand_out)) as host:
        monkeypatch.setenv("GCE_METADATA_HOST", host)
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)  # the library has read it when it was imported
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        yield machine


class Policy:
    """The service's list of tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accept("first")

    def accept(self, *tokens: str) -> None:
        """Only these are known from now on."""
        fresh = self.path.with_suffix(".new")
        policy = {"tokens": {token: {"account": EMAIL} for token in tokens}, "accounts": {EMAIL: RULES}}
        fresh.write_text(json.dumps(policy))
        fresh.replace(self.path)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy(tmp_path / "policy.json")


@pytest.fixture
def cloud(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageProcess]:
    with serve("--policy", str(policy.path)) as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
        yield cloud


@pytest.fixture
def bucket(machine: Machine, cloud: StorageProcess) -> GcsBucket:
    return GcsBucket(f"gs://{BUCKET}/runs/x", write_interval_s=0)


def test_a_vm_asks_with_its_own_account_and_is_told_which_right_is_missing(bucket: GcsBucket) -> None:
    bucket.write("head.json", b"{}", if_generation=0)
    assert bucket.read("head.json")[0] == b"{}"
    with pytest.raises(NeedsPerson, match=r"permission denied: vm@project\S* does not have storage.objects.create"):
        bucket.write("control/claims.json", b"{}", if_generation=0)


def test_a_token_that_is_refused_is_renewed_in_every_kind_of_request(
    bucket: GcsBucket, machine: Machine, policy: Policy
) -> None:
    bucket.write("head.json", b"{}")
    requests = [
        lambda: bucket.write("head.json", b"{}"),
        lambda: bucket.read("head.json"),
        lambda: bucket.stat("head.json"),
        lambda: list(bucket.list("")),
        lambda: bucket.delete("head.json"),
    ]
    for number, request in enumerate(requests):
        machine.token = f"token-{number}"
        policy.accept(machine.token)
        request()
    assert machine.handed_out == ["first", *(f"token-{number}" for number in range(len(requests)))]


def test_a_token_that_cannot_be_renewed_is_waited_for(bucket: GcsBucket, machine: Machine, policy: Policy) -> None:
    bucket.write("head.json", b"{}")
    machine.token = None
    policy.accept("second")
    with pytest.raises(Transient, match=r"no token|cannot be used"):
        bucket.write("head.json", b"{}")
    machine.token = "second"
    bucket.write("head.json", b"{}")


def test_a_persons_own_login_is_not_shown_to_an_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    (tmp_path / "application_default_credentials.json").write_text(json.dumps(login))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(find_credentials(emulator=True), AnonymousCredentials)
    assert find_credentials(emulator=False).refresh_token == "x"
