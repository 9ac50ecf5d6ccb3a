"""Model and tokenizer are those that were pinned, from safetensors only, and LoRA begins the same every time.

Downloads are in tests/job/run/test_model_source.py.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from tiny import moment_model, settings
from transformers import LlamaConfig, LlamaForCausalLM

from job.errors import NeedsPerson, UsageError
from job.run.model_source import ModelSource, resolve_model
from job.training.model import load_model, load_tokenizer, lora_config, model_folder, sort_targets


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the model that a test may break."""
    return Path(shutil.copytree(moment_model(), tmp_path / "model"))


def test_the_model_of_a_download_without_safetensors_is_named_by_its_hub_name(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "model.safetensors").unlink()
    monkeypatch.setattr("job.training.model.download_model", lambda source, token: model)
    with pytest.raises(UsageError, match=r"The model acme/base has no safetensors\."):
        model_folder(ModelSource("acme/base", "hub", revision="a" * 40))


def test_a_folder_whose_files_changed_since_the_run_began_is_refused(model: Path) -> None:
    source = resolve_model(str(model))
    assert model_folder(source) == model
    (model / "generation_config.json").write_text("{}")
    with pytest.raises(NeedsPerson, match="is not the one that the run began with"):
        model_folder(source)
    shutil.rmtree(model)
    with pytest.raises(UsageError, match="there is no folder"):
        model_folder(source)


def test_a_tiny_model_other_than_the_runs_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("job.training.model.ensure_tiny", moment_model)
    assert model_folder(ModelSource("tiny", "tiny")) == moment_model()
    with pytest.raises(NeedsPerson, match="is not the one that the run began with"):
        model_folder(ModelSource("tiny", "tiny", sha256="0" * 64))


def test_weights_that_are_torn_or_missing_are_refused_in_one_line(model: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"The model in .* cannot be loaded: .+"):
        load_model(model, settings())
    config = LlamaConfig.from_pretrained(model, num_hidden_layers=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "one-layer")
    shutil.copy(tmp_path / "one-layer" / "model.safetensors", weights)
    with pytest.raises(UsageError, match=r"lacks 9 of its weights, such as model\.layers\.1"):
        load_model(model, settings())


def test_a_model_or_tokenizer_that_brings_code_is_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "code.Own", "AutoConfig": "code.Config"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "code.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_model(model, settings())


def test_a_broken_tokenizer_is_refused_in_one_line(model: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"The tokenizer in .* cannot be loaded: .+"):
        load_tokenizer(model)


@pytest.mark.parametrize(
    ("name", "dtype"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_the_weights_have_the_dtype_of_the_recipe(name: str, dtype: torch.dtype) -> None:
    assert load_model(moment_model(), settings(model={"dtype": name})).dtype == dtype


def test_lora_begins_with_the_same_numbers_for_the_same_seed_only() -> None:
    def adapter(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(99)  # whatever was drawn before must not matter
        recipe = settings(train={"seed": seed})
        model = get_peft_model(load_model(moment_model(), recipe), lora_config(recipe))
        return {name: value for name, value in model.state_dict().items() if "lora_A" in name}

    first, again, other = adapter(1), adapter(1), adapter(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_lora_follows_the_recipe_and_its_targets_are_sorted(tmp_path: Path) -> None:
    recipe = settings(lora={"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["v_proj", "q_proj"]})
    config = lora_config(recipe)
    assert config is not None
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.1)
    model = get_peft_model(load_model(moment_model(), recipe), config)
    sort_targets(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == ["q_proj", "v_proj"]
    assert lora_config(settings(lora={"enabled": False})) is None
