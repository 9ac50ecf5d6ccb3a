"""What the tests of this folder share: a model that is made in a moment, and settings around it."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from job.settings import Settings, from_plain
from job.training.tiny_model import TinySpec, make_tiny

MOMENT = TinySpec(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64, warmup_steps=3, batch=8)


@cache
def moment_model() -> Path:
    """A folder with a model of 30,000 parameters that knows nothing; made once per process, not to be changed."""
    folder = Path(mkdtemp(prefix="moment-"))
    make_tiny(folder, MOMENT)
    return folder


def settings(**tables: Any) -> Settings:
    """A recipe from keyword tables: settings(train={"seed": 1})."""
    return from_plain({"data": {"train": "x.jsonl"}, **tables})
