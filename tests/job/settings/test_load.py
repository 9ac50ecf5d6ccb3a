"""Settings: every source counts in its order, every value knows where it is from, and what is wrong gets one line."""

from pathlib import Path

import pytest

from job.errors import UsageError
from job.settings import Resolved, load_settings

RECIPE = """
[data]
train = "rows.jsonl"

[lora]
targets = ["q_proj", "v_proj"]

[train]
max_steps = 10
learning_rate = 1e-3

[reward.weights]
correctness = 0.9
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def load(recipe: Path | None, *overrides: str, dotenv: str = "", **env: str) -> Resolved:
    """Resolves with nothing of this machine's environment."""
    file = None
    if dotenv:
        assert recipe is not None
        file = recipe.parent / ".env"
        file.write_text(dotenv)
    return load_settings(recipe, overrides, env, file)


def refused(recipe: Path | None, *overrides: str, dotenv: str = "", **env: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(recipe, *overrides, dotenv=dotenv, **env)
    assert "\n" not in caught.value.what
    assert caught.value.fix
    return caught.value


def test_set_beats_environment_beats_dotenv_beats_recipe_beats_default(recipe: Path) -> None:
    recipe.write_text(RECIPE + "[checkpoint]\nkeep_last = 3\n")
    sources: dict[str, str] = {"BATON__CHECKPOINT__KEEP_LAST": "5"}
    at = "checkpoint.keep_last"

    default = load(recipe, dotenv="", **{})
    assert (default.settings.checkpoint.keep_last, default.origins[at]) == (3, f"recipe {recipe}")
    below = load(recipe, dotenv="BATON__CHECKPOINT__KEEP_LAST=4\n")
    assert (below.settings.checkpoint.keep_last, below.origins[at]) == (4, ".env BATON__CHECKPOINT__KEEP_LAST")
    env = load(recipe, dotenv="BATON__CHECKPOINT__KEEP_LAST=4\n", **sources)
    assert (env.settings.checkpoint.keep_last, env.origins[at]) == (5, "environment BATON__CHECKPOINT__KEEP_LAST")
    last = load(recipe, "checkpoint.keep_last=6", dotenv="BATON__CHECKPOINT__KEEP_LAST=4\n", **sources)
    assert (last.settings.checkpoint.keep_last, last.origins[at]) == (6, "--set")
    assert default.origins["train.seed"] == "default"
    assert set(default.origins.values()) == {f"recipe {recipe}", "default"}


def test_an_empty_variable_is_not_set(recipe: Path) -> None:
    assert load(recipe, BATON__TRAIN__SEED="").origins["train.seed"] == "default"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.seed=7", 7),
        ("train.learning_rate=2e-4", 2e-4),
        ("train.shuffle=false", False),
        ("train.max_steps=none", None),
        ("train.loss_type=grpo", "grpo"),
        ("checkpoint.slots=2", 2),
        ("lora.targets=all-linear", "all-linear"),
        ('lora.targets=["k_proj"]', ("k_proj",)),
        ("model.revision=0123456", "0123456"),
        ("model.name=./a=b", "./a=b"),
        ('reward.weights={"a": 1.0}', {"a": 1.0}),
        ("reward.weights={a = 1}", {"a": 1.0}),
        ("reward.weights={}", {}),
        ("reward.weights.format=0.1", {"correctness": 0.9, "format": 0.1}),
    ],
)
def test_text_becomes_the_type_of_its_setting(recipe: Path, override: str, expected: object) -> None:
    resolved = load(recipe, override)
    table, _, name = override.partition("=")[0].partition(".")
    value = getattr(getattr(resolved.settings, table), name.partition(".")[0])
    assert value == expected
    assert type(value) is type(expected)


