"""Recipes: numbers as in the papers, fields set from text, the deviations table held against the code."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from chexpert_hier import recipes
from chexpert_hier.errors import InputError

DEVIATIONS = Path(__file__).parents[1] / "docs" / "deviations.md"


def as_text(value) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_deviations_table_states_the_defaults_of_the_code():
    found = re.findall(r"`([a-z0-9_.]+) = ([^`]*)`", DEVIATIONS.read_text(encoding="utf-8"))
    assert len(found) > 25
    for name, stated in found:
        place, dot, field = name.rpartition(".")
        owner = {stage.name: stage for stage in recipes.PHAM2019.stages}[place] if dot else recipes.PHAM2019
        value = getattr(owner, field)
        same = float(stated) == value if isinstance(value, float) else as_text(value) == stated.strip()
        assert same, f"docs/deviations.md says {name} = {stated}, the recipe says {value!r}"


def test_without_conditional_training_only_the_first_stage_is_trained_and_sees_all_rows():
    plan = replace(recipes.PHAM2019, policy="u-ones").plan()
    assert [(stage.rows, stage.layers, stage.epochs, stage.learning_rate) for stage in plan] == [
        ("all", "all", 5, 1e-4)]


def test_conditional_training_freezes_all_but_the_head_in_stage_two():
    assert [(stage.rows, stage.layers) for stage in recipes.PHAM2019.plan()] == [
        ("conditional", "all"), ("all", "head")]


def test_chens_reading_finetunes_the_whole_network_on_the_products():
    second = replace(recipes.PHAM2019, ct_rows="chen").plan()[1]
    assert (second.layers, second.loss) == ("all", "product_bce")


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_survives_json(name):
    assert recipes.from_json(recipes.RECIPES[name].to_json()) == recipes.RECIPES[name]


def test_fields_are_set_from_text():
    recipe = recipes.change(recipes.PHAM2019, "closure", "true")
    recipe = recipes.change(recipe, "lsr_ones", "0.6,0.9")
    recipe = recipes.change(recipe, "stage2.learning_rate", "0.01")
    recipe = recipes.change(recipe, "stages.epochs", "2")
    assert recipe.closure is True and recipe.lsr_ones == (0.6, 0.9)
    assert [stage.learning_rate for stage in recipe.stages] == [1e-4, 0.01]
    assert [stage.epochs for stage in recipe.stages] == [2, 2]


@pytest.mark.parametrize(("name", "value", "hint"), [
    ("no_such_field", "1", "image_size"), ("image_size", "many", "int"), ("closure", "perhaps", "true"),
    ("stage3.epochs", "1", "stage2"), ("ct_rows", "some", "union"), ("policy", "u-maybe", "u-ones"),
    ("stage1.epochs", "0", "1 or more"), ("crop_size", "300", "rescaled_size")])
def test_a_wrong_field_or_value_is_one_line_that_says_what_is_valid(name, value, hint):
    with pytest.raises(InputError, match=re.escape(hint)) as error:
        recipes.change(recipes.PHAM2019, name, value)
    assert "\n" not in str(error.value)
