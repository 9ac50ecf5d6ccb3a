"""Proves that a run which cannot go on is left as it is, with one clear error: finished, stopped, failed, of a newer
attempt, damaged, or asked for with other data, another model or another recipe; and that what may be accepted is.
"""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attempts import ForkServer, Run
from refusals import everything, own_workplace, refuse

ROW = '{"question": "9+9=", "answer": "18"}\n'


@pytest.fixture(scope="module")
def begun(server: ForkServer, workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was preempted after step 3."""
    run = Run(server, workplace, tmp_path_factory.mktemp("begun"))
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    assert run.durable_step() == 3
    return run


@pytest.fixture
def half(begun: Run, tmp_path: Path) -> Run:
    """A copy of that run and of the user's folder, for one test."""
    shutil.copytree(begun.bucket, tmp_path / "run")
    return own_workplace(replace(begun, folder=tmp_path, settings=[]))


def change(run: Run, name: str, **fields: Any) -> None:
    """Writes other fields into one of the run's JSON objects."""
    (run.bucket / name).write_text(json.dumps(run.json(name) | fields))


def test_a_finished_run_says_so_and_is_left_alone(half: Run) -> None:
    half.finish()
    before = everything(half.bucket)
    for argv in (half.argv(), ["--run", half.uri], [*half.argv(), "--set=train.seed=5"]):
        again = half.server.attempt(argv, cwd=half.workplace, folder=half.folder)
        assert again.wait() == 0
        assert again.err == f"{half.uri} is finished: its result is in {half.uri}/result\n"
    assert everything(half.bucket) == before


def test_a_run_that_was_stopped_waits_for_resume(half: Run) -> None:
    change(half, "control/claims.json", want="stop", reason="the cap of 5 $ is reached")
    refuse(
        half, 3, f"the run {half.uri} is stopped: the cap of 5 $ is reached.", f"baton resume {half.uri} lets it go on."
    )


def test_a_run_that_has_failed_waits_for_resume(half: Run) -> None:
    change(half, "control/claims.json", want="failed", reason="3 failures without a new durable step")
    refuse(
        half,
        3,
        f"the run {half.uri} has failed: 3 failures without a new durable step.",
        f"Mend the cause, then: baton resume {half.uri}",
    )


def test_a_run_of_a_newer_attempt_is_left_to_it(half: Run) -> None:
    claims = half.json("control/claims.json")["attempts"]
    change(half, "control/claims.json", attempts=[*claims, claims[0] | {"number": 7}])
    refuse(
        half,
        4,
        f"attempt 7 of {half.uri} is claimed; this is attempt 1.",
        "Nothing was changed, nothing is to be done: the newer attempt goes on.",
        env={"BATON_ATTEMPT": "1"},
    )


def test_a_run_without_a_good_checkpoint_never_begins_anew(half: Run) -> None:
    kept = half.json("head.json")["kept"]
    for ref in kept:
        path = half.bucket / ref["folder"] / "state.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    bad = "; ".join(f"{ref['folder']}: state.safetensors has other bytes (crc32c)" for ref in kept)
    assert len(kept) == 2
    refuse(
        half,
        3,
        f"no checkpoint of {half.uri} is good: {bad}.",
        "Put the right bytes back (a copy of the bucket, its older object versions), or start another run.",
    )


@pytest.mark.parametrize("name", ["head.json", "control/claims.json", "control/spec/0001.json"])
def test_a_torn_object_of_the_run_is_named(half: Run, name: str) -> None:
    (half.bucket / name).write_text("{")
    refuse(
        half,
        3,
        f"{half.uri}/{name} cannot be read: Invalid JSON: EOF while parsing an object at line 1 column 1.",
        "It is damaged, or another version of baton wrote it: use that one, or mend the file.",
    )


def other_data(run: Run) -> None:
    with (run.workplace / "sums.jsonl").open("a") as file:
        file.write(ROW)


def other_task(run: Run) -> None:
    with (run.workplace / "story_task.py").open("a") as file:
        file.write("# another version\n")


def other_model(run: Run) -> None:
    path = run.workplace / "micro/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("key", "edit"),
    [("data.train", other_data), ("task", other_task), ("model.name", other_model)],
    ids=["data", "task", "model"],
)
def test_a_file_with_other_bytes_is_refused_by_name_unless_it_is_accepted(
    half: Run, key: str, edit: Callable[[Run], None]
) -> None:
    edit(half)
    for argv in (half.argv(), ["--run", half.uri]):
        before = everything(half.bucket)
        refused = half.server.attempt(argv, cwd=half.workplace, folder=half.folder)
        assert refused.wait() == 2, refused.err
        what, fix = refused.err.splitlines()
        assert what.startswith(f"error: {key}: ")
        assert "that the run was started with (sha256 " in what
        assert fix.endswith(f" use another --run, or accept the difference: --allow-changed {key}")
        assert everything(half.bucket) == before
    accept(half, ["--run", half.uri], key)
    old, new = half.json("control/spec/0001.json"), half.json("control/spec/0002.json")
    assert old["recipe"] == new["recipe"]
    pinned = [spec["model"] if key == "model.name" else spec["inputs"][key] for spec in (old, new)]
    assert pinned[0]["sha256"] != pinned[1]["sha256"]


