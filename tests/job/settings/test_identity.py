"""A run's identity: which settings make it another run, and that plain data and back changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.errors import NeedsPerson
from job.settings import (
    Settings,
    all_keys,
    fingerprint,
    from_plain,
    identity_differences,
    load_environment,
    load_secrets,
    load_settings,
    to_plain,
)
from job.settings.docs import main

ROOT = Path(__file__).parents[3]
OPERATIONAL = {
    "train.log_every_steps",
    "train.sampled_steps",
    "reward.max_none_share",
    "checkpoint.keep_last",
    "checkpoint.keep_every_steps",
    "checkpoint.slots",
    "train.kl_warning",
    "attempt.heartbeat_s",
    "attempt.hang_timeout_s",
    "attempt.machine_usd_per_hour",
    "attempt.notice_s",
    "attempt.flush_margin_s",
}
IDENTITY = {
    "task",
    "data.train", "data.eval", "data.max_rows",
    "model.name", "model.revision", "model.dtype",
    "lora.enabled", "lora.rank", "lora.alpha", "lora.dropout", "lora.targets",
    "train.max_steps", "train.epochs", "train.seed", "train.cpu_threads",
    "train.learning_rate", "train.schedule", "train.warmup_steps",
    "train.adam_beta1", "train.adam_beta2", "train.adam_epsilon", "train.weight_decay", "train.max_grad_norm",
    "train.batch_size_per_device", "train.gradient_accumulation_steps", "train.num_generations",
    "train.steps_per_generation", "train.num_iterations", "train.max_prompt_tokens", "train.max_completion_tokens",
    "train.beta", "train.epsilon", "train.loss_type", "train.scale_rewards",
    "train.temperature", "train.top_p", "train.top_k", "train.shuffle",
    "train.eval_every_steps", "train.sync_ref_model", "train.ref_model_sync_steps", "train.ref_model_mixup_alpha",
    "train.gradient_checkpointing",
    "reward.weights",
}  # fmt: skip


def settings(*overrides: str) -> Settings:
    return load_settings(None, ("data.train=rows.jsonl", *overrides), {}, None).settings


def test_the_settings_are_these_and_each_has_this_kind() -> None:
    assert {name for name, key in all_keys().items() if key.identity} == IDENTITY
    assert {name for name, key in all_keys().items() if not key.identity} == OPERATIONAL


def test_every_setting_says_in_a_sentence_what_it_is() -> None:
    for name, key in all_keys().items():
        assert key.field.description, name
        assert key.field.description.endswith("."), name


def test_the_page_of_the_settings_is_up_to_date() -> None:
    assert main(["--check"]) == 0, "run: python -m job.settings.docs"


def test_plain_data_and_back_is_the_same() -> None:
    before = settings('lora.targets=["b", "a"]', "reward.weights.x=0.5", "train.max_steps=3")
    assert from_plain(json.loads(json.dumps(to_plain(before)))) == before


def test_from_plain_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON__TRAIN__SEED", "9")
    assert from_plain(to_plain(settings())).train.seed == 0


def test_settings_of_another_version_need_a_person() -> None:
    plain: dict[str, Any] = to_plain(settings())
    plain["train"]["entropy_bonus"] = 0.1
    with pytest.raises(NeedsPerson, match=r"train\.entropy_bonus"):
        from_plain(plain)


def test_differences_name_every_setting_with_both_values() -> None:
    old = settings("reward.weights.format=0.1")
    new = settings("train.seed=3", "reward.weights.style=0.2", "checkpoint.keep_last=5")
    assert identity_differences(old, new) == [
        ("train.seed", 0, 3),
        ("reward.weights.format", 0.1, None),
        ("reward.weights.style", None, 0.2),
    ]
    assert identity_differences(old, old) == []


def test_the_fingerprint_is_of_the_identity_alone() -> None:
    assert fingerprint(settings()) == fingerprint(settings("checkpoint.keep_last=5", "attempt.heartbeat_s=1"))
    assert fingerprint(settings()) != fingerprint(settings("train.seed=1"))
    assert fingerprint(settings("reward.weights={a=1, b=2}")) == fingerprint(settings("reward.weights={b=2, a=1}"))


def test_a_whole_number_and_the_same_fraction_are_one_value() -> None:
    assert fingerprint(settings("lora.alpha=32")) == fingerprint(settings("lora.alpha=32.0")) == fingerprint(settings())


def test_secrets_are_no_settings_and_never_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    dotenv = tmp_path / ".env"
    dotenv.write_text("HF_TOKEN=hf_very_secret\nBATON_BUCKET=gs://from-file\nBATON__TRAIN__SEED=1\n")
    secrets = load_secrets(dotenv)
    assert secrets.hf_token is not None
    assert secrets.hf_token.get_secret_value() == "hf_very_secret"
    assert "very" not in f"{secrets!r} {secrets} {secrets.model_dump_json()}"
    assert not any("token" in name and name.startswith("hf") for name in all_keys())


def test_the_environment_goes_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("BATON_BUCKET=gs://from-file\nBATON_RUN=from-file\n")
    monkeypatch.setenv("BATON_BUCKET", "gs://from-environment")
    found = load_environment(dotenv)
    assert (found.bucket, found.run, found.attempt) == ("gs://from-environment", "from-file", None)


@pytest.mark.parametrize("text", ["three", "0", "-1"])
def test_an_attempt_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from job.errors import UsageError

    monkeypatch.setenv("BATON_ATTEMPT", text)
    with pytest.raises(UsageError, match=f"BATON_ATTEMPT is '{text}', not the number of an attempt"):
        load_environment(None)


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_that_ships_is_valid(recipe: Path) -> None:
    assert load_settings(recipe, (), {}, None).settings.data.train
