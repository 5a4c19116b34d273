"""JSON values against dataclasses: every kind of type, each way of not fitting, recipes with single fields changed."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from chexpert_hier import recipes, run_folder, schema
from chexpert_hier.errors import InputError


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Outer:
    name: str
    parts: tuple[Inner, ...]
    pair: tuple[int, float] = (0, 0.0)
    limit: int | None = None
    on: bool = False
    tree: str | dict[str, tuple[str, ...]] = ""
    rest: Any = None


def test_values_come_back_as_their_types():
    fields = {"name": "a", "parts": [{"share": 1}], "pair": [1, 2], "limit": 3, "on": True,
              "tree": {"B": ["A"]}, "rest": [1]}
    found = schema.read(Outer, json.loads(json.dumps(fields)), "x")
    assert found == Outer("a", (Inner(1.0),), (1, 2.0), 3, True, {"B": ("A",)}, [1])
    assert isinstance(found.parts[0].share, float)
    assert schema.read(Outer, {"name": "a", "parts": [], "later": 1}, "x", extras=True) == Outer("a", ())


@pytest.mark.parametrize(("change", "message"), [
    ({"name": 1}, "x: name: expected text, received 1"), ({"name": None}, "x: name: expected text"),
    ({"parts": {}}, "x: parts: expected a list"), ({"parts": [3]}, r"x: parts\[0\]: expected an object"),
    ({"parts": [{}]}, r"x: parts\[0\]: the field 'share' is missing"),
    ({"parts": [{"share": True}]}, "share: expected a number, received True"),
    ({"parts": [{"share": float("nan")}]}, "share: expected a number, received nan"),
    ({"parts": [{"share": 10 ** 5000}]}, "share: expected a number, received something very large"),
    ({"pair": [1]}, "x: pair: expected 2 values"), ({"pair": [1.5, 1]}, r"pair\[0\]: expected a whole number"),
    ({"limit": "3"}, "x: limit: expected a whole number"), ({"on": 1}, "x: on: expected true or false"),
    ({"tree": 3}, "x: tree: expected text"), ({"later": 1}, "x: unknown field 'later'"),
    ({"name": "y" * 500, "on": "z" * 500}, "received 'z{56}[.]{3}$")])
def test_what_does_not_fit_is_said(change, message):
    with pytest.raises(InputError, match=message):
        schema.read(Outer, {"name": "a", "parts": [], **change}, "x")
    with pytest.raises(InputError, match="'name' is missing"):
        schema.read(Outer, {"parts": []}, "x")
    with pytest.raises(InputError, match="expected an object"):
        schema.read(Outer, [1], "x")


WRONG = (None, True, -1, 1e30, float("nan"), "", "x", [], {}, [[]], [None], {"a": 1}, 10 ** 400)


def test_every_single_change_of_a_recipe_is_read_or_refused_in_one_line():
    """Every field of a recipe and of its stages removed, and replaced by values of every kind."""
    whole, counts = recipes.PHAM2019.to_json(), {"read": 0, "refused": 0}
    for owner, path in ((whole, ()), (whole["stages"][0], ("stages", 0))):
        for name in owner:
            for wrong in (..., *WRONG):
                fields = json.loads(json.dumps(whole))
                part = fields if not path else fields["stages"][0]
                part.pop(name) if wrong is ... else part.update({name: wrong})
                try:
                    recipes.from_json(fields, "run/recipe.json")
                    counts["read"] += 1
                except InputError as error:
                    counts["refused"] += 1
                    assert "\n" not in str(error) and str(error).startswith("run/recipe.json")
    assert counts["refused"] > 10 * len(whole)
    assert counts["read"] > 0


def test_a_run_is_synthetic_by_its_films_not_by_its_recipe():
    def facts(**data):
        return {"data": {"name": "nih", **data}, "recipe": {"name": "phantom"}}

    assert not run_folder.is_synthetic(facts(synthetic=False)) and run_folder.is_synthetic(facts(synthetic=True))
    assert run_folder.is_synthetic(facts())                           # a run of before: nothing else tells
