"""Proves with Google's own gcloud, on a local Cloud Storage and Secret Manager, that setup's commands for bucket,
folders and secrets are understood, make what they say, find it again, and are taken back.

What the local cloud does not answer (accounts, networks, registries) goes to the tests' own gcloud.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.localcloud.storage import StorageServer, start
from infra.setup.grants import VM, WATCHDOG
from infra.setup.project import bucket_flags
from job.run.secret_values import OVERRIDE
from tests.infra.localcloud.test_secret_manager import PROJECT, secret_manager
from tests.infra.setup.conftest import Project

BUCKET = f"{PROJECT}-baton"
REAL = shutil.which("gcloud") or ""
SECRET = "hf_MARKED-not-to-be-seen"


@pytest.fixture
def cloud(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    with start(tmp_path / "storage") as storage, secret_manager(tmp_path / "secrets.json") as secrets:
        for name, value in {
            "REAL_GCLOUD": REAL,
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{storage.url}/storage/v1/",
            "STORAGE_EMULATOR_HOST": storage.url,
            OVERRIDE: f"{secrets}/",
        }.items():
            monkeypatch.setenv(name, value)
        yield storage


def ask(*words: str) -> object:
    """What the real gcloud sees."""
    done = subprocess.run(
        [REAL, *words, "--format=json"],
        env=os.environ | {"CLOUDSDK_CORE_PROJECT": PROJECT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.needs_system("gcloud")
@pytest.mark.long
def test_bucket_folders_rights_and_secrets_are_made_found_again_and_taken_back(
    project: Project, cloud: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    project.setup(f"--project={PROJECT}", "--yes")
    found = ask("storage", "buckets", "describe", f"gs://{BUCKET}", "--raw")
    assert isinstance(found, dict)
    assert bucket_flags(found) == [], found
    policy = ask("storage", "buckets", "get-iam-policy", f"gs://{BUCKET}")
    assert isinstance(policy, dict)
    writers = {
        (one["members"][0].partition("@")[0].rpartition(":")[2], one["condition"]["title"])
        for one in policy["bindings"]
    }
    assert writers == {
        (VM, "runs without their control"),
        (WATCHDOG, "control of runs"),
        (WATCHDOG, "the watchdog's console"),
    }
    assert ask("secrets", "versions", "access", "1", "--secret=baton-hf-token") is not None
    assert f"BATON_SECRET_HF_TOKEN=projects/{PROJECT}/secrets/baton-hf-token/versions/1" in project.dotenv.read_text()

    project.forget_calls()
    project.setup(f"--project={PROJECT}", "--yes")
    assert project.changes() == [], "it is all found again"

    cloud.store.update_bucket(BUCKET, {"versioning": {"enabled": True}})
    project.forget_calls()
    project.setup(f"--project={PROJECT}", "--yes")
    assert project.changes() == [["storage", "buckets", "update", f"gs://{BUCKET}", "--no-versioning"]]

    project.setup(f"--project={PROJECT}", "--undo", "--yes")
    policy = ask("storage", "buckets", "get-iam-policy", f"gs://{BUCKET}")
    assert isinstance(policy, dict)
    assert policy.get("bindings", []) == []
    assert ask("secrets", "list") == []
