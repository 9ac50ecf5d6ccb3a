"""The tiny model is the same bytes whoever makes it, takes any question, and is made once however many ask for it."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import MOMENT, moment_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.errors import NeedsPerson
from job.run.model_source import check_model_folder
from job.tasks import load_task
from job.tasks.math_qa import has_format
from job.training import tiny_model
from job.training.tiny_model import HASHES, TinySpec, cache_root, ensure_tiny, is_whole, make_tiny, sum_problems

DATA = Path(__file__).parents[3] / "data"
MAKE = """
import sys
from pathlib import Path
from tiny import MOMENT
from job.training.tiny_model import make_tiny
make_tiny(Path(sys.argv[1]), MOMENT)
"""


def test_another_process_with_another_hash_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", MAKE, str(tmp_path)], env=env, check=True, timeout=120)
    assert (tmp_path / HASHES).read_text() == (moment_model() / HASHES).read_text()
    assert is_whole(tmp_path)


def test_making_it_leaves_random_states_and_threads_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    make_tiny(tmp_path, replace(MOMENT, warmup_steps=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]


def test_warming_up_changes_the_weights(tmp_path: Path) -> None:
    make_tiny(tmp_path, replace(MOMENT, warmup_steps=0))
    assert (tmp_path / "model.safetensors").read_bytes() != (moment_model() / "model.safetensors").read_bytes()


def test_it_is_a_model_folder_that_takes_long_questions() -> None:
    check_model_folder(moment_model())
    model = AutoModelForCausalLM.from_pretrained(moment_model())
    assert model.config.max_position_embeddings == TinySpec().max_positions >= 1024
    with torch.no_grad():
        logits = model(torch.arange(1024).remainder(256).unsqueeze(0)).logits
    assert logits.shape == (1, 1024, 264)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("text", ["3+5=", "Zoë's 😀\n\t 12,345.00 $", "你好", "<answer> a  b </answer>", "\x00\x7f"])
def test_any_text_passes_through_the_tokenizer_unchanged(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(moment_model())
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_prompt_is_short_and_a_good_answer_keeps_its_tags() -> None:
    tokenizer = AutoTokenizer.from_pretrained(moment_model())
    prompt = load_task("math_qa", {}).prompt({"question": "3+5="})
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer.decode(ids) == "<user>3+5=<bot>"
    assert len(ids) == 6
    answer = tokenizer("<reasoning>9+8=17</reasoning><answer>17</answer><eos>").input_ids
    assert len(answer) == 13
    assert has_format(tokenizer.decode(answer, skip_special_tokens=True))


def test_the_demo_files_hold_the_sums_that_it_knows_and_those_it_does_not() -> None:
    task = load_task("math_qa", {})
    for name, problems in zip(("train", "eval"), sum_problems(), strict=True):
        rows = task.read(DATA / f"sums-{name}.jsonl")
        assert rows == [{"question": f"{a}+{b}=", "answer": str(a + b)} for a, b in problems]
    assert len(set(sum_problems()[0]) | set(sum_problems()[1])) == 100


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BATON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_made_once_and_again_when_its_bytes_are_wrong(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = ensure_tiny(MOMENT)
    said = capfd.readouterr().err
    assert "Making the tiny model" in said
    assert "is made (" in said
    assert folder.parent == cache
    made_at_ns = (folder / "model.safetensors").stat().st_mtime_ns
    assert ensure_tiny(MOMENT) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made_at_ns
    assert "Making" not in capfd.readouterr().err
    (folder / "config.json").write_text("{")
    assert is_whole(ensure_tiny(MOMENT))
    assert sorted(path.name for path in cache.iterdir()) == sorted([folder.name, f"{folder.name}.lock"])


def test_another_spec_is_another_folder(cache: Path) -> None:
    assert ensure_tiny(MOMENT) != ensure_tiny(replace(MOMENT, seed=1))


def test_several_makers_at_once_make_one(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Threads stand for processes: each opens the lock file by itself, and flock is held by the open file."""
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(ensure_tiny, [MOMENT] * 3))
    assert len(folders) == 1
    assert is_whole(folders.pop())
    assert capfd.readouterr().err.count("Making the tiny model") == 1


def test_a_maker_that_dies_leaves_nothing_that_is_taken_for_a_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(folder: Path, spec: TinySpec) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiny_model, "make_tiny", dies)
        with pytest.raises(KeyboardInterrupt):
            ensure_tiny(MOMENT)
    assert is_whole(ensure_tiny(MOMENT))


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BATON_CACHE", str(tmp_path / "file"))
    with pytest.raises(NeedsPerson, match="BATON_CACHE"):
        ensure_tiny(MOMENT)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATON_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/baton")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache/baton"
