"""A model's name becomes something that cannot move, and every name that cannot be used is refused in one line.

The Hub is a server on loopback; huggingface_hub is the real client, in a process of its own that reads HF_ENDPOINT.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import serving

from job.errors import UsageError
from job.run.model_source import ModelSource, hash_folder, resolve_model

REPO = "acme/tiny-instruct"
ASK = """
import json, os, sys
from job.errors import BatonError
from job.run.model_source import download_model, resolve_model
try:
    source = resolve_model(sys.argv[1], *sys.argv[2:3])
    folder = str(download_model(source)) if "HF_HOME" in os.environ else None
    print(json.dumps({"source": source.to_plain(), "folder": folder}))
except BatonError as error:
    print(json.dumps({"exit": int(error.exit_code), "what": error.what, "fix": error.fix}))
print(json.dumps("torch" in sys.modules))
"""


def ask(url: str, *arguments: str, **env: str) -> dict:
    """What `resolve_model` says in a fresh process whose Hub is `url`; downloads too where HF_HOME is given.

    Also proves that neither needs torch.
    """
    base = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *arguments],
        env={**base, "HF_ENDPOINT": url, **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer, loaded_torch = map(json.loads, done.stdout.splitlines())
    assert not loaded_torch
    return answer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name)
    return folder


def test_the_tiny_model_needs_nothing() -> None:
    assert resolve_model("tiny") == ModelSource("tiny", "tiny")


def test_a_folder_is_pinned_by_the_hash_of_its_files(model: Path) -> None:
    source = resolve_model(str(model))
    assert (source.kind, source.path, source.sha256) == ("folder", model, hash_folder(model))
    assert ModelSource.from_plain(json.loads(json.dumps(source.to_plain()))) == source
    (model / "model.safetensors").write_text("other weights")
    assert resolve_model(str(model)).sha256 != source.sha256


@pytest.mark.parametrize(
    ("removed", "added", "complaint"),
    [
        ("config.json", None, "has no config.json"),
        ("tokenizer.json", None, "has no tokenizer"),
        ("model.safetensors", None, "has no safetensors"),
        ("model.safetensors", "pytorch_model.bin", r"has only pickled weights \(pytorch_model.bin\)"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(model: Path, removed: str, added: str | None, complaint: str) -> None:
    (model / removed).unlink()
    if added:
        (model / added).write_text("")
    with pytest.raises(UsageError, match=complaint):
        resolve_model(str(model))


@pytest.mark.parametrize("name", ["./missing", "/no/such/folder", "~/nothing-here", "a/b/c", "C:\\model"])
def test_a_path_without_a_folder_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        resolve_model(name)


def test_a_commit_is_taken_as_it_is() -> None:
    assert resolve_model(REPO, "a" * 40) == ModelSource(REPO, "hub", revision="a" * 40)


def test_a_hub_name_resolves_to_the_commit_of_its_branch(model: Path) -> None:
    with serving(REPO) as hub:
        first = hub.move("main", model)
        second = hub.move("v2", model)
        assert ask(hub.url, REPO)["source"]["revision"] == first
        assert ask(hub.url, REPO, "v2")["source"] == ModelSource(REPO, "hub", revision=second).to_plain()


def test_what_the_hub_does_not_have_is_a_mistake_in_the_recipe(model: Path) -> None:
    with serving(REPO) as hub:
        hub.move("main", model)
        unknown, revision = ask(hub.url, "acme/other"), ask(hub.url, REPO, "v9")
    assert unknown["exit"] == 2
    assert "neither a folder here nor a model" in unknown["what"]
    assert revision["exit"] == 2
    assert "no revision 'v9'" in revision["what"]


def test_a_gated_model_needs_a_person_with_a_token(model: Path) -> None:
    with serving(REPO) as hub:
        hub.gated = True
        commit = hub.move("main", model)
        refused = ask(hub.url, REPO)
        assert ask(hub.url, REPO, HF_TOKEN="hf_x")["source"]["revision"] == commit
    assert refused["exit"] == 3
    assert "HF_TOKEN" in refused["fix"]


def test_a_hub_that_cannot_be_reached_is_trouble_that_may_pass() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = ask(f"http://127.0.0.1:{unused.getsockname()[1]}", REPO)
    assert answer["exit"] == 76
    assert "cannot be reached" in answer["what"]


def test_a_hub_model_comes_at_its_commit_even_when_main_has_moved_and_the_hub_is_gone(
    model: Path, tmp_path: Path
) -> None:
    (model / "pytorch_model.bin").write_text("a pickle")
    (model / "README.md").write_text("long")
    newer = Path(shutil.copytree(model, tmp_path / "newer"))
    (newer / "model.safetensors").write_text("newer weights")
    home = str(tmp_path / "home")
    with serving(REPO) as hub:
        commit = hub.move("main", model)
        hub.move("main", newer)
        folder = Path(ask(hub.url, REPO, commit, HF_HOME=home)["folder"])
        asked = " ".join(hub.requests)
    assert folder.name == commit
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: name for name in ("config.json", "model.safetensors", "tokenizer.json")
    }
    assert "pytorch_model.bin" not in asked
    assert "main" not in asked
    assert ask("http://127.0.0.1:1", REPO, commit, HF_HOME=home)["folder"] == str(folder)


def test_a_download_that_cannot_be_made_says_why(model: Path, tmp_path: Path) -> None:
    with serving(REPO) as hub:
        commit = hub.move("main", model)
        hub.gated = True
        assert ask(hub.url, REPO, commit, HF_HOME=str(tmp_path / "home"))["exit"] == 3
    assert ask("http://127.0.0.1:1", REPO, commit, HF_HOME=str(tmp_path / "home"))["exit"] == 76
