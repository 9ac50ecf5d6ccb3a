"""What is in the images, read layer by layer: nothing secret, nothing that gains rights, nothing left over."""

import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image_boxes import ROOT, Boxes, Images

from docker.smoke import EXPECTED_PTH
from tools.image.layers import SETUID, Archive, File, files, secrets, sizes

pytestmark = pytest.mark.image
NAMES = ("slim", "train-cpu")
SMALL_LAYER_BYTES = 2 * 1024 * 1024
PYC = re.compile(r"\.cpython-\d+\.pyc$")


@pytest.fixture(params=NAMES)
def archive(request: pytest.FixtureRequest, archive_of: Callable[[str], Path]) -> Iterator[Archive]:
    with Archive(archive_of(request.param)) as archive:
        yield archive


@pytest.fixture(scope="module")
def seen_in(archive_of: Callable[[str], Path]) -> Callable[[str], dict[str, File]]:
    """What a container of the image sees."""

    @functools.cache
    def see(name: str) -> dict[str, File]:
        with Archive(archive_of(name)) as archive:
            return files(archive)

    return see


def test_no_layer_holds_a_secret(archive: Archive) -> None:
    allowed = re.compile(r"/libgnutls\.so")  # tests itself with keys that everybody knows
    assert [one for one in secrets(archive) if not allowed.search(one.path)] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_file_gives_its_user_more_rights(seen_in: Callable[[str], dict[str, File]], name: str) -> None:
    assert [file.path for file in seen_in(name).values() if file.mode & SETUID] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_file_runs_code_whenever_python_starts(seen_in: Callable[[str], dict[str, File]], name: str) -> None:
    hooks = [
        path
        for path in seen_in(name)
        if path.endswith(".pth") or path.endswith(("sitecustomize.py", "usercustomize.py"))
    ]
    assert {Path(path).name for path in hooks} <= {*EXPECTED_PTH, "sitecustomize.py"}
    # Debian's own, which is empty but for a hook of its crash reports.
    assert [path for path in hooks if path.endswith("customize.py") and not path.startswith(("usr/", "etc/"))] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_cache_no_compiler_and_no_installer_stays(seen_in: Callable[[str], dict[str, File]], name: str) -> None:
    left = re.compile(
        r"^(var/lib/apt/lists/[^/]+$|var/cache/.+|root/\.cache/|cache/.+|tmp/.+|opt/(tools|wheels)/.+"
        r"|usr/bin/(gcc|cc|g\+\+|make|ld|pip3?)$|opt/venv/bin/(pip|uv)|opt/venv/lib/[^/]+/site-packages/(pip|uv)/)"
    )
    assert [path for path in seen_in(name) if left.search(path)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_project_is_there_as_it_is_in_the_clone_without_local_cloud_and_tests(
    seen_in: Callable[[str], dict[str, File]], name: str
) -> None:
    shipped = {path.removeprefix("baton/") for path in seen_in(name) if path.startswith("baton/")}
    assert not [
        path for path in shipped if path.startswith(("infra/localcloud", "tests", "benchmarks", ".git", ".env"))
    ]
    for package in ("job", "infra"):
        clone = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        clone = {path for path in clone if not path.startswith("infra/localcloud")}
        assert clone <= shipped
        compiled = {PYC.sub(".py", path.replace("__pycache__/", "")) for path in shipped if path.endswith(".pyc")}
        assert clone <= compiled, "a read-only image compiles at every start what is not compiled in it"
    assert "infra/vm/startup.sh" in shipped
    assert "recipes/demo.toml" in shipped


@pytest.mark.parametrize("name", NAMES)
def test_xformers_is_not_shipped_and_slim_has_no_torch(seen_in: Callable[[str], dict[str, File]], name: str) -> None:
    packages = {
        path.split("/")[5] for path in seen_in(name) if path.startswith("opt/venv/lib/python3.11/site-packages/")
    }
    assert "xformers" not in packages
    assert ("torch" in packages) is (name == "train-cpu")


def test_what_a_commit_changes_is_the_last_layer_with_files_and_small(archive: Archive) -> None:
    commands, bytes_of = archive.commands(), sizes(archive)
    (project,) = (number for number, command in enumerate(commands) if re.search(r"COPY .* in / *$", command))
    assert archive.compressed_bytes(project) < SMALL_LAYER_BYTES
    assert sum(bytes_of[project + 1 :]) == 0, "a layer above the project's is made again with every commit"


def test_the_image_says_what_it_is(boxes: Boxes, images: Images) -> None:
    for image in (images.slim, images.train_cpu):
        (told,) = json.loads(boxes.ask("image", "inspect", image))
        labels = told["Config"]["Labels"]
        prefix = "org.opencontainers.image."
        assert labels[f"{prefix}licenses"] == "Apache-2.0"
        assert labels[f"{prefix}title"].startswith("baton ")
        assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", labels[f"{prefix}revision"])
        assert f"{prefix}base.name" in labels
        assert told["Config"]["User"] == "baton"
