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


def stated() -> list[tuple[str, str, str]]:
    """(recipe, field, value) of every entry with an equals sign; a section's heading names its recipe."""
    sections = re.split(r"^## Recipe `([^`]+)`$", DEVIATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(recipe, *entry) for recipe, text in zip(sections[1::2], sections[2::2])
            for entry in re.findall(r"`([a-z0-9_.]+) = ([^`]*)`", text)]


def test_every_recipe_but_the_scaled_down_one_has_its_section():
    assert {recipe for recipe, _, _ in stated()} == set(recipes.RECIPES) - {"phantom"}
    assert len(stated()) > 55


@pytest.mark.parametrize(("recipe", "name", "value"), stated())
def test_the_deviations_tables_state_the_defaults_of_the_code(recipe, name, value):
    recipe = recipes.RECIPES[recipe]
    place, dot, field = name.rpartition(".")
    owner = {stage.name: stage for stage in recipe.stages}[place] if dot else recipe
    ours = getattr(owner, field)
    same = float(value) == ours if isinstance(ours, float) else as_text(ours) == value.strip()
    assert same, f"docs/deviations.md says {name} = {value}, the recipe says {ours!r}"


def cited() -> list[tuple[str, str]]:
    """(file, row) of every row of the deviations tables that a comment or docstring names."""
    found = []
    for folder in ("chexpert_hier", "experiments", "tests"):
        for path in sorted((DEVIATIONS.parents[1] / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for rows in re.findall(r"deviations ((?:[A-Z]\d+(?:, |-| and )?)+)", text):
                found += [(path.name, row) for row in re.findall(r"[A-Z]\d+", rows)]
            if path.name == "papers.py":
                found += [(path.name, row) for row in re.findall(r"#.*[( ]([A-Z]\d{1,2})\b", text)]
    return found


def test_every_row_that_the_code_cites_is_in_the_tables_and_each_is_there_once():
    rows = re.findall(r"^\| ([A-Z]\d+) \|", DEVIATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) == len(set(rows)) > 60
    assert len(cited()) > 30 and not [pair for pair in cited() if pair[1] not in rows]


def test_three_classes_bring_their_own_head_and_loss_to_every_recipe():
    recipe = replace(recipes.PHAM2019, policy="u-multiclass+ct")
    assert recipe.built_head == "three-class"
    assert [stage.loss for stage in recipe.plan()] == ["three_class+unweighted"] * 2
    assert [stage.loss for stage in recipes.CHEXPERTNET.plan()] == ["three_class"]
    assert recipes.PHAM2019.built_head == "dense"


@pytest.mark.parametrize(("recipe", "changes", "hint"), [
    ("chexpertnet", {"policy": "u-ones"}, "u-multiclass"), ("hbce", {"policy": "u-multiclass"}, "head"),
    ("pham2019", {"policy": "u-multiclass+ct", "ct_rows": "chen"}, "chen"),
    ("chexpertnet", {"fair_frontal": True}, "frontal"), ("chexnet", {"split": "given"}, "official"),
    ("chexnet", {"judged": "train"}, "test")])
def test_what_does_not_go_together_is_one_line(recipe, changes, hint):
    with pytest.raises(InputError, match=hint) as error:
        replace(recipes.RECIPES[recipe], **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [("ct_rows=chen",), ("ct_rows=any-parent",), ("stage2.fresh_head=true",),
                                     ("stage2.layers=all",)])
def test_refitting_only_the_parents_needs_a_head_that_stage_one_has_learned_the_rest_of(changes):
    recipe = recipes.change(recipes.PHAM2019, "stage2.labels=parents", "stage2.cells=conditional")
    assert (recipe.stages[1].labels, recipe.stages[1].cells) == ("parents", "conditional")
    with pytest.raises(InputError, match=r"stage2\.labels=parents"):
        recipes.change(recipe, *changes)


def test_the_companions_plans():
    plans = {name: recipes.RECIPES[name].plan() for name in ("chexnet", "chexnet-pneumonia", "chexpertnet", "hbce")}
    assert {name: len(plan) for name, plan in plans.items()} == dict.fromkeys(plans, 1)
    assert [plan[0].loss for plan in plans.values()] == [
        "bce_sum", "weighted_bce", "three_class", "hbce_literal+data-driven"]
    assert [(plan[0].batch_size, plan[0].learning_rate) for plan in plans.values()] == [
        (16, 1e-3), (16, 1e-3), (16, 1e-4), (16, 1e-4)]
    assert not any(recipes.RECIPES[name].chain for name in plans)
    assert recipes.HBCE.outputs[14:] == ("Uncertain", "Abnormal", "Cardiac", "Fluid Accumulation",
                                         "Missing Lung Tissue", "Opacity", "Other")


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
    recipe = recipes.change(recipes.PHAM2019, "closure=true", "lsr_ones=0.6,0.9", "stage2.learning_rate=0.01",
                            "stages.epochs=3", "stage2.epochs=2", image_size=320, policy=None)
    assert recipe.image_size == 320 and recipe.policy == recipes.PHAM2019.policy
    assert recipe.closure is True and recipe.lsr_ones == (0.6, 0.9)
    assert [stage.learning_rate for stage in recipe.stages] == [1e-4, 0.01]
    assert [stage.epochs for stage in recipe.stages] == [3, 2]


def test_only_what_comes_out_of_all_settings_must_be_sound():
    recipe = recipes.change(recipes.PHAM2019, "rescaled_size=73", "crop_size=64")
    assert (recipe.rescaled_size, recipe.crop_size) == (73, 64)
    with pytest.raises(InputError, match="expected FIELD=VALUE"):
        recipes.change(recipes.PHAM2019, "rescaled_size")


@pytest.mark.parametrize(("name", "value", "hint"), [
    ("no_such_field", "1", "image_size"), ("image_size", "many", "int"), ("closure", "perhaps", "true"),
    ("stage3.epochs", "1", "stage2"), ("ct_rows", "some", "leaves, union"),
    ("stage2.cells", "some", "conditional"), ("policy", "u-maybe", "u-ones"),
    ("stage1.epochs", "0", "1 or more"), ("crop_size", "300", "rescaled_size")])
def test_a_wrong_field_or_value_is_one_line_that_says_what_is_valid(name, value, hint):
    with pytest.raises(InputError, match=re.escape(hint)) as error:
        recipes.change(recipes.PHAM2019, f"{name}={value}")
    assert "\n" not in str(error.value)
