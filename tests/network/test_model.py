"""The network: shapes and seeds, parts that share weights, frozen layers bit for bit the same, dropout alone drawn."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest

from chexpert_hier import recipes
from chexpert_hier.errors import InputError
from chexpert_hier.heatmaps.maps import backend_gradient
from chexpert_hier.network import maps as network_maps
from chexpert_hier.network import model as models
from chexpert_hier.network.losses import BCE

LABELS = ("No Finding", "Edema", "Pneumonia", "Fracture")


@pytest.fixture(scope="module")
def films():
    return np.random.default_rng(0).normal(size=(6, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module", params=recipes.HEADS)
def network(request, films):
    model = models.build_model("tiny", LABELS, image_size=32, head=request.param, seed=1)
    for layer in model.layers:  # statistics other than 0 and 1
        if isinstance(layer, keras.layers.BatchNormalization):
            rng = np.random.default_rng(5)
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return model


def run(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def test_output_is_one_float32_probability_per_label(network, films):
    p = run(network, films)
    three = models.is_three_class(network)
    assert p.shape == ((6, 4, 3) if three else (6, 4)) and p.dtype == np.float32
    assert (p >= 0).all() and (p <= 1).all()
    assert models.labels_of(network) == LABELS and models.head_layer(network).name == "findings"
    if three:
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
        assert not p[:, 0, 2].any() and p[:, 1:, 2].all()  # No Finding is never uncertain


def test_parts_give_the_whole(network, films):
    features = run(models.feature_model(network), films)
    np.testing.assert_allclose(run(models.head_model(network), features), run(network, films), atol=1e-6)
    logits = run(models.logits_model(network), films)
    if models.is_three_class(network):
        odds = np.exp(logits)
        np.testing.assert_allclose(odds / odds.sum(-1, keepdims=True), run(network, films), atol=1e-6)
        logits = logits[..., 1] - logits[..., 0]
    p = run(models.probability_model(network), films)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits)), atol=1e-6)
    to_maps, to_logits, plain = network_maps.map_model(network)
    maps = run(to_maps, films)
    np.testing.assert_allclose(run(to_logits, maps), logits, atol=1e-5)
    if plain:  # pooling commutes with the last layer: column c of the kernel weighs the maps
        head = models.head_layer(network)
        bias = keras.ops.convert_to_numpy(head.bias)
        assert not bias.any()
        np.testing.assert_allclose((maps @ network_maps.map_weights(network)).mean((1, 2)), logits, atol=1e-5)


def test_saved_models_come_back_with_their_labels(network, films, tmp_path):
    network.save(tmp_path / "model.keras")
    again = models.load_model(tmp_path / "model.keras")
    assert models.labels_of(again) == LABELS
    np.testing.assert_array_equal(run(again, films), run(network, films))


def test_weights_of_a_model_with_the_same_labels_bring_its_outputs(network, films, tmp_path):
    file = tmp_path / "model.keras"
    network.save(file)
    head = {3: "three-class"}.get(len(network.output.shape), "hbce" if len(network.layers) > 16 else "dense")
    same = models.build_model("tiny", LABELS, file, 32, head, seed=9)
    np.testing.assert_array_equal(run(same, films), run(network, films))
    other = models.build_model("tiny", LABELS[::-1], file, 32, head, seed=9)
    assert not np.array_equal(run(other, films), run(network, films))
    np.testing.assert_array_equal(other.get_layer("conv4").kernel, network.get_layer("conv4").kernel)


def test_same_seed_same_network(films):
    first, again, other = (run(models.build_model("tiny", LABELS, image_size=32, seed=s), films) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_only_the_head_moves_when_the_rest_is_frozen(films):
    model = models.build_model("tiny", LABELS, image_size=32, seed=2)
    models.freeze_all_but_head(model)
    before = [v.numpy().copy() for v in model.variables]
    alone = run(model, films[:1])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(films, training=True))[:1], alone, atol=1e-6)
    model.compile(keras.optimizers.Adam(0.1), BCE())
    model.fit(films, np.ones((6, 4), "float32"), epochs=2, batch_size=3, verbose=0)
    head = {id(v) for v in models.head_layer(model).variables}
    for variable, old in zip(model.variables, before):
        assert np.array_equal(variable.numpy(), old) == (id(variable) not in head), variable.path
    assert len(model.trainable_variables) == 2
    models.unfreeze(model)
    assert len(model.trainable_variables) == 4 + 8 + 2  # kernels; scales and shifts; the head


def test_training_the_head_on_features_trains_the_model(films):
    model = models.build_model("tiny", LABELS, image_size=32, seed=2)
    features, before = run(models.feature_model(model), films), run(model, films)
    head = models.head_model(model)
    head.compile("adam", BCE())
    head.fit(features, np.ones((6, 4), "float32"), verbose=0)
    assert (run(model, films) > before).all()


def test_backbone_can_be_frozen_alone():
    model = models.build_model("tiny", LABELS, image_size=32, head="hbce")
    models.freeze_backbone(model)
    trained = {v.path.split("/")[0] for v in model.trainable_variables}
    assert trained == {"head_conv", "head_bn", "head_dense", "findings"}


def test_head_is_drawn_anew():
    model = models.build_model("tiny", LABELS, image_size=32, seed=2)
    head = models.head_layer(model)
    head.bias.assign(np.ones(4))
    models.reset_head(model, 7)
    first = head.kernel.numpy().copy()
    models.reset_head(model, 8)
    assert not np.array_equal(first, head.kernel) and not head.bias.numpy().any()
    models.reset_head(model, 7)
    np.testing.assert_array_equal(first, head.kernel)


def test_sixteen_bit_networks_give_float32_probabilities(films):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.build_model("tiny", LABELS, image_size=32, seed=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    assert run(model, films).dtype == np.float32 and models.head_layer(model).kernel.dtype == "float32"


def test_batch_normalisation_momentum_is_a_choice():
    model = models.build_model("tiny", LABELS, image_size=32, batchnorm_momentum=0.5)
    momenta = [layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert momenta == [0.5] * 4


def test_dropout_alone_is_drawn(films):
    model = models.build_model("tiny", LABELS, image_size=32, head="hbce", seed=2)
    state = [v.numpy().copy() for v in model.variables]
    features = run(models.feature_model(model), films)
    drawn = models.mc_dropout(model, features, 200, seed=3)
    assert drawn.shape == (200, 6, 4) and (drawn.std(0) > 0).all()
    for variable, old in zip(model.variables, state):  # statistics and seeds untouched
        np.testing.assert_array_equal(variable, old)
    np.testing.assert_allclose(models.mc_dropout(model, features[4:5], 3, seed=3)[:, 0], drawn[:3, 4], atol=1e-6)
    # The oracle: Keras' own dropout in the whole network with BatchNormalization frozen into inference mode.
    models.freeze_all_but_head(model)
    keras.utils.set_random_seed(0)
    theirs = np.stack([keras.ops.convert_to_numpy(model(films, training=True)) for _ in range(200)])
    np.testing.assert_allclose(drawn.mean(0), theirs.mean(0), atol=4 * drawn.std(0).max() / 200**0.5 * 2**0.5)
    np.testing.assert_allclose(drawn.std(0), theirs.std(0), rtol=0.4)


def test_a_model_without_dropout_has_nothing_to_draw(films):
    model = models.build_model("tiny", LABELS, image_size=32)
    with pytest.raises(InputError, match="no dropout"):
        models.mc_dropout(model, run(models.feature_model(model), films), 2, 0)


@pytest.mark.parametrize("wrong, told", [
    ({"arch": "vgg16"}, "expected one of: densenet121"),
    ({"head": "sigmoid"}, "expected one of: dense"),
    ({"image_size": 8}, "16 or more pixels"),
    ({"labels": ("Edema", "Edema")}, "each once"),
    ({"weights": "nowhere.h5"}, "no such file"),
    ({"weights": "imagenet"}, "no ImageNet weights"),
])
def test_wrong_wishes_are_told(wrong, told):
    with pytest.raises(InputError, match=told):
        models.build_model(**({"arch": "tiny", "labels": LABELS, "image_size": 32} | wrong))


def test_files_that_are_no_model_are_told(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        models.load_model(tmp_path / "absent.keras")
    (tmp_path / "broken.keras").write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_model(tmp_path / "broken.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match="Findings"):
        models.load_model(tmp_path / "other.keras")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_network_losses_and_maps_work_on_other_backends(backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    tests = Path(__file__).parents[1]
    names = ("network/test_losses.py", "network/test_model.py", "heatmaps/test_heatmaps.py")
    files = [str(tests / name) for name in names]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:warnings", "-p", "no:cacheprovider", *files],
                          env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def centre_of_what_is_seen(model, row):
    """The centroid of the rows whose pixels move the maps' cell in row `row`, all weights being positive."""
    to_maps = network_maps.map_model(model)[0]
    for variable in to_maps.trainable_variables:
        if "kernel" in variable.path:
            variable.assign(np.full(variable.shape, 0.01, "float32"))
    side = to_maps.inputs[0].shape[1]
    slope = backend_gradient(lambda x: keras.ops.sum(to_maps(x, training=False)[:, row]),
                                      keras.ops.ones((1, side, side, 3)))
    weight = np.abs(slope).sum(axis=(0, 2, 3))
    return float((weight * (np.arange(side) + 0.5)).sum() / weight.sum() / side)


