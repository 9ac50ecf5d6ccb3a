"""A fresh machine gets locks that agree with pyproject.toml, no secrets, and scripts that are sound."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "docker").glob("requirements-*.txt"))


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A finished process with its output; the environment is the test's plus what is named."""
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_the_locks_agree_with_pyproject() -> None:
    result = run(sys.executable, "tools/lock.py", "--check")
    assert result.returncode == 0, result.stderr


def test_a_version_that_pyproject_raises_is_reported(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    project = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(re.sub(r'"peft==[^"]+"', '"peft==99.0"', project))
    result = run(sys.executable, "tools/lock.py", "--check", cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(r"requirements-train.txt: peft is \S+, pyproject.toml says 99.0: make lock", result.stderr)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_locked_package_has_a_version_and_hashes(lock: Path) -> None:
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        lines = entry.replace("\\\n", "\n").splitlines()
        assert re.fullmatch(r"[a-z0-9-]+==\S+\s*", lines[0]), lines[0]
        assert lines[1:], f"{lines[0]} has no hash"
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}\s*", line) for line in lines[1:]), lines[0]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_only_its_own_locks_name_torch_and_none_the_place_where_it_was_made(lock: Path) -> None:
    text = lock.read_text()
    assert bool(re.search(r"^torch==", text, re.MULTILINE)) == ("torch-" in lock.stem)
    assert not re.search(r"://|index-url|find-links|file:|(?<!\w)/", text)


def test_the_base_install_is_the_laptop() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[=<>]", line)[0] for line in project["dependencies"]}
    assert names.isdisjoint({"torch", "transformers", "trl", "peft", "datasets", "accelerate"})
    assert project["scripts"]["baton"] == "infra.cli:main"


def test_the_environment_file_stays_out_of_git_and_its_example_in() -> None:
    assert run("git", "check-ignore", "--no-index", "-q", ".env").returncode == 0
    assert run("git", "check-ignore", "--no-index", "-q", ".env.example").returncode == 1
    assert run("git", "ls-files", "--error-unmatch", ".env").returncode != 0


def test_the_environment_example_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_the_entry_point_becomes_the_job() -> None:
    assert (ROOT / "entrypoint.sh").read_text().rstrip().splitlines()[-1] == 'exec python -m job "$@"'


def test_the_entry_point_says_that_no_run_is_named() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = run("./entrypoint.sh", PATH=path)
    assert result.returncode == 2
    assert "BATON_RUN" in result.stderr


def test_the_entry_point_says_that_python_is_missing(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    result = run(bash, ROOT / "entrypoint.sh", PATH=str(tmp_path))
    assert result.returncode == 3
    assert "no python on PATH" in result.stderr


def test_a_signal_before_the_entry_point_has_become_the_job_gives_75(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -TERM $PPID\n")
    python.chmod(0o755)
    assert run("./entrypoint.sh", PATH=f"{tmp_path}:{os.environ['PATH']}").returncode == 75


def entry_point_with_gpu(tmp_path: Path, answer: str | None) -> subprocess.CompletedProcess[str]:
    """The entry point of an image for GPUs, as far as `python -m job`, which is none here."""
    for name, text in {"python": "echo python $*", **({"nvidia-smi": answer} if answer is not None else {})}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    return run("./entrypoint.sh", "recipe.toml", PATH=path, BATON_NEEDS_DRIVER="580", XDG_CACHE_HOME=str(tmp_path))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "no GPU here"),
        ("exit 9", "no GPU here"),
        ("echo 'No devices were found'", "no GPU here"),
        ("echo 570.195.03", "driver 580 or newer, found 570.195.03"),
    ],
)
def test_the_entry_point_for_gpus_wants_one_and_a_driver_that_cuda_13_works_with(
    tmp_path: Path, answer: str | None, says: str
) -> None:
    if answer is None and shutil.which("nvidia-smi", path="/usr/bin:/bin"):
        pytest.skip("this machine has a GPU")
    result = entry_point_with_gpu(tmp_path, answer)
    assert result.returncode == 3
    assert says in result.stderr.splitlines()[-1]


def test_the_entry_point_for_gpus_becomes_the_job_where_the_driver_is_new_enough(tmp_path: Path) -> None:
    result = entry_point_with_gpu(tmp_path, "printf '580.95.05\\n580.95.05\\n'")  # two GPUs
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "python -m job recipe.toml"


def test_the_entry_point_has_less_than_40_lines() -> None:
    assert len((ROOT / "entrypoint.sh").read_text().splitlines()) < 40


@pytest.mark.needs_system("shellcheck")
def test_the_shell_scripts_are_sound() -> None:
    scripts = [
        *(ROOT / "tools").glob("*.sh"),
        *(ROOT / "docker").glob("*.sh"),
        ROOT / "entrypoint.sh",
        ROOT / ".ci" / "run",
    ]
    result = run("shellcheck", *scripts)
    assert result.returncode == 0, result.stdout


def test_setup_refuses_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    result = run("make", "setup", f"PYTHON={old}")
    assert result.returncode != 0
    assert "Python 3.11 or newer" in result.stderr
    assert "Python 3.9.2" in result.stderr


@pytest.mark.parametrize(("ci", "outcome"), [("", "2 skipped"), ("true", "2 errors")])
def test_a_missing_program_or_right_skips_by_name_and_fails_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    assert "mount -t tmpfs tmpfs {}" in conftest
    (tmp_path / "conftest.py").write_text(conftest.replace("mount -t tmpfs tmpfs {}", "false"))
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.needs_system('no-such-program')\ndef test_it(): pass\n"
        "@pytest.mark.needs_system('ls', 'the right to mount')\ndef test_this(): pass\n"
    )
    result = run(sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", tmp_path, cwd=tmp_path, CI=ci)
    assert outcome in result.stdout
    assert "needs no-such-program: sudo make system-deps" in result.stdout
    assert "needs the right to mount: run the tests as root" in result.stdout


def test_a_test_cannot_reach_another_machine() -> None:
    import socket

    with socket.socket() as connection, pytest.raises(PermissionError, match="loopback only"):
        connection.connect(("192.0.2.1", 80))  # an address kept for documentation (RFC 5737)


def test_no_two_test_files_outside_of_packages_have_the_same_name() -> None:
    """pytest imports such files by their bare names: one process cannot have two."""
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if not (file.parent / "__init__.py").exists()]
    names = [file.name for file in files]
    assert sorted(names) == sorted(set(names))
