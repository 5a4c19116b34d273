"""The operations that a SavedModel may hold, against what `export` writes: every network, every option of the graph."""

import json
import shutil

import numpy as np
import pytest
from finished import make_films, make_run

from chexpert_hier import recipes
from chexpert_hier.export import saved_model
from chexpert_hier.finished.members import open_model, open_run
from chexpert_hier.finished.trusted import check_saved_model
from chexpert_hier.network import model
from chexpert_hier.network.backbones import BACKBONES

pytestmark = pytest.mark.slow

THREE = {"policy": "u-multiclass", "head": "three-class", "ct_rows": "leaves"}
OPTIONS = {
    "three classes": THREE, "head of hbce": {"head": "hbce"}, "no chain rule": {"product": "off"},
    "centre": {"crop": "centre"}, "whole film": {"crop": "none", "rescaled_size": 224},
    "bilinear": {"resize": "bilinear"}, "area": {"resize": "area"}, "least match": {"least_match": 0.3},
    "smaller view": {"augment": "random_crop:200", "plain_view": "centre_crop:200"},
    "float16": {"precision": "mixed_float16"}, "bfloat16": {"precision": "mixed_bfloat16"},
    "as large as the crop": {"image_size": 224}, "CheXpertNet's sizes": {"rescaled_size": 364, "crop_size": 320},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = make_films(tmp_path_factory.mktemp("operations"))
    return make_run(data.parent / "run", data)


def changed(run, folder, **changes):
    """The run with another recipe and its network, random weights."""
    import keras

    shutil.copytree(run, folder)
    facts = json.loads((folder / "recipe.json").read_text())
    recipe = recipes.change(recipes.from_json(facts["recipe"]), **changes)
    keras.config.set_dtype_policy(recipe.precision)
    try:
        network = model.build_model(recipe.arch, facts["outputs"], "none", recipe.image_size, recipe.built_head, seed=0)
    finally:
        keras.config.set_dtype_policy("float32")
    network.save(folder / "model.keras")
    (folder / "recipe.json").write_text(json.dumps({**facts, "recipe": recipe.to_json()}))
    if recipe.crop == "template" and changes.get("crop_size"):
        from chexpert_hier.films.template import write_template

        write_template(folder / "template.png", np.arange(320 * 320).reshape(320, 320).astype(np.uint8))
    return folder


def exported(members, folder):
    """Export, open as a stranger's, and answer."""
    saved = saved_model.export(members, folder)
    check_saved_model(saved)
    film = np.random.default_rng(0).integers(0, 256, (300, 280), dtype=np.uint8)
    answer = open_model(saved).answer([film])
    assert np.isfinite(answer["probabilities"]).all()


@pytest.mark.parametrize("arch", BACKBONES)
def test_every_network(run, tmp_path, arch):
    folder = changed(run, tmp_path / "run", arch=arch, image_size=max(64, BACKBONES[arch].smallest))
    exported([open_run(folder)], tmp_path / "saved")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_the_graph(run, tmp_path, name):
    exported([open_run(changed(run, tmp_path / "run", **OPTIONS[name]))], tmp_path / "saved")


def test_an_ensemble(run, tmp_path):
    other = changed(run, tmp_path / "other", product="off", head="hbce")
    exported([open_run(run), open_run(other)], tmp_path / "saved")
