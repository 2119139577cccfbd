"""Recipes: file, environment and --set in that order; every mistake named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from rlhi_plugin.errors import ConfigError
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import load_recipe, override_recipe, shipped_recipes


def test_the_shipped_recipes_are_the_promised_ones():
    recipes = shipped_recipes()
    assert {"smoke_cpu", "rewrites_lora", "rewards_lora", "rlhi_llama31_8b", "demo", "demo_small"} <= set(recipes)
    for name, recipe in recipes.items():
        assert recipe.name == name
        assert 20 <= len(recipe.summary) <= 120
        assert "\n" not in recipe.summary
        assert recipe.train.batch_size % recipe.train.micro_batch_size == 0
    paper = recipes["rlhi_llama31_8b"]
    assert paper.model.base == "meta-llama/Llama-3.1-8B-Instruct"
    assert not paper.contrast.enabled


def test_later_sources_win(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nsummary = "-"\n[train]\nepochs = 4.0\nbeta = 0.3\nlora_rank = 4\n')
    environ = {"RLHI_TRAIN__BETA": "0.2", "RLHI_TRAIN__EPOCHS": "3", "RLHI_REGISTRY": "/somewhere", "PATH": "/bin"}
    recipe = load_recipe(str(file), overrides=["train.epochs=1", "model.base=org/some-model"], environ=environ)
    assert (recipe.train.epochs, recipe.train.beta, recipe.train.lora_rank) == (1.0, 0.2, 4)
    assert recipe.model.base == "org/some-model"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epoch=1"], "train.epoch"),
        (["train.epochs=-1"], "train.epochs"),
        (["train.epochs"], "section.key=value"),
        (["name.first=x"], "not a section"),
    ],
)
def test_wrong_overrides_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("smoke_cpu", overrides=overrides, environ={})
    with pytest.raises(ConfigError, match=message):
        override_recipe(load_recipe("smoke_cpu", environ={}).model_dump(mode="json"), overrides)


def test_an_unknown_recipe_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(ConfigError, match="rewrites_lora"):
        load_recipe("smoke_gpu", environ={})
    with pytest.raises(ConfigError, match="Check the path"):
        load_recipe(str(tmp_path / "none.toml"), environ={})
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_recipe(str(tmp_path / "bad.toml"), environ={})


def test_every_option_is_explained():
    sections = {name: field.annotation for name, field in Recipe.model_fields.items()}
    models = {"recipe": Recipe} | {
        name: section for name, section in sections.items() if issubclass(section, BaseModel)
    }
    unexplained = [
        f"{name}.{option}"
        for name, model in models.items()
        for option, field in model.model_fields.items()
        if not field.description and option not in models
    ]
    assert unexplained == []


def test_a_manifest_gives_its_recipe_back():
    recipe = load_recipe("smoke_cpu", environ={})
    assert override_recipe(recipe.model_dump(mode="json"), []) == recipe


def test_a_recipe_may_extend_a_shipped_one(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'extends = "rlhi_llama31_8b"\nname = "mine"\nsummary = "-"\n[train]\nbeta = 0.3\n[users]\nmax_users = 9\n'
    )
    mine, base = load_recipe(str(file), environ={}), shipped_recipes()["rlhi_llama31_8b"]
    assert (mine.name, mine.train.beta, mine.users.max_users) == ("mine", 0.3, 9)
    assert mine.train.model_copy(update={"beta": base.train.beta}) == base.train
    assert mine.reward == base.reward
    for unknown in ('"nobody"', '"../recipe"', "7"):
        file.write_text(f'extends = {unknown}\nname = "mine"\nsummary = "-"\n')
        with pytest.raises(ConfigError, match="no shipped recipe"):
            load_recipe(str(file), environ={})
