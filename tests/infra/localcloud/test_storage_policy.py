"""Tokens are accounts, and an account may do what its rules say: no more, whatever way it tries."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.api_core.exceptions import Forbidden, NotFound, Unauthorized
from google.cloud.storage import Bucket, transfer_manager
from google.oauth2.credentials import Credentials
from storage_client import client_of, clock_at

from infra.localcloud.storage import StorageServer, start
from infra.localcloud.storage.policy import parse_policy

CONTROL = "runs/a/control/claims.json"
POLICY: dict[str, Any] = {
    "tokens": {
        "vm-token": {"account": "vm@test", "expires_s": 2_000},
        "watchdog-token": {"account": "watchdog@test"},
        "free-token": {"account": "free@test"},
        "creator-token": {"account": "creator@test"},
    },
    "accounts": {
        "vm@test": [
            {"prefix": "runs/*/control/", "allow": ["get", "list"]},
            {"prefix": "runs/a/", "bucket": "bucket", "allow": ["get", "list", "create", "delete", "update"]},
        ],
        "watchdog@test": [
            {"prefix": "runs/*/control/", "allow": ["get", "list", "create", "delete"]},
            {"prefix": "runs/", "allow": ["get", "list"]},
        ],
        "creator@test": [{"prefix": "", "allow": ["create"]}],
    },
}


@dataclass
class Guarded:
    """A server with the policy, at the time 1000."""

    server: StorageServer
    policy: Path

    def bucket_of(self, token: str) -> Bucket:
        return client_of(self.server, Credentials(token)).bucket("bucket")

    def write_policy(self, policy: dict[str, Any]) -> None:
        fresh = self.policy.with_suffix(".new")
        fresh.write_text(json.dumps(policy))
        os.utime(fresh, ns=(0, self.policy.stat().st_mtime_ns + 1_000_000) if self.policy.exists() else None)
        fresh.replace(self.policy)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(POLICY))
    with start(policy=policy, now=clock_at(1_000.0)) as server:
        server.make_bucket("bucket")
        server.make_bucket("other")
        for name in (CONTROL, "runs/a/head.json", "runs/b/head.json"):
            put(server, name)
        yield Guarded(server, policy)


def put(server: StorageServer, name: str) -> None:
    """Writes without credentials, which this policy leaves with all rights."""
    url = f"{server.url}/upload/storage/v1/b/bucket/o"
    httpx.post(url, params={"uploadType": "media", "name": name}, content=b"old").raise_for_status()


def test_an_account_reads_and_writes_where_its_rules_let_it(guarded: Guarded) -> None:
    bucket = guarded.bucket_of("vm-token")
    assert bucket.blob(CONTROL).download_as_bytes() == b"old"
    bucket.blob("runs/a/head.json").upload_from_string(b"new")
    bucket.blob("runs/a/new").upload_from_file(io.BytesIO(b"x"))
    assert [blob.name for blob in bucket.list_blobs(prefix="runs/a/")] == [CONTROL, "runs/a/head.json", "runs/a/new"]
    bucket.blob("runs/a/new").delete()
    assert guarded.server.accounting.last()[-1]["account"] == "vm@test"


@pytest.mark.parametrize("token", ["vm-token", "creator-token"])
def test_control_cannot_be_changed_in_any_way(guarded: Guarded, token: str, tmp_path: Path) -> None:
    bucket = guarded.bucket_of(token)
    blob = bucket.blob(CONTROL)
    (tmp_path / "file").write_bytes(b"new")
    source = bucket.blob("runs/a/head.json")

    def in_parts() -> None:
        transfer_manager.upload_chunks_concurrently(str(tmp_path / "file"), blob, worker_type=transfer_manager.THREAD)

    for change in (
        lambda: blob.upload_from_string(b"new"),
        lambda: blob.upload_from_file(io.BytesIO(b"new")),
        in_parts,
        lambda: blob.compose([source]),
        lambda: blob.rewrite(source),
        lambda: bucket.copy_blob(source, bucket, CONTROL),
        lambda: bucket.move_blob(source, CONTROL),
        lambda: bucket.rename_blob(blob, "runs/a/stolen"),
        blob.delete,
        blob.patch,
    ):
        with pytest.raises(Exception, match="403"):
            change()
    everybody = guarded.bucket_of("free-token")
    assert everybody.blob(CONTROL).download_as_bytes() == b"old"
    assert everybody.get_blob(CONTROL).metageneration == 1


def test_a_refusal_names_the_permission_that_is_missing(guarded: Guarded) -> None:
    vm, creator = guarded.bucket_of("vm-token"), guarded.bucket_of("creator-token")
    wanted = "vm@test does not have storage.objects.create access to the Google Cloud Storage object"
    with pytest.raises(Forbidden, match=wanted) as caught:
        vm.blob("runs/b/new").upload_from_string(b"")
    detail = caught.value.response.json()["error"]
    assert (detail["code"], detail["errors"][0]["reason"]) == (403, "forbidden")
    with pytest.raises(Forbidden, match=r"storage\.objects\.delete"):
        creator.blob("runs/b/head.json").upload_from_string(b"")  # overwriting takes both
    creator.blob("runs/b/new").upload_from_string(b"")
    with pytest.raises(Forbidden, match=r"storage\.objects\.get"):
        creator.blob("runs/b/new").download_as_bytes()
    with pytest.raises(Forbidden, match=r"storage\.objects\.list"):
        list(vm.list_blobs(prefix="runs/"))
    with pytest.raises(Forbidden, match=r"storage\.objects\.update"):
        guarded.bucket_of("watchdog-token").blob(CONTROL).patch()
    with pytest.raises(Forbidden, match=r"storage\.buckets\.get"):
        vm.reload()
    with pytest.raises(Forbidden, match=r"storage\.buckets\.create"):
        vm.client.create_bucket("another")
    with pytest.raises(Forbidden, match=r"storage\.buckets\.delete"):
        vm.delete()


def test_rules_of_one_bucket_are_for_that_bucket(guarded: Guarded) -> None:
    with pytest.raises(Forbidden):
        guarded.bucket_of("vm-token").client.bucket("other").blob("runs/a/x").upload_from_string(b"")


def test_what_is_not_there_is_404_only_for_those_who_may_list(guarded: Guarded) -> None:
    with pytest.raises(NotFound):
        guarded.bucket_of("vm-token").blob("runs/a/missing").download_as_bytes()
    policy = {**POLICY, "accounts": {"vm@test": [{"prefix": "", "allow": ["get"]}]}}
    guarded.write_policy(policy)
    with pytest.raises(Forbidden, match="or it may not exist"):
        guarded.bucket_of("vm-token").blob("runs/a/missing").download_as_bytes()


def test_rights_that_are_taken_away_during_an_upload_are_gone_at_its_end(guarded: Guarded) -> None:
    url = f"{guarded.server.url}/upload/storage/v1/b/bucket/o?uploadType=resumable&name=runs/late"
    headers = {"Authorization": "Bearer creator-token"}
    session = httpx.post(url, headers=headers).headers["location"]
    put(guarded.server, "runs/late")  # so that it would be overwritten, which this account may not do
    assert httpx.put(session, content=b"new").status_code == 403
    assert guarded.bucket_of("free-token").blob("runs/late").download_as_bytes() == b"old"


def test_an_object_that_appears_while_its_bytes_come_in_is_not_overwritten(guarded: Guarded) -> None:
    def body() -> Iterator[bytes]:
        yield b"new" * 100_000
        put(guarded.server, "runs/late")
        yield b"new"

    url = f"{guarded.server.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=runs/late"
    answer = httpx.post(url, content=body(), headers={"Authorization": "Bearer creator-token"})
    assert answer.status_code == 403
    assert guarded.bucket_of("free-token").blob("runs/late").download_as_bytes() == b"old"


def test_tokens_that_are_unknown_or_have_run_out_are_401(guarded: Guarded) -> None:
    url = f"{guarded.server.url}/storage/v1/b/bucket/o/{CONTROL.replace('/', '%2F')}"
    for token in ("no-such-token", "vm-token2"):
        answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        assert answer.json()["error"]["errors"][0]["reason"] == "authError"
        assert "www-authenticate" in answer.headers
    vm = {"Authorization": "Bearer vm-token"}
    assert httpx.get(url, headers=vm).status_code == 200
    expired = {**POLICY, "tokens": {"vm-token": {"account": "vm@test", "expires_s": 1_000}}}
    guarded.write_policy(expired)
    assert httpx.get(url, headers=vm).status_code == 401


def test_a_policy_that_changes_is_in_force_at_once(guarded: Guarded) -> None:
    bucket = guarded.bucket_of("new-token")
    url = f"{guarded.server.url}/storage/v1/b/bucket/o"
    assert httpx.get(url, headers={"Authorization": "Bearer new-token"}).status_code == 401
    guarded.write_policy({**POLICY, "tokens": {"new-token": {"account": "vm@test"}}})
    assert bucket.blob(CONTROL).download_as_bytes() == b"old"


def test_those_without_credentials_have_the_rights_that_the_policy_leaves_them(guarded: Guarded) -> None:
    url = f"{guarded.server.url}/storage/v1/b/bucket/o"
    assert httpx.get(url).status_code == 200
    guarded.write_policy({**POLICY, "accounts": {"anonymous": []}})
    answer = httpx.get(url)
    assert answer.status_code == 401
    assert "Anonymous caller does not have storage.objects.list access" in answer.json()["error"]["message"]


def test_without_a_policy_any_token_will_do(server: StorageServer) -> None:
    client_of(server, Credentials("any")).bucket("bucket").blob("x").upload_from_string(b"")
    assert server.accounting.last()[-1]["account"] == "anonymous"


def test_an_expired_token_is_what_the_real_client_calls_unauthorized(guarded: Guarded) -> None:
    class Stale(Credentials):
        def refresh(self, request: object) -> None:
            """Brings nothing new."""

    client = client_of(guarded.server, Stale("old"))
    with pytest.raises(Unauthorized, match="Invalid Credentials"):
        client.bucket("bucket").blob("runs/a/x").upload_from_string(b"")


@pytest.mark.parametrize(
    "policy",
    [
        {"account": {}},
        {"accounts": {"a": [{"prefix": "x", "allow": ["read"]}]}},
        {"accounts": {"a": [{"prefix": "x", "allow": [], "deny": ["get"]}]}},
    ],
)
def test_a_policy_with_a_typing_error_grants_nothing(tmp_path: Path, policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        parse_policy(policy)
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    with pytest.raises(ValueError, match="not"), start(policy=tmp_path / "policy.json"):
        pass
