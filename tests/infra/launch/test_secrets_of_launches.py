"""Proves what a launch says and sends of secrets: names of versions, to the spec only, and where the VM reads them; a
value where a name belongs is refused without being shown.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli.launch import app
from infra.control import Changes, revised
from job.errors import UsageError
from job.run.spec import Spec, SpecModel
from job.settings import load_environment
from tests.infra.seen import MACHINE

ROOT = Path(__file__).parents[3]
VERSION = "projects/my-project/secrets/baton-hf-token/versions/3"
SECRET = "hf_MARKED"


@pytest.fixture(autouse=True)
def nothing_of_the_developers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("BATON_") or name.endswith(("_API_KEY", "HF_TOKEN")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("job.settings.environment.DOTENV", tmp_path / ".env")


def dry_run(*more: str) -> dict[str, Any]:
    model = ("--set", "model.name=me/private-1B", "--set", "train.max_steps=10")
    words = ["recipes/demo.toml", "--gpu", "l4", "--spot", "--dry-run", "--json", *model, *more]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_plan_names_who_reads_secrets_and_no_request_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_SECRET_HF_TOKEN", VERSION)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    found = dry_run()
    hosts = {host["host"]: host["receives"] for host in found["plan"]["hosts"]}
    assert hosts["secretmanager.googleapis.com"].endswith("HF_TOKEN")
    assert VERSION in hosts["huggingface.co"]
    assert not [note for note in found["plan"]["notes"] if "stays here" in note]
    assert SECRET not in json.dumps(found)
    assert "baton-hf-token" not in json.dumps(found["requests"])


def test_without_a_version_the_token_stays_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    found = dry_run()
    assert "secretmanager.googleapis.com" not in {host["host"] for host in found["plan"]["hosts"]}
    assert [note for note in found["plan"]["notes"] if "HF_TOKEN stays here" in note]
    assert [note for note in found["plan"]["notes"] if "--nat" in note]


@pytest.mark.parametrize("value", [SECRET, VERSION.replace("/3", "/latest"), VERSION.replace("/3", "/0")])
def test_a_value_where_a_name_belongs_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BATON_SECRET_HF_TOKEN", value)
    with pytest.raises(UsageError, match="BATON_SECRET_HF_TOKEN does not name a version") as refused:
        load_environment(None)
    assert value not in str(refused.value)


def test_a_resumed_run_takes_the_version_that_is_set_now() -> None:
    spec = Spec(
        revision=1,
        recipe={},
        model=SpecModel(name="tiny"),
        machine=MACHINE.model_copy(update={"secrets": {"HF_TOKEN": VERSION}}),
        fingerprint="f",
        started_by="me",
        created_at=0.0,
    )
    newer = {"HF_TOKEN": VERSION.replace("/3", "/4")}
    changed = revised(spec, Changes(secrets=newer), who="me", commit=None, now_s=1.0)
    assert changed is not None
    assert changed.machine is not None
    assert (changed.machine.secrets, changed.accepted) == (newer, ("machine.secrets",))
    same = Changes(secrets={"HF_TOKEN": VERSION})
    assert revised(spec, same, who="me", commit=None, now_s=1.0) is None
