"""Backbones and where their weights come from: Keras' cache is read and never harmed, files fit or are told."""

import dataclasses
import hashlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from chexpert_hier import recipes, run, settings
from chexpert_hier.errors import InputError
from chexpert_hier.network import backbones, weights
from chexpert_hier.network.backbones import BACKBONES
from chexpert_hier.network.model import build_model

PRETRAINED = [name for name, row in BACKBONES.items() if row.weights]


def write_cache_file(path, model, seed=0):
    """Weights as keras.applications' .h5 files hold them: names of all layers, weights in groups, trained first."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            variables = layer.trainable_weights + layer.non_trainable_weights
            names = [f"{layer.name}/{v.name}:0".encode() for v in variables]
            group.attrs["weight_names"] = names
            for name, variable in zip(names, variables):
                group[name.decode()] = rng.uniform(0.1, 0.5, variable.shape).astype("float32")


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


@pytest.fixture
def no_building(monkeypatch):
    def build(image_size):
        raise AssertionError("a network was built before its weights were there")

    monkeypatch.setattr(backbones, "BACKBONES",
                        {name: dataclasses.replace(row, build=build) for name, row in BACKBONES.items()})


def weights_of(model):
    return [keras.ops.convert_to_numpy(w) for w in model.weights]


def assert_same_weights(model, other):
    for a, b in zip(weights_of(model), weights_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_and_places_of_the_files_are_those_of_keras(keras_home):
    sources = [path.read_text() for path in (Path(keras.__file__).parent / "src" / "applications").glob("*.py")]
    for name in PRETRAINED:
        file = BACKBONES[name].weights
        [source] = [text for text in sources if file.md5 in text]
        joined = source.replace('"\n                "', "")  # one name is written in two pieces
        assert file.name in joined or file.url.rsplit("/", 1)[1] in joined, name
        assert file.path == keras_home / "models" / file.name


def test_absent_weights_that_cannot_be_fetched_are_told_in_one_line(keras_home, no_building, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    for name in PRETRAINED:
        file = BACKBONES[name].weights
        with pytest.raises(InputError) as told:
            build_model(name, ("Edema",), "imagenet")
        line = str(told.value)
        assert "\n" not in line and str(file.path) in line and file.url in line and "Name or service" in line
    assert not [path for path in keras_home.rglob("*") if path.is_file()]


def test_a_download_appears_whole(keras_home, monkeypatch):
    content = b"weights"
    file = backbones.WeightsFile("w.h5", "https://example.org/w.h5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(backbones, "BACKBONES", {"tiny": dataclasses.replace(BACKBONES["tiny"], weights=file)})
    seen = []

    def fetch(name, origin, cache_dir, cache_subdir, file_hash):
        seen.append((origin, file_hash, file.path.exists()))
        path = f"{cache_dir}/{name}"
        with open(path, "wb") as handle:
            handle.write(content)
        return path

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    assert weights.find_weights("tiny", "imagenet") == file.path
    assert seen == [(file.url, file.md5, False)]
    assert [p.name for p in (keras_home / "models").iterdir()] == ["w.h5"] and file.path.read_bytes() == content
    weights.find_weights("tiny", "imagenet")
    assert len(seen) == 1  # found the second time


def test_a_file_of_ones_own_in_the_cache_is_used_and_kept(keras_home, monkeypatch, caplog):
    monkeypatch.setattr(keras.utils, "get_file", lambda *a, **k: pytest.fail("Keras was asked to touch the cache"))
    path = BACKBONES["densenet121"].weights.path
    write_cache_file(path, BACKBONES["densenet121"].build(64))
    before = path.read_bytes()
    model = build_model("densenet121", ("Edema",), "imagenet", 64)
    oracle = BACKBONES["densenet121"].build(64)
    oracle.load_weights(path)  # Keras' own reader
    assert_same_weights(keras.Model(model.input, model.get_layer("relu").output), oracle)
    assert path.read_bytes() == before and "other md5" in caplog.text

    path.write_bytes(before[:len(before) // 2])  # cut short
    with pytest.raises(InputError, match="densenet121") as told:
        build_model("densenet121", ("Edema",), "imagenet", 64)
    assert "\n" not in str(told.value) and path.stat().st_size == len(before) // 2


@pytest.mark.parametrize("kind", ["keras", "weights.h5", "h5"])
@pytest.mark.parametrize("whole", [True, False])
def test_backbone_weights_from_keras_files(tmp_path, kind, whole):
    source = build_model("tiny", ("Edema", "Fracture"), image_size=32, seed=1)
    if not whole:
        source = keras.Model(source.input, source.get_layer("conv4_relu").output)
    path = tmp_path / f"w.{kind}"
    if kind == "weights.h5":
        source.save_weights(path)
    elif kind == "h5":
        write_cache_file(path, source)
        source.load_weights(path)
    else:
        source.save(path)
    backbone = BACKBONES["tiny"].build(32)
    weights.load_weights(backbone, path, "tiny")
    for ours, theirs in zip(weights_of(backbone), weights_of(source)):
        np.testing.assert_array_equal(ours, theirs)


def test_older_whole_models_in_h5_are_read(tmp_path):
    source = build_model("tiny", ("Edema",), image_size=32, seed=1)
    write_cache_file(tmp_path / "flat.h5", source)
    with h5py.File(tmp_path / "flat.h5") as flat, h5py.File(tmp_path / "whole.h5", "w") as file:
        group = file.create_group("model_weights")  # as model.save("whole.h5") lays it out, with long lists in pieces
        names = [str(layer.name) for layer in source.layers]
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:3], names[3:]
        for name in names:
            flat.copy(name, group)
    source.load_weights(tmp_path / "flat.h5")
    backbone = BACKBONES["tiny"].build(32)
    weights.load_weights(backbone, tmp_path / "whole.h5", "tiny")
    for ours, theirs in zip(weights_of(backbone), weights_of(source)):
        np.testing.assert_array_equal(ours, theirs)


def test_files_that_do_not_fit_are_told(tmp_path):
    backbone = BACKBONES["tiny"].build(32)
    before = weights_of(backbone)
    wide = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(17, 3, use_bias=False)])
    wide.save(tmp_path / "wide.keras")
    write_cache_file(tmp_path / "wide.h5", wide)
    wide.save_weights(tmp_path / "wide.weights.h5")
    (tmp_path / "text.h5").write_text("not hdf5")
    (tmp_path / "text.keras").write_text("not a zip")
    (tmp_path / "text.ckpt").write_text("")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError) as told:
            weights.load_weights(backbone, path, "tiny")
        assert path.name in str(told.value) and "\n" not in str(told.value)
    for old, new in zip(before, weights_of(backbone)):
        np.testing.assert_array_equal(old, new)


def test_memory_of_tiny_by_hand():
    model = BACKBONES["tiny"].build(32)
    cells = 16 * 16 * 16 + 8 * 8 * 32 + 4 * 4 * 64 + 2 * 2 * 128  # per layer of a block, of which there are three
    trained = sum(9 * i * o + 2 * o for i, o in ((3, 16), (16, 32), (32, 64), (64, 128)))
    statistics = 2 * (16 + 32 + 64 + 128)
    assert backbones.memory_per_film(model) == {
        "activations": 4 * 3 * cells, "weights": 4 * (trained + statistics), "gradients": 4 * trained,
        "optimizer": 8 * trained}


QUICK = ("tiny", "densenet121", "xception")  # the others take half a minute to build


def every_row(*quick: str):
    return pytest.mark.parametrize("name", [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in BACKBONES])


@every_row(*QUICK)
def test_a_row_is_all_that_a_network_needs(name):
    """Built at its smallest size: maps of at least one cell, a model on them that answers, nothing smaller."""
    row = BACKBONES[name]
    assert row.name == name and row.native in ("torch", "tf") and row.smallest <= row.image_size
    backbone = row.build(row.smallest)
    assert backbone.input.shape[1:] == (row.smallest, row.smallest, 3) and len(backbone.output.shape) == 4
    assert min(backbone.output.shape[1:]) >= 1 and backbones.memory_per_film(backbone)["activations"] > 0
    network = build_model(name, ("Edema", "Fracture"), image_size=row.smallest, seed=0)
    p = keras.ops.convert_to_numpy(network(np.zeros((1, row.smallest, row.smallest, 3), "float32")))
    assert p.shape == (1, 2) and (0 < p).all() and (p < 1).all()
    with pytest.raises(InputError, match=f"{name} takes {row.smallest} or more"):
        build_model(name, ("Edema",), image_size=row.smallest - 1)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_row_is_named_in_the_commands_help_and_taken_by_it(name):
    assert name in run.parser().format_help()
    assert settings.settings_of(run.parser().parse_args(["--arch", name, "--image-size", "96"])).recipe.arch == name


def test_the_six_of_the_paper_are_rows():
    assert len(recipes.SIX) == 6 and set(recipes.SIX) <= set(PRETRAINED)


def test_a_new_row_is_picked_up(monkeypatch, keras_home):
    new = dataclasses.replace(BACKBONES["tiny"], name="new", smallest=48)
    monkeypatch.setattr(backbones, "BACKBONES", {**BACKBONES, "new": new})
    assert "new" in run.parser().format_help().split("backbone:")[1].split("--policy")[0]
    assert settings.settings_of(run.parser().parse_args(["--arch", "new"])).recipe.arch == "new"
    assert build_model("new", ("Edema",), image_size=48, seed=0).name == "new"
    with pytest.raises(InputError, match="new takes 48"):
        build_model("new", ("Edema",), image_size=32)
    with pytest.raises(InputError, match="new has no ImageNet weights"):
        build_model("new", ("Edema",), "imagenet")


@pytest.mark.parametrize("ask", [
    lambda: build_model("resnet50", ("Edema",)), lambda: weights.find_weights("resnet50", "none"),
    lambda: backbones.backbone_of("resnet50"), lambda: weights.load_weights(None, "x.pt", "resnet50"),
    lambda: settings.settings_of(run.parser().parse_args(["--arch", "resnet50"]))])
def test_an_unknown_network_is_told_with_those_there_are(ask):
    with pytest.raises(InputError, match=r"resnet50.*expected one of: densenet121, .*tiny"):
        ask()


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINED)
def test_imagenet_files_of_every_backbone_load_at_224(name, keras_home):
    """The file is made at the size that the network was pre-trained at, for NASNetLarge 331."""
    row = BACKBONES[name]
    source = row.build(row.image_size)
    write_cache_file(row.weights.path, source)
    source.load_weights(row.weights.path)
    model = build_model(name, ("Edema", "Fracture"), "imagenet", 224)
    for ours, theirs in zip(weights_of(model), weights_of(source)):
        np.testing.assert_array_equal(ours, theirs)
    p = keras.ops.convert_to_numpy(model(np.zeros((1, 224, 224, 3), "float32")))
    assert p.shape == (1, 2)