def test_accepting_what_did_not_change_makes_no_revision(half: Run) -> None:
    done = half.server.attempt(
        [*half.argv(), "--allow-changed=data.train", "--allow-changed=model.name", "--allow-changed=train.seed"],
        cwd=half.workplace,
        folder=half.folder,
    )
    assert done.wait() == 0, done.err
    assert [path.name for path in (half.bucket / "control/spec").iterdir()] == ["0001.json"]


def test_another_recipe_is_refused_by_name_unless_it_is_accepted(half: Run) -> None:
    half.settings += ["train.learning_rate=5e-4", "train.seed=3"]
    refuse(
        half,
        2,
        f"the run {half.uri} was started with another recipe: train.seed is 0 in the run, 3 here; "
        "train.learning_rate is 0.001 in the run, 0.0005 here.",
        "Use the run's own values, or another --run; to accept the difference: --allow-changed train.seed "
        "--allow-changed train.learning_rate",
    )
    half.settings.pop()
    accept(half, half.argv(), "train.learning_rate")
    old, new = half.json("control/spec/0001.json"), half.json("control/spec/0002.json")
    assert (old["recipe"]["train"]["learning_rate"], new["recipe"]["train"]["learning_rate"]) == (1e-3, 5e-4)
    assert old["fingerprint"] != new["fingerprint"]


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("lora.rank=8", "lora.rank is 4 in the run, 8 here"),
        ("lora.enabled=false", "lora.enabled is True in the run, False here"),
        ('lora.targets=["q_proj"]', "lora.targets is 'all-linear' in the run, ['q_proj'] here"),
        ("train.beta=0.1", "train.beta is 0.0 in the run, 0.1 here"),
    ],
    ids=["rank", "full", "targets", "reference model"],
)
def test_what_the_checkpoints_do_not_fit_cannot_be_accepted(half: Run, setting: str, what: str) -> None:
    half.settings.append(setting)
    refuse(
        half,
        2,
        f"{what}: the run's checkpoints fit the first only.",
        "Use the run's own value, or another --run.",
        argv=[*half.argv(), "--allow-changed", setting.partition("=")[0]],
    )


def test_another_data_file_is_refused_by_name(half: Run) -> None:
    shutil.copy(half.workplace / "sums.jsonl", half.workplace / "more.jsonl")
    half.settings.append("data.train=more.jsonl")
    refuse(
        half,
        2,
        f"the run {half.uri} was started with another recipe: data.train is 'sums.jsonl' in the run, "
        "'more.jsonl' here.",
        "Use the run's own values, or another --run; to accept the difference: --allow-changed data.train",
    )


def test_the_folder_of_the_model_must_be_there(half: Run) -> None:
    (half.workplace / "micro").rename(half.workplace / "moved")
    refuse(
        half,
        2,
        "model.name: the folder micro that the run was started with is not here.",
        "Put it back, or start the command in the folder that its path is relative to.",
    )


def accept(run: Run, argv: list[str], key: str) -> None:
    """Goes on with that difference, which makes revision 2."""
    done = run.server.attempt([*argv, "--allow-changed", key], cwd=run.workplace, folder=run.folder)
    assert done.wait() == 0, done.err
    assert f"resumed {run.uri} from step 3" in done.err
    assert run.json("control/spec/0002.json")["accepted"] == [key]
    assert run.json("head.json")["status"] == "finished"
