"""The borders hold: job never imports infra, infra only what is torch-free, torch stays where it belongs.

Every import counts, also one inside a function. docs/design.md, Layout, draws the same borders in words.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"accelerate", "datasets", "peft", "torch", "transformers", "trl", "unsloth", "vllm"}
MAY_IMPORT_HEAVY = ("job.training", "job.evaluation", "job.export")
"""What runs in the trainer's process, or in a command that says so."""
INFRA_MAY_IMPORT = (
    "job.checkpoint",
    "job.errors",
    "job.judge",
    "job.run",
    "job.settings",
    "job.storage",
    "job.tasks",
    "job.views",
)


def imports_of(package: str) -> Iterator[tuple[str, str]]:
    """(importing module, imported name) for every import in a package, `from a import b` as a.b."""
    for path in sorted((ROOT / package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports are absolute here"
                yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of the packages or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_job_never_imports_infra() -> None:
    assert [pair for pair in imports_of("job") if within(pair[1], ("infra",))] == []


def test_infra_imports_only_the_parts_of_job_that_are_torch_free() -> None:
    crossing = [pair for pair in imports_of("infra") if within(pair[1], ("job",))]
    assert [pair for pair in crossing if not within(pair[1], INFRA_MAY_IMPORT)] == []


def test_only_the_trainer_imports_the_training_libraries() -> None:
    heavy = [pair for pair in imports_of("job") if pair[1].split(".")[0] in HEAVY]
    assert heavy, "the scan found no import of torch at all: it looks in the wrong place"
    assert [pair for pair in heavy if not within(pair[0], MAY_IMPORT_HEAVY)] == []
    assert [pair for pair in imports_of("infra") if pair[1].split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("module", ["infra.cli", "job.settings", "job.run.spec", "job.tasks", "job.agent.attempt"])
def test_what_starts_fast_loads_no_training_library(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert HEAVY & set(loaded.stdout.split()) == set()
