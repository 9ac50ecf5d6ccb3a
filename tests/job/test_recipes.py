"""Every recipe that ships is one that can be started, and opens with what it costs and how long it takes."""

from pathlib import Path

import pytest

from job.settings import load_settings
from job.tasks import load_task

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_its_weights_are_those_of_its_task(recipe: Path) -> None:
    settings = load_settings(recipe, [], env={}, dotenv=None).settings
    assert load_task(settings.task, settings.reward.weights).weights


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_cost_and_time(recipe: Path) -> None:
    opening = recipe.read_text().partition("\n\n")[0]
    assert "# Cost: " in opening
    assert "Time: " in opening


def test_the_demos_data_is_there() -> None:
    settings = load_settings(ROOT / "recipes/demo.toml", [], env={}, dotenv=None).settings
    task = load_task(settings.task, settings.reward.weights)
    assert settings.data.eval is not None
    assert len(task.read(ROOT / settings.data.train)) == 84
    assert len(task.read(ROOT / settings.data.eval)) == 16
