"""The locks under docker/: made by `make lock`, held against pyproject.toml by `make check`.

One resolution covers everything, so that what is tested is what ships. It is written as layers, one file each,
that never overlap, apart from the two builds of torch:

  torch-cpu   torch's CPU build | torch-cuda: its CUDA build with the libraries that it draws in
  base        the laptop and the watchdog
  train       on top of both: the container, with or without a GPU
  gpu         on top of train and torch-cuda: faster generation | unsloth: on top of that, for its licence
  dev         on top of train: tests and linters

What is locked stays as long as it fits; --upgrade takes the newest of everything.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("torch-cpu", "torch-cuda", "base", "train", "gpu", "unsloth", "dev")
LOCKS = {layer: ROOT / "docker" / f"requirements-{layer}.txt" for layer in LAYERS}
BELOW = {
    "train": ("base",),
    "gpu": ("torch-cuda", "base", "train"),
    "unsloth": ("torch-cuda", "base", "train", "gpu"),
    "dev": ("base", "train"),
}
"""What is installed before a layer, so that it has none of it again."""
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
MIN_AGE_DAYS = 7  # most malicious releases are found and withdrawn within days
TORCH = "torch"  # in two builds, which have one name: each is a layer
LEFT_OUT = ("xformers",)  # unsloth names it, but 0.0.35 is built for torch 2.10 and cannot load beside 2.13
CUDA = re.compile(r"(nvidia|cuda)-|triton$")  # what only torch's CUDA build draws in


def main() -> int:
    """Writes the locks, or with --check says in which line one differs from pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare with pyproject.toml; offline")
    parser.add_argument("--upgrade", action="store_true", help="do not keep the versions that are locked now")
    arguments = parser.parse_args()
    if arguments.check:
        problems = differences()
        print(*problems or ["locks: agree with pyproject.toml"], sep="\n", file=sys.stderr)
        return 1 if problems else 0
    write_locks(keep=not arguments.upgrade)
    return 0


def wanted() -> dict[str, dict[str, str]]:
    """The pins of pyproject.toml by layer, {"train": {name: version}, ...}."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = {"base": project["dependencies"], **project["optional-dependencies"]}
    pins = {layer: dict(_pin(line) for line in of_layer) for layer, of_layer in lines.items()}
    torch = pins["train"].pop(TORCH)
    return pins | {"torch-cpu": {TORCH: f"{torch}+cpu"}, "torch-cuda": {TORCH: torch}}


def locked(layer: str) -> dict[str, str]:
    """The versions in the committed lock of one layer."""
    return {name: version for name, version, _ in _entries(LOCKS[layer].read_text())}


def differences() -> list[str]:
    """What in the committed locks does not follow from pyproject.toml, one line each."""
    problems = []
    for layer, pins in wanted().items():
        found = locked(layer)
        where = LOCKS[layer].relative_to(ROOT)
        below = {name: version for one in BELOW.get(layer, ()) for name, version in locked(one).items()}
        for name, version in pins.items():
            if (have := (below | found).get(name)) != version:
                problems.append(f"{where}: {name} is {have}, pyproject.toml says {version}: make lock")
        for name in found.keys() & {*LEFT_OUT, *(() if layer.startswith(TORCH) else (TORCH,))}:
            problems.append(f"{where}: {name} must not be in this lock: make lock")
        for name in found.keys() & below.keys():
            problems.append(f"{where}: {name} is in a lock below it as well: make lock")
    return problems


def write_locks(*, keep: bool) -> None:
    """Resolves everything at once and writes the layers. `keep`: what is locked now, where it still fits."""
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "everything.txt"
        kept = [path for layer, path in LOCKS.items() if not layer.startswith(TORCH) and path.exists()]
        everything.write_text("".join(path.read_text() for path in kept) if keep else "")
        extras = {
            "base": [],
            "train": ["train"],
            "gpu": ["train", "gpu"],
            "unsloth": ["train", "gpu", "unsloth"],
            "dev": ["train", "dev"],
        }
        together = [f"--extra={extra}" for extra in ("train", "gpu", "unsloth", "dev")]
        _resolve(*together, "--output-file", str(everything))
        resolved = {
            layer: list(_entries(_resolve(*(f"--extra={one}" for one in of_layer), "--constraints", str(everything))))
            for layer, of_layer in extras.items()
        }
    drawn_in = [entry for entry in resolved["train"] if CUDA.match(entry[0])]
    torch = wanted()["torch-cuda"][TORCH]
    layers = {
        "torch-cuda": [*drawn_in, *_entries(_torch(torch))],
        "torch-cpu": list(_entries(_torch_cpu(f"{torch}+cpu", keep=keep))),
    }
    cuda = {name for name, _, _ in drawn_in}
    for layer, entries in resolved.items():
        below = {name for one in BELOW.get(layer, ()) for name, _, _ in layers[one]}
        layers[layer] = [entry for entry in entries if entry[0] not in below | cuda]
    for layer, entries in layers.items():
        LOCKS[layer].write_text(
            f"# Layer {layer!r} of the locks, for Linux x86-64 and Python 3.11. Written by `make lock`.\n"
            "# After the layers below it (tools/lock.py): pip install --no-deps --require-hashes -r THIS_FILE\n"
            + "".join(text for _, _, text in sorted(entries))
        )
        print(f"{LOCKS[layer].relative_to(ROOT)}: {len(entries)} packages", file=sys.stderr)


def _resolve(*flags: str) -> str:
    """The requirements that uv finds; versions in an output file that is there already are preferred."""
    return _compile("pyproject.toml", *(f"--no-emit-package={name}" for name in (TORCH, *LEFT_OUT)), *flags)


def _torch(version: str, *flags: str) -> str:
    """torch alone, with the hashes of all its files in an index."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted_file:
        wanted_file.write(f"{TORCH}=={version}\n")
        wanted_file.flush()
        return _compile(wanted_file.name, "--no-deps", *flags)


