"""The user's folder of the stories: a model of 50k parameters, a recipe of 6 steps, a task and its data."""

from pathlib import Path

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


def make_workplace(folder: Path) -> None:
    """Fills a user's folder: recipe, task, data and model."""
    from job.training.tiny_model import TinySpec, make_tiny  # imports torch

    (folder / "story.toml").write_text(RECIPE)
    (folder / "story_task.py").write_text(TASK)
    (folder / "sums.jsonl").write_text(ROWS)
    (folder / "held-out.jsonl").write_text(HELD_OUT)
    micro = TinySpec(hidden=32, layers=2, intermediate=64, max_positions=1024, warmup_steps=0, threads=1)
    make_tiny(folder / "micro", micro)
