"""The command line: fast help, one clear line per error with its exit code, data on stdout, and no lost signal."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.cli import SIGNALS
from infra.cli.commands import COMMANDS, load
from infra.cli.run import run
from job.errors import UsageError
from job.run.claims import claim_process
from job.storage import open_bucket

ROOT = Path(__file__).parents[3]
HELP_GOAL_S = 0.5
HEAVY = {"torch", "transformers", "trl", "datasets", "peft", "accelerate"}
BATON = (sys.executable, "-c", "from infra.cli import main; main()")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text('[data]\ntrain = "rows.jsonl"\n[train]\nmax_steps = 3\n')
    return path


def baton(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A whole process, as a person starts it."""
    return subprocess.run(
        [*BATON, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_takes_less_than_half_a_second_and_names_every_command() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = baton("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    assert all(f" {name} " in shown.stdout for name in COMMANDS)
    # Its seconds of CPU are what it takes where nothing else runs; the clock's depend on what else this machine does.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < HELP_GOAL_S


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["config", "--set", "data.train=x"], ["status"]]
)
def test_no_command_of_the_laptop_imports_training_libraries(arguments: list[str]) -> None:
    code = f"import sys; from infra.cli.run import run; run({arguments}); print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.splitlines()[-1].split()) == set()


def test_help_imports_no_command() -> None:
    code = "import sys; from infra.cli.run import run; run(['--help']); print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {f"infra.cli.{name}" for name in COMMANDS} & loaded == set()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_list_can_be_loaded_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(name).help
    assert run([name, "--help"]) == 0
    assert f"baton {name}" in capsys.readouterr().out


def test_without_arguments_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "error: No such command 'trian'. Did you mean 'train'?\n  See `baton --help`.\n"),
        (["status", "--jsn"], "error: No such option: --jsn"),
        (["config", "missing.toml"], "error: There is no recipe missing.toml.\n"),
        (
            ["config", "--set", "train.sede=1"],
            "error: --set: there is no setting train.sede.\n  Did you mean train.seed?",
        ),
        (["status", "a-name"], "error: 'a-name' is a run's name, and no bucket is set.\n"),
        (["status", "s3://bucket/run"], "error: 's3://bucket/run' is not the URI of a run.\n"),
        (["status"], "error: No run is named.\n"),
    ],
)
def test_a_mistake_of_the_user_is_two_short_lines_on_stderr(
    arguments: list[str], said: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said)
    assert shown.err.count("\n") == 2


def test_a_mistake_that_nobody_can_read_ends_with_the_same_code() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-P", "-m", "job", "--nonsense"], stderr=full, check=False)
    assert ended.returncode == 2


def test_a_mistake_shows_its_traceback_when_asked(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATON_DEBUG", "1")
    assert run(["config", "missing.toml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_config_prints_every_value_with_its_origin(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATON__TRAIN__SEED", "5")
    assert run(["config", "recipe.toml", "--set", "train.beta=0.1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["settings"]["train"]["seed"], shown["settings"]["train"]["beta"]) == (5, 0.1)
    assert shown["origins"]["train.max_steps"] == "recipe recipe.toml"
    assert shown["origins"]["train.seed"] == "environment BATON__TRAIN__SEED"
    assert shown["origins"]["train.beta"] == "--set"
    assert shown["origins"]["lora.rank"] == "default"
    assert len(shown["fingerprint"]) == 64

    assert run(["config", "recipe.toml"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train.max_steps", "3", "recipe", "recipe.toml"] in rows
    assert ["train.seed", "5", "environment", "BATON__TRAIN__SEED"] in rows


def test_status_finds_a_run_by_uri_path_or_name(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"file://{recipe.parent}/runs/mine"
    claim_process(open_bucket(uri), host="box", pid=1)
    monkeypatch.setenv("BATON_BUCKET", f"file://{recipe.parent}")
    for name in (uri, "runs/mine", "mine"):
        assert run(["status", name, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["uri"], shown["status"], len(shown["attempts"])) == (uri, "starting", 1)
    monkeypatch.setenv("BATON_RUN", "mine")
    assert run(["status"]) == 0
    shown_text = capsys.readouterr().out
    assert f"{uri}: starting" in shown_text
    assert "claimed, not yet begun" in shown_text


def test_train_becomes_the_agent_with_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: called.append([program, *arguments[1:]]))
    arguments = ["r.toml", "--run", "file:///x", "--set", "a.b=1", "--set", "c.d=--e"]
    arguments += ["--allow-changed", "a.b", "--allow-changed", "c.d"]
    run(["train", *arguments])
    run(["train"])
    assert called == [[sys.executable, "-P", "-m", "job", *arguments], [sys.executable, "-P", "-m", "job"]]


def test_signals_wait_while_train_becomes_the_agent() -> None:
    code = (
        "import os, signal, sys\n"
        "os.execv = lambda *_: print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
        "from infra.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "train"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sorted(SIGNALS))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_that_comes_before_the_agent_has_begun_is_not_lost(number: signal.Signals, recipe: Path) -> None:
    (recipe.parent / "rows.jsonl").write_text('{"question": "1+1=", "answer": "#### 2"}\n')
    code = (
        "import os, signal\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{number:d}])\n"
        f"os.kill(os.getpid(), {number:d})\n"
        "from infra.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "recipe.toml", "--run", "file:///" + str(recipe.parent / "run")],
        cwd=recipe.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 75, done.stderr


@pytest.mark.parametrize("name", ["demo", "local"])
def test_without_the_local_cloud_as_in_the_image_its_commands_say_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [
        module for module in sys.modules if module.startswith(("infra.cli.demo", "infra.cli.local", "infra.demo"))
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "infra.localcloud.state", None)
    with pytest.raises(UsageError, match=f"baton {name} is not in the image"):
        load(name)
