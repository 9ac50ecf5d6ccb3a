"""A project of a test's own, as setup leaves it, and the environment of whoever asks about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google_project import GoogleProject, google_project

CREDENTIALS = ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
SECRETS = ("HF_TOKEN", "GEMINI_API_KEY", "OPENAI_API_KEY", "WANDB_API_KEY")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleProject]:
    """As Google gives it: empty."""
    with google_project(tmp_path / "cloud") as made:
        user = tmp_path / "user"
        user.mkdir()
        monkeypatch.chdir(user)
        for name in (*CREDENTIALS, *SECRETS):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(f"BATON_SECRET_{name}", raising=False)
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield made


@pytest.fixture
def ready(project: GoogleProject) -> GoogleProject:
    """As setup leaves it."""
    project.set_up()
    return project
