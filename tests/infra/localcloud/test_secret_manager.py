"""Proves that the local Secret Manager is used by gcloud as it is, keeps what it was told, and shows values only to
those that a secret's own policy names; and that an attempt reads its secrets there, or says in one line why it cannot.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import google.auth.credentials
import httpx
import pytest

from infra.localcloud.callers import Callers
from infra.localcloud.secret_manager.api import SecretManager
from infra.localcloud.secret_manager.store import Store
from infra.localcloud.server import serving
from job.errors import NeedsPerson, Transient
from job.run import secret_values
from job.run.secret_values import OVERRIDE, read_secrets

PROJECT = "my-project"
VM, OTHER = f"baton-vm@{PROJECT}.iam.gserviceaccount.com", f"baton-watchdog@{PROJECT}.iam.gserviceaccount.com"
TOKENS = {"vm": VM, "other": OTHER}
VALUE = "hf_MARKED"
VERSION = f"projects/{PROJECT}/secrets/baton-hf-token/versions/1"


class Nobody:
    """No VM asks; whoever has no token is the laptop's user."""

    def owns_peer(self, port: int) -> str | None:
        return None

    def is_cut(self, port: int) -> bool:
        return False


@contextmanager
def secret_manager(file: Path) -> Iterator[str]:
    server = SecretManager(Store(file), Callers(Nobody(), "laptop"), TOKENS.get, PROJECT)
    with serving(server.answer) as url:
        yield url


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with secret_manager(tmp_path / "secrets.json") as found:
        yield found


def made(url: str, *, readers: tuple[str, ...] = (VM,)) -> None:
    """A secret with one version."""
    secrets = f"{url}/v1/projects/{PROJECT}/secrets"
    name = f"{secrets}/baton-hf-token"
    asked: list[tuple[str, object]] = [
        (f"{secrets}?secretId=baton-hf-token", {"replication": {"automatic": {}}}),
        (f"{name}:addVersion", {"payload": {"data": "aGZfTUFSS0VE"}}),
    ]
    members = [f"serviceAccount:{reader}" for reader in readers]
    binding = {"role": "roles/secretmanager.secretAccessor", "members": members}
    asked.append((f"{name}:setIamPolicy", {"policy": {"bindings": [binding]}}))
    for where, body in asked:
        httpx.post(where, json=body, trust_env=False).raise_for_status()


def status(url: str, path: str, token: str = "", method: str = "GET") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(method, f"{url}/v1/{path}", headers=headers, trust_env=False).status_code


Gcloud = Callable[..., str]


@pytest.fixture
def gcloud(url: str, tmp_path: Path) -> Gcloud:
    def call(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["timeout", "-k", "5", "120", "gcloud", "secrets", *words, f"--project={PROJECT}"],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
                OVERRIDE: f"{url}/",
            },
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


@pytest.mark.needs_system("gcloud")
def test_gcloud_makes_a_secret_and_an_attempt_reads_it(
    url: str, gcloud: Gcloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcloud("create", "baton-hf-token", "--replication-policy=user-managed", "--locations=us-central1")
    gcloud("versions", "add", "baton-hf-token", "--data-file=-", stdin=VALUE)
    member = f"--member=serviceAccount:{VM}"
    gcloud("add-iam-policy-binding", "baton-hf-token", member, "--role=roles/secretmanager.secretAccessor")
    assert gcloud("versions", "access", "1", "--secret=baton-hf-token") == VALUE
    flags = ("--filter=state=ENABLED", "--sort-by=~createTime", "--limit=1", "--format=value(name)")
    assert gcloud("versions", "list", "baton-hf-token", *flags).rpartition("/")[2] == "1"
    as_account(monkeypatch, "vm")
    found = read_secrets({"HF_TOKEN": VERSION}, {OVERRIDE: f"{url}/"})
    assert found["HF_TOKEN"].get_secret_value() == VALUE
    assert VALUE not in repr(found)


def test_only_an_account_that_the_policy_names_accesses_a_version_and_does_nothing_else(url: str) -> None:
    made(url)
    assert status(url, f"{VERSION}:access", "vm") == 200
    assert status(url, f"{VERSION}:access", "other") == 403
    assert status(url, f"{VERSION}:access", "unknown") == 401
    assert status(url, f"projects/{PROJECT}/secrets/none/versions/1:access", "vm") == 403, (
        "nor does it learn what is there"
    )
    for path in (f"projects/{PROJECT}/secrets", f"projects/{PROJECT}/secrets/baton-hf-token", VERSION):
        assert status(url, path, "vm") == 403
    assert status(url, f"{VERSION}:destroy", "vm", "POST") == 403
    assert status(url, f"projects/{PROJECT}/secrets/baton-hf-token", "vm", "DELETE") == 403
    assert status(url, "projects/another/secrets") == 403


def test_what_is_kept_survives_and_is_its_owners_only(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    with secret_manager(file) as url:
        made(url)
    assert oct(file.stat().st_mode)[-3:] == "600"
    with secret_manager(file) as url:
        assert status(url, f"{VERSION}:access", "vm") == 200
        assert status(url, f"{VERSION}:disable", method="POST") == 200
        assert status(url, f"{VERSION}:access", "vm") == 400
        assert status(url, f"{VERSION}:destroy", method="POST") == 200
    assert "aGZfTUFSS0VE" not in file.read_text()


class Showing(google.auth.credentials.Credentials):
    """Credentials that have one token."""

    def __init__(self, token: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.token = token

    def refresh(self, request: object) -> None:
        """It stays as it is."""


def as_account(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setattr(secret_values, "_credentials", lambda at, env: Showing(token))


def test_what_the_environment_has_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    as_account(monkeypatch, "vm")
    assert read_secrets({"HF_TOKEN": VERSION}, {"HF_TOKEN": "own", OVERRIDE: "http://127.0.0.1:1"}) == {}


@pytest.mark.parametrize(
    ("token", "version", "said"),
    [
        ("other", VERSION, "gcloud secrets add-iam-policy-binding baton-hf-token --project=my-project"),
        ("unknown", VERSION, "may not read"),
        ("vm", VERSION.replace("/1", "/7"), "is not there, or was disabled"),
    ],
)
def test_a_refusal_is_one_line_and_what_to_do(
    url: str, monkeypatch: pytest.MonkeyPatch, token: str, version: str, said: str
) -> None:
    made(url)
    as_account(monkeypatch, token)
    with pytest.raises(NeedsPerson) as refused:
        read_secrets({"HF_TOKEN": version}, {OVERRIDE: url})
    assert said in str(refused.value)


def test_a_secret_manager_that_is_not_there_may_be_there_later(monkeypatch: pytest.MonkeyPatch) -> None:
    as_account(monkeypatch, "vm")
    with pytest.raises(Transient, match="HF_TOKEN could not be read"):
        read_secrets({"HF_TOKEN": VERSION}, {OVERRIDE: "http://127.0.0.1:1"})
