"""The locks under docker/: made by `make lock`, held against pyproject.toml by `make check`.

One resolution covers everything, so that what is tested is what ships. It is written as three layers that
never overlap: requirements-train.txt (container, with or without a GPU), and on top of it
requirements-gpu.txt (GPU extras and the CUDA libraries) or requirements-dev.txt (tests and linters).
torch is in none of them: its CPU and CUDA builds differ, so it is installed first, by the version that
pyproject.toml names. What is locked stays as long as it fits; --upgrade takes the newest of everything.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {layer: ROOT / "docker" / f"requirements-{layer}.txt" for layer in ("train", "gpu", "dev")}
MIN_AGE_DAYS = 7  # most malicious releases are found and withdrawn within days
APART = ("torch",)  # installed first, see above
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
    """The pins of pyproject.toml by layer, {"train": {name: version}, ...}; train holds the base too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = {"train": project["dependencies"] + extras["train"], "gpu": extras["gpu"], "dev": extras["dev"]}
    return {layer: dict(_pin(line) for line in of_layer) for layer, of_layer in lines.items()}


def locked(layer: str) -> dict[str, str]:
    """The versions in the committed lock of one layer."""
    return {name: version for name, version, _ in _entries(LOCKS[layer].read_text())}


def differences() -> list[str]:
    """What in the committed locks does not follow from pyproject.toml, one line each."""
    problems = []
    for layer, pins in wanted().items():
        found = locked(layer)
        where = LOCKS[layer].relative_to(ROOT)
        installed = locked("train") | found
        for name, version in pins.items():
            if name not in APART and installed.get(name) != version:
                problems.append(f"{where}: {name} is {installed.get(name)}, pyproject.toml says {version}: make lock")
        for name in found.keys() & {*APART, *LEFT_OUT}:
            problems.append(f"{where}: {name} must not be in a lock: make lock")
        if layer != "train":
            for name in found.keys() & locked("train").keys():
                problems.append(f"{where}: {name} is in requirements-train.txt as well: make lock")
    return problems


def write_locks(*, keep: bool) -> None:
    """Resolves everything at once and writes the three layers. `keep`: what is locked now, where it still fits."""
    with tempfile.TemporaryDirectory() as folder:
        preferred, everything = Path(folder) / "preferred.txt", Path(folder) / "everything.txt"
        preferred.write_text("".join(path.read_text() for path in LOCKS.values()) if keep else "")
        everything.write_text(_resolve(["train", "gpu", "dev"], "--output-file", str(preferred)))
        resolved = {
            layer: list(_entries(_resolve(["train", *extra], "--constraints", str(everything))))
            for layer, extra in {"train": [], "gpu": ["gpu"], "dev": ["dev"]}.items()
        }
    train = [entry for entry in resolved["train"] if not CUDA.match(entry[0])]
    in_train = {name for name, _, _ in train}
    layers = {
        "train": train,
        "gpu": [entry for entry in resolved["gpu"] if entry[0] not in in_train],
        "dev": [e for e in resolved["dev"] if e[0] not in in_train and not CUDA.match(e[0])],
    }
    for layer, entries in layers.items():
        LOCKS[layer].write_text(
            f"# Layer {layer!r} of the locks, for Linux x86-64 and Python 3.11. Written by `make lock`.\n"
            "# Install torch first, then: pip install --no-deps --require-hashes -r THIS_FILE\n"
            + "".join(text for _, _, text in entries)
        )
        print(f"{LOCKS[layer].relative_to(ROOT)}: {len(entries)} packages", file=sys.stderr)


def _resolve(extras: list[str], *flags: str) -> str:
    """The requirements that uv finds; versions in an output file that is there already are preferred."""
    newest = datetime.now(UTC) - timedelta(days=MIN_AGE_DAYS)
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml"),
        *(f"--extra={extra}" for extra in extras),
        *("--python-version=3.11", "--python-platform=x86_64-manylinux_2_28", "--generate-hashes"),
        *("--no-header", "--no-annotate", f"--exclude-newer={newest:%Y-%m-%dT00:00:00Z}"),
        *(f"--no-emit-package={name}" for name in (*APART, *LEFT_OUT)),
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