def _torch_cpu(version: str, *, keep: bool) -> str:
    """torch's CPU build, which is on PyTorch's own index only (TORCH_INDEX), or a wheel in PIP_FIND_LINKS."""
    if keep and LOCKS["torch-cpu"].exists() and locked("torch-cpu").get(TORCH) == version:
        return LOCKS["torch-cpu"].read_text()
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        for wheel in Path(folder).glob(f"{TORCH}-{version}-cp311-*x86_64.whl"):
            return f"{TORCH}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    return _torch(version, f"--default-index={os.environ.get('TORCH_INDEX') or TORCH_INDEX}")


def _compile(source: str, *flags: str) -> str:
    newest = datetime.now(UTC) - timedelta(days=MIN_AGE_DAYS)
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", source),
        *("--python-version=3.11", "--python-platform=x86_64-manylinux_2_28", "--generate-hashes"),
        *("--no-header", "--no-annotate", f"--exclude-newer={newest:%Y-%m-%dT00:00:00Z}"),
        *flags,
    ]
    # A lock must not depend on where it was made: package sources of this machine's own are left aside.
    own = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    environment["UV_PYTHON_DOWNLOADS"] = "never"  # a resolution needs none, and makes no download of its own
    result = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return result.stdout


def _entries(lock: str) -> list[tuple[str, str, str]]:
    """(name, version, text with its hashes) of every package in a requirements file."""
    entries: list[tuple[str, str, str]] = []
    for line in lock.splitlines(keepends=True):
        if line.startswith((" ", "\t")) and entries and line.strip().startswith("--hash="):
            name, version, text = entries[-1]
            entries[-1] = (name, version, text + line)
        elif line.strip() and not line.lstrip().startswith("#"):
            entries.append((*_pin(line.split("\\")[0]), line))
    return entries


def _pin(requirement: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;.*)?", requirement)
    if not match:
        raise SystemExit(f"{requirement.strip()!r} is not NAME==VERSION: pin it, so that one set is tested and ships")
    return re.sub(r"[-_.]+", "-", match[1]).lower(), match[2]


if __name__ == "__main__":
    sys.exit(main())
