"""What a build takes up and what it refuses: an older base, another processor, a full disk, files that are nobody's
business.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_boxes import ROOT, Boxes, Images

from job.errors import ExitCode
from tools.image.layers import Archive, secrets, sizes
from tools.image.run import Engines

pytestmark = pytest.mark.image
CANARY = "hf_" + "abcdefghijklmnopqrstuvwxyz01234567"
REBUILD_S = 15.0


def build(*words: str, root: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tools.image", "build", *words]
    env = os.environ | {"PYTHONPATH": str(root)} | environment
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what git tracks here, and of what is new, as a clone with one commit."""
    folder = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def built(boxes: Boxes) -> Iterator[list[str]]:
    """Images to be removed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        boxes.command("image", "rm", "--force", name)


def test_a_commit_makes_one_small_layer_and_secrets_beside_the_source_stay_out(
    boxes: Boxes, images: Images, clone: Path, built: list[str], tmp_path: Path
) -> None:
    for secret in (".env", "infra/.env", "job/.env.mine", "recipes/.netrc", "data/gsm8k/x", "infra/id_rsa"):
        (clone / secret).parent.mkdir(exist_ok=True)
        (clone / secret).write_text(f"HF_TOKEN={CANARY}\n")
    with (clone / "job" / "errors.py").open("a") as source:
        source.write("\n# changed\n")
    began_s = time.monotonic()
    done = build("slim", root=clone)
    took_s = time.monotonic() - began_s
    assert done.returncode == 0, done.stderr
    built.append(done.stdout.strip())
    assert built[0].endswith("-changed")
    archive = tmp_path / "changed.tar"
    boxes.ask(
        "save",
        *([] if boxes.engines.engine.name == "docker" else ["--format=docker-archive"]),
        f"--output={archive}",
        built[0],
    )
    with Archive(archive) as changed:
        assert [one for one in secrets(changed) if CANARY[:20] in one.what] == []
        assert CANARY not in str(changed.config)
        layers = [
            changed.compressed_bytes(number) if size < 10_000_000 else size
            for number, size in enumerate(sizes(changed))
        ]
    ours = boxes.ask("image", "inspect", "--format={{json .RootFS.Layers}}", images.slim)
    theirs = boxes.ask("image", "inspect", "--format={{json .RootFS.Layers}}", built[0])
    same = [one == other for one, other in zip(json.loads(ours), json.loads(theirs), strict=True)]
    assert 0 < same.count(False) <= 2, "the project's layer, and the empty one of the smoke test"
    assert sum(size for size, is_same in zip(layers, same, strict=True) if not is_same) < 2_000_000
    assert took_s < REBUILD_S


def test_a_broken_module_fails_the_build(clone: Path) -> None:
    (clone / "job" / "broken.py").write_text("raise RuntimeError('never to be shipped')\n")
    done = build("slim", root=clone)
    assert done.returncode != 0
    assert "never to be shipped" in done.stderr


def test_a_base_that_cannot_be_reached_is_one_clear_line(images: Images) -> None:
    done = build("slim", BASE_IMAGE="127.0.0.1:1/nobody/debian:bookworm")
    assert done.returncode == ExitCode.TRANSIENT, done.stderr
    assert "127.0.0.1:1/nobody/debian:bookworm cannot be reached" in done.stderr
    assert "BASE_IMAGE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs_system("buildah")
def test_a_base_for_another_processor_is_one_clear_line(engines: Engines, registry: str) -> None:
    name = f"{registry}/test/arm:1"
    env = os.environ | engines.env

    def buildah(*words: str) -> str:
        done = subprocess.run(["buildah", *words], env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    box = buildah("from", "scratch")
    try:
        buildah("config", "--arch=arm64", box)
        buildah("commit", "--quiet", box, name)
        buildah("push", "--tls-verify=false", name)
        buildah("rmi", "--force", name)
        done = build("slim", BASE_IMAGE=name)
    finally:
        buildah("rm", box)
    assert done.returncode == ExitCode.NEEDS_PERSON, done.stderr
    assert "another processor" in done.stderr or "is for arm64" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs_system("the right to mount")
def test_a_full_disk_is_told_before_anything_is_pulled(engines: Engines, tmp_path: Path) -> None:
    if engines.engine.name == "docker":
        pytest.skip("docker's storage is its daemon's")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small], check=True)
    try:
        conf = tmp_path / "storage.conf"
        conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{small}/root"\nrunroot = "{small}/run"\n')
        done = build("slim", CONTAINERS_STORAGE_CONF=str(conf))
    finally:
        subprocess.run(["umount", "--recursive", small], check=True)
    assert done.returncode == ExitCode.NEEDS_PERSON, done.stderr
    assert "The disk is too full to build slim" in done.stderr
