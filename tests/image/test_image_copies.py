"""An image keeps its digest when it is copied to another name, between real registries on loopback."""

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from tools.image.__main__ import main

pytestmark = pytest.mark.image
OCI = "application/vnd.oci.image"


def push(host: str, name: str) -> str:
    """Puts a small image there, as the distribution protocol has it, and gives its digest."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers"}}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    place = httpx.post(f"http://{host}/v2/{name}/blobs/uploads/").headers["Location"]
    httpx.put(f"{place}&digest={digest}", content=config).raise_for_status()
    described = {"mediaType": f"{OCI}.config.v1+json", "digest": digest, "size": len(config)}
    form = f"{OCI}.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": form, "config": described, "layers": []}).encode()
    where = f"http://{host}/v2/{name}/manifests/pushed"
    httpx.put(where, content=manifest, headers={"Content-Type": form}).raise_for_status()
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def digest_at(host: str, name: str, reference: str) -> str | None:
    accept = {"Accept": f"{OCI}.manifest.v1+json"}
    reply = httpx.head(f"http://{host}/v2/{name}/manifests/{reference}", headers=accept)
    return reply.headers["Docker-Content-Digest"] if reply.status_code == 200 else None


def test_a_copy_has_the_digest_of_the_original_and_is_told_to_the_next_step(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = push(registry, "project/baton/train-cpu")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.setenv("TARGET", "train-cpu")
    name = f"{registry}/owner/baton/train-cpu"
    assert (
        main(["copy", f"{registry}/project/baton/train-cpu@{digest}", f"{registry}/Owner/Baton/train-cpu:v1.0RC"]) == 0
    )
    assert digest_at(registry, "owner/baton/train-cpu", "v1.0RC") == digest
    told = (tmp_path / "outputs").read_text().splitlines()
    assert told == [f"image={name}@{digest}", f"name={name}", f"digest={digest}", f"train-cpu={name}@{digest}"]


def test_a_copy_without_a_tag_can_be_had_by_its_digest_and_by_nothing_else(registry: str) -> None:
    digest = push(registry, "project/baton/slim")
    assert main(["copy", f"{registry}/project/baton/slim@{digest}", f"{registry}/untagged/slim"]) == 0
    assert digest_at(registry, "untagged/slim", digest) == digest
    assert not httpx.get(f"http://{registry}/v2/untagged/slim/tags/list").json().get("tags")


def test_a_digest_that_is_not_there_fails_and_tells_nothing(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    assert main(["copy", f"{registry}/project/none@sha256:{'0' * 64}", f"{registry}/owner/none:v1"]) != 0
    assert not (tmp_path / "outputs").exists()
