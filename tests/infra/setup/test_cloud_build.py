"""Proves that what Cloud Build is told is a build of this Dockerfile: arguments and targets that it has, a script that
a shell can read, and values that `make image-cloud` gives.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture
def build() -> Any:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())


def script(build: Any) -> str:
    """As the shell gets it: $$ is Cloud Build's own way to write $."""
    text: str = build["steps"][0]["args"][-1]
    assert not re.findall(r"(?<!\$)\$(?!\$)", text), "a single $ is replaced before the shell sees it"
    return text.replace("$$", "$")


def test_the_script_can_be_read_and_builds_with_arguments_that_the_dockerfile_has(build: Any) -> None:
    text = script(build)
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    given = set(re.findall(r'--build-arg "(\w+)=', text))
    assert given == {"BASE_IMAGE", "REVISION", "UNSLOTH"}
    assert given <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))


def test_make_gives_all_that_is_asked_for_and_a_target_that_there_is(build: Any) -> None:
    registry = "us-central1-docker.pkg.dev/my-project/baton"
    words = ["make", "--silent", "image-cloud", "DRY_RUN=1", "TARGET=slim", f"REGISTRY={registry}", "BUCKET=my-bucket"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for flag in (
        "--project=my-project",
        "--region=us-central1",
        "--service-account=projects/my-project/serviceAccounts/baton-build@my-project.iam.gserviceaccount.com",
        "--gcs-source-staging-dir=gs://my-bucket/builds",
    ):
        assert flag in said
    substitutions = said.partition("--substitutions=")[2].split()[0]
    given = dict(pair.split("=", 1) for pair in substitutions.split(","))
    assert set(given) == set(build["substitutions"])
    assert f" AS {given['_TARGET']}" in DOCKERFILE
    assert given["_REGISTRY"] == registry


def test_what_is_private_is_not_uploaded() -> None:
    ignored = (ROOT / ".gcloudignore").read_text().splitlines()
    assert "#!include:.gitignore" in ignored
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert ".git" in ignored
