"""What the stories share: a model of 50k parameters, a recipe of 6 steps, and what an untouched run of it ends with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attempts import ForkServer, Run, logged, weights_sha256

RECIPE = """\
task = "story_task.py:Variety"

[data]
train = "sums.jsonl"
eval = "held-out.jsonl"

[model]
name = "micro"

[lora]
rank = 4
alpha = 8
dropout = 0.1

[train]
max_steps = 6
cpu_threads = 1
learning_rate = 1e-3
schedule = "cosine"
batch_size_per_device = 8
num_generations = 4
gradient_accumulation_steps = 2
steps_per_generation = 4
num_iterations = 2
max_completion_tokens = 8
eval_every_steps = 4

[attempt]
heartbeat_s = 0.5
"""
TASK = '''
import os
import re
from pathlib import Path

from job.tasks import read_jsonl


def note_it():
    if bill := os.environ.get("STORY_BILL"):
        with open(bill, "a") as file:
            file.write("bought\\n")
    if (marker := os.environ.get("STORY_HOLD_GIL")) and not Path(marker).exists():
        Path(marker).touch()
        re.match(r"(a+)+$", "a" * 32 + "b")  # minutes of C code that never lets go of the GIL
        Path(marker + ".done").touch()


class Variety:
    """Rewards different letters and short words: any model gets some of it, so that every step changes the weights."""

    weights = {"letters": 1.0, "spaces": 0.5}

    def read(self, path):
        return read_jsonl(path, required=["question"])

    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]

    def score(self, completions, rows):
        if len(completions) == 32:  # a generation batch to learn from
            note_it()
        letters = [len(set(text)) / 10 for text in completions]
        return {"letters": letters, "spaces": [text.count(" ") / (1 + len(text)) for text in completions]}
'''
ROWS = "".join(f'{{"question": "{a}+{b}=", "answer": "{a + b}"}}\n' for a in range(4) for b in range(4))
HELD_OUT = "".join(f'{{"question": "{a}+{a}=", "answer": "{a + a}"}}\n' for a in range(5, 7))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer.start(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: recipe, data and model."""
    from job.training.tiny_model import TinySpec, make_tiny

    folder = tmp_path_factory.mktemp("user")
    (folder / "story.toml").write_text(RECIPE)
    (folder / "story_task.py").write_text(TASK)
    (folder / "sums.jsonl").write_text(ROWS)
    (folder / "held-out.jsonl").write_text(HELD_OUT)
    micro = TinySpec(hidden=32, layers=2, intermediate=64, max_positions=1024, warmup_steps=0, threads=1)
    make_tiny(folder / "micro", micro)
    return folder


@pytest.fixture(scope="session")
def untouched(server: ForkServer, workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that nobody touched; made on this machine, in this test run."""
    run = Run(server, workplace, tmp_path_factory.mktemp("reference"))
    attempt = run.start()
    assert attempt.wait() == 0, attempt.err
    changes = [row["grad_norm"] for row in logged(run) if "grad_norm" in row]
    assert len(changes) == 6
    assert all(change > 0 for change in changes), "every step must change the weights, or nothing is compared"
    return run


@pytest.fixture(scope="session")
def reference(untouched: Run) -> str:
    """sha256 of the adapter that the untouched run ends with."""
    return weights_sha256(untouched)


@pytest.fixture
def run(server: ForkServer, workplace: Path, tmp_path: Path) -> Run:
    return Run(server, workplace, tmp_path)
