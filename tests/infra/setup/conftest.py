"""A project of a test's own behind a gcloud of its own (fake_gcloud.py), and a person's folder."""

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from infra.cli.setup import app

STUB = Path(__file__).with_name("fake_gcloud.py")


@dataclass
class Project:
    """What gcloud has been told, and what came of it."""

    folder: Path

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    def change(self, state: dict[str, Any]) -> None:
        """Somebody else's doing."""
        (self.folder / "state.json").write_text(json.dumps(state))

    @property
    def calls(self) -> list[list[str]]:
        """Every call of gcloud, in its order."""
        file = self.folder / "state.calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def changes(self) -> list[list[str]]:
        """Those that were to change something."""
        return [call for call in self.calls if "--format=json" not in call]

    def forget_calls(self) -> None:
        (self.folder / "state.calls").write_text("")

    @property
    def dotenv(self) -> Path:
        return self.folder / "user/.env"

    def setup(self, *words: str, code: int = 0) -> Result:
        """`infra/setup.sh WORDS`; it has to end with `code`."""
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, (done.output, done.exception)
        return done


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    programs, user = tmp_path / "bin", tmp_path / "user"
    programs.mkdir()
    user.mkdir()
    gcloud = programs / "gcloud"
    gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {STUB} "$@"\n')
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GCLOUD_STATE", str(tmp_path / "state.json"))
    for name in list(os.environ):
        if name.startswith(("BATON_", "GOOGLE_", "CLOUDSDK_")) or name.endswith(("_API_KEY", "HF_TOKEN")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("infra.setup.wanted.all_regions", lambda: ("us-central1", "us-east1", "us-west1"))
    monkeypatch.chdir(user)
    return Project(tmp_path)
