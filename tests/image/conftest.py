"""What the tests of the image share: an engine, both images built from this clone, a bucket and a registry."""

import functools
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image_boxes import IMAGE_USER, ROOT, Boxes, Images, wait_until

from infra.localcloud.storage.process import StorageProcess, serve
from tools.image import run

REGISTRY_CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}
log: {{accesslog: {{disabled: true}}, level: error}}
"""


@pytest.fixture(scope="session")
def engines() -> run.Engines:
    """podman unless ENGINE says otherwise: it can have a second storage, which never saw an image."""
    return run.find(os.environ.get("ENGINE") or "podman")


@pytest.fixture(scope="session")
def images(engines: run.Engines) -> Images:
    """Both images that need no GPU, built by the command that people call; from the engine's cache where it can be."""
    if given := os.environ.get("IMAGES"):  # "SLIM TRAIN_CPU", that are there already
        return Images(*given.split())
    command = [sys.executable, "-m", "tools.image", "build", f"--engine={engines.engine.name}", "slim", "train-cpu"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert built.returncode == 0, "the build failed; its output is above"
    return Images(*built.stdout.split())


@pytest.fixture
def boxes(engines: run.Engines) -> Iterator[Boxes]:
    boxes = Boxes(engines)
    yield boxes
    boxes.close()


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[StorageProcess]:
    """Cloud Storage on loopback, which answers the image's user as well."""
    with serve("--user", str(IMAGE_USER)) as server:
        yield server


@pytest.fixture(scope="session")
def cache(engines: run.Engines) -> Iterator[str]:
    """A volume for /cache, as a VM's disk is: the tiny model is made once."""
    boxes = Boxes(engines)
    name = boxes.ask("volume", "create").strip()
    yield name
    boxes.ask("volume", "rm", "--force", name)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of an empty registry."""
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    config = folder / "config.yml"
    config.write_text(REGISTRY_CONFIG.format(root=folder / "data", address=address))
    program = run.program("docker-registry", why="the tests push to it")
    with (folder / "log").open("wb") as log, subprocess.Popen([program, "serve", config], stdout=log, stderr=log) as it:
        try:
            wait_until(lambda: answers(f"http://{address}/v2/"), lambda: (folder / "log").read_text())
            yield address
        finally:
            it.terminate()


def free_port() -> int:
    """A port that nobody has now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="session")
def archive_of(engines: run.Engines, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An image (slim, train-cpu) as a file, to read its layers."""
    folder = tmp_path_factory.mktemp("archives")

    @functools.cache
    def save(name: str) -> Path:
        form = [] if engines.engine.name == "docker" else ["--format=docker-archive"]
        image = {"slim": images.slim, "train-cpu": images.train_cpu}[name]
        Boxes(engines).ask("save", *form, f"--output={folder / name}.tar", image)
        return folder / f"{name}.tar"

    return save