@pytest.mark.parametrize("size", [96, 100])
def test_cells_of_the_maps_are_centred_on_what_they_see(size):
    model = models.build_model("tiny", ("A", "B"), "none", size, seed=0)
    first, step = network_maps.map_cells(model)
    for row in (2, 3):  # their receptive fields lie inside the film
        assert first + step * row == pytest.approx(centre_of_what_is_seen(model, row), abs=1e-3)


def test_cells_behind_every_kind_of_layer():
    films = x = keras.Input((61, 61, 3))
    layers = keras.layers
    x = layers.ZeroPadding2D((3, 3))(x)
    x = layers.Conv2D(4, 7, 2, use_bias=False)(x)
    x = layers.AveragePooling2D(2, 2, padding="valid")(x)
    x = layers.Add()([layers.Conv2D(4, 3, dilation_rate=2, padding="same", use_bias=False)(x), x])
    x = layers.SeparableConv2D(4, 3, 2, padding="same", use_bias=False)(x)
    x = layers.Cropping2D(((1, 0), (1, 0)))(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(films, models.Findings(2, ("A", "B"), activation="sigmoid")(x))
    first, step = network_maps.map_cells(model)
    assert first + step * 2 == pytest.approx(centre_of_what_is_seen(model, 2), abs=1e-3)


@pytest.mark.parametrize(("arch", "first"), [
    ("densenet121", 14.5), pytest.param("inceptionresnetv2", 37.5, marks=pytest.mark.slow),
    pytest.param("nasnetlarge", 24.3, marks=pytest.mark.slow)])
def test_where_the_papers_networks_look_at_224_pixels(arch, first):
    """What docs/deviations.md says (X8): equal tiles of 32 pixels would begin at 16, five of 44.8 at 22.4."""
    cells = network_maps.map_cells(models.build_model(arch, ("A", "B"), "none", 224, seed=0))
    assert cells == pytest.approx((first / 224, 32 / 224), abs=1e-4)


def test_a_network_is_cut_once_and_not_held_by_its_cuts():
    """A new cut at every call would stay with the layers: a server that draws maps would grow without end."""
    model = models.build_model("tiny", LABELS, image_size=32, seed=0)
    first = network_maps.map_model(model)
    connections = [len(layer._inbound_nodes) for layer in model.layers]
    assert network_maps.map_model(model) is first
    assert [len(layer._inbound_nodes) for layer in model.layers] == connections
    gone = weakref.ref(model)
    del model, first
    gc.collect()
    assert gone() is None