def test_a_part_of_a_table_keeps_its_own_origin(recipe: Path) -> None:
    origins = load(recipe, "reward.weights.format=0.1").origins
    assert origins["reward.weights.correctness"] == f"recipe {recipe}"
    assert origins["reward.weights.format"] == "--set"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.learning_rat", "train.learning_rate"),
        ("train.num_generation", "train.num_generations"),
        ("seed", "train.seed"),
        ("lora.r", "lora.rank"),
        ("training.max_steps", "train.max_steps"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(recipe: Path, key: str, meant: str) -> None:
    error = refused(recipe, f"{key}=1")
    assert error.what == f"--set: there is no setting {key}."
    assert error.fix == f"Did you mean {meant}?"


def test_an_unknown_key_says_where_it_stands(recipe: Path) -> None:
    assert refused(recipe, BATON__TRAIN__SEDE="1").what == (
        "environment BATON__TRAIN__SEDE: there is no setting train.sede."
    )
    assert refused(recipe, dotenv="BATON__TRAIN__SEDE=1\n").what == (
        ".env BATON__TRAIN__SEDE: there is no setting train.sede."
    )
    recipe.write_text(RECIPE.replace("max_steps", "max_step"))
    error = refused(recipe)
    assert error.what == f"recipe {recipe}: there is no setting train.max_step."
    assert error.fix == "Did you mean train.max_steps?"
    recipe.write_text(RECIPE + "[trian]\nseed = 1\n")
    assert refused(recipe).fix == "Did you mean train.seed?"


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("train.seed=-1", "train.seed = -1 is refused: it should be greater than or equal to 0."),
        ("train.seed=1.5", "train.seed = 1.5 is refused: it should be a valid integer."),
        ("train.learning_rate=0", "train.learning_rate = 0.0 is refused: it should be greater than 0."),
        ("train.beta=nan", "train.beta = NaN is refused: it should be a finite number."),
        ("train.top_p=1.1", "train.top_p = 1.1 is refused: it should be less than or equal to 1."),
        ("train.shuffle=maybe", 'train.shuffle = "maybe" is refused: it should be a valid boolean'),
        ("checkpoint.keep_last=1", "checkpoint.keep_last = 1 is refused: it should be greater than or equal to 2."),
        ("checkpoint.slots=4", "checkpoint.slots = 4 is refused: it should be 2 or 3."),
        ("train.loss_type=ppo", "it should be 'dapo', 'grpo', 'bnpo' or 'dr_grpo'."),
        ("lora.targets=[]", "a list should have at least 1 item."),
        ("reward.weights.a=x", 'reward.weights.a = "x" is refused: it should be a valid number'),
        ("train=1", "train is a table of settings, not a value."),
        ("train.max_steps=[", "which is neither a TOML list nor a TOML table."),
    ],
)
def test_a_value_out_of_bounds_says_what_where_and_why(recipe: Path, override: str, what: str) -> None:
    error = refused(recipe, override)
    assert error.what.startswith("--set: ")
    assert what in error.what


def test_a_recipe_is_read_strictly(recipe: Path) -> None:
    recipe.write_text(RECIPE + '[checkpoint]\nkeep_last = "3"\n')
    assert refused(recipe).what == (
        f'recipe {recipe}: checkpoint.keep_last = "3" is refused: it should be a valid integer.'
    )
    recipe.write_text(RECIPE.replace("max_steps = 10", "max_steps = true"))
    assert "train.max_steps = true is refused" in refused(recipe).what


def test_several_bad_values_are_counted(recipe: Path) -> None:
    assert "(1 more values are refused.)" in refused(recipe, "train.seed=-1", "train.beta=-1").fix


def test_what_is_required_is_asked_for(tmp_path: Path) -> None:
    assert refused(None).what == "data.train is not set."


@pytest.mark.parametrize("override", ["train.seed", "=3", "train.seed 3"])
def test_an_override_that_is_none_is_refused(recipe: Path, override: str) -> None:
    assert refused(recipe, override).what == f"--set {override}: that is not KEY=VALUE."


def test_a_missing_or_broken_recipe_is_named(recipe: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "no.toml").what == f"There is no recipe {tmp_path / 'no.toml'}."
    recipe.write_text("[train\nseed = 1\n")
    assert refused(recipe).what.startswith(f"The recipe {recipe} is not TOML: ")
    assert "line 1" in refused(recipe).what
    recipe.write_bytes(b"task = '\xff'\n")
    assert refused(recipe).what.startswith(f"The recipe {recipe} is not TOML: ")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


def test_batches_that_hold_no_whole_groups_are_refused_before_trl_does(recipe: Path) -> None:
    assert refused(recipe, "train.num_generations=5").what == (
        "train.batch_size_per_device x train.gradient_accumulation_steps = 8 x 1 = 8 "
        "is not a multiple of train.num_generations = 5."
    )
    error = refused(
        recipe, "train.gradient_accumulation_steps=2", "train.steps_per_generation=3", "train.batch_size_per_device=4"
    )
    assert "train.batch_size_per_device x train.steps_per_generation = 4 x 3 = 12" in error.what
    assert load(recipe, "train.batch_size_per_device=2", "train.gradient_accumulation_steps=4").settings


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["train.sync_ref_model=true"], "train.beta = 0"),
        (["train.sync_ref_model=true", "train.beta=0.1"], "full fine-tuning"),
        (["train.warmup_steps=2"], "no effect"),
        (["train.warmup_steps=10", "train.schedule=linear"], "is not below train.max_steps = 10"),
        (["train.eval_every_steps=5"], "nothing to evaluate on"),
        (["attempt.hang_timeout_s=5"], "is not longer than attempt.heartbeat_s = 10"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(recipe: Path, overrides: list[str], what: str) -> None:
    assert what in refused(recipe, *overrides).what


def test_settings_that_fit_together_are_taken(recipe: Path) -> None:
    load(recipe, "train.sync_ref_model=true", "train.beta=0.1", "lora.enabled=false")
    load(recipe, "train.warmup_steps=9", "train.schedule=linear")
    load(recipe, "train.eval_every_steps=5", "data.eval=held-out.jsonl")
