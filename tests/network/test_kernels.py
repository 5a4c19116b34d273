"""TensorFlow's kernels against Keras' own layers and optimizer: outputs, gradients, statistics, files."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from chexpert_hier import losses
from chexpert_hier.network import kernels
from chexpert_hier.network.backbones import BACKBONES

# What a 16-bit output of size 1 to 4 may be off by, where Keras rounds a float32 result and the kernel does so too.
CLOSE = {"float32": 2e-5, "mixed_bfloat16": 4e-2, "mixed_float16": 4e-3}


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


every_policy = pytest.mark.parametrize("policy", CLOSE, indirect=True)


def normaliser(shape, fused: bool, **options) -> keras.Model:
    """One batch normalisation between a film and its maps, with weights and statistics that are no start values."""
    film = keras.Input(shape)
    layer = keras.layers.BatchNormalization(**options)
    network = keras.Model(film, layer(film))
    random = np.random.default_rng(5)
    layer.set_weights([random.uniform(0.5, 2.0, w.shape).astype(np.float32) for w in layer.weights])
    return kernels.fuse(network) if fused else network


def maps(*shape: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) * random.uniform(0.5, 2, shape[-1]) + random.normal(size=shape[-1])).astype(
        np.float32)


def step(network: keras.Model, film: np.ndarray, training: bool = True) -> list[np.ndarray]:
    """Outputs, gradients of film and weights of a sum in which no term cancels, and the weights afterwards."""
    film = tf.constant(film)
    with tf.GradientTape() as tape:
        tape.watch(film)
        outputs = tf.cast(network(film, training=training), tf.float32)
        total = tf.reduce_sum(tf.sin(outputs) * maps(*outputs.shape, seed=9))
    gradients = tape.gradient(total, [film, *(w.value for w in network.trainable_variables)])
    return [value.numpy() for value in (outputs, *gradients)] + network.get_weights()


def is_fused(network: keras.Model) -> bool:
    return any("call" in vars(layer) for layer in network.layers)


@every_policy
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 7, 5, 6), (1, 2, 2, 3), (1, 1, 1, 3), (3, 1, 1, 2)])
def test_batch_normalisation_is_keras_own(policy, training, shape):
    film = maps(*shape)
    ours, theirs = (step(normaliser(shape[1:], fused, epsilon=1e-3), film, training) for fused in (True, False))
    names = ("outputs", "films' gradient", "gamma's", "beta's", "gamma", "beta", "mean", "variance")
    for name, got, expected in zip(names, ours, theirs, strict=True):
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got, expected, atol=CLOSE[policy] * scale, err_msg=name)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"momentum": 0.6}, {"epsilon": 1.001e-5}])
def test_batch_normalisation_with_its_options(options):
    ours, theirs = normaliser((4, 4, 3), True, **options), normaliser((4, 4, 3), False, **options)
    assert is_fused(ours)
    for got, expected in zip(step(ours, maps(2, 4, 4, 3)), step(theirs, maps(2, 4, 4, 3)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)


@every_policy
def test_moving_statistics_over_twenty_steps(policy):
    ours, theirs = normaliser((2, 2, 3), True, momentum=0.9), normaliser((2, 2, 3), False, momentum=0.9)
    for seed in range(20):
        film = maps(2, 2, 2, 3, seed=seed)
        ours(film, training=True)
        theirs(film, training=True)
    for got, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_kept_variance_divides_by_n():
    network = normaliser((1, 2, 1), True, momentum=0.0, epsilon=1e-3)
    network(np.array([[[[1.0], [3.0]]]], np.float32), training=True)  # mean 2, variance 1 (with n - 1 it were 2)
    np.testing.assert_allclose(np.ravel(network.get_weights()[2:]), [2, 1], rtol=1e-6)


def test_a_frozen_layer_keeps_its_statistics_and_answers_from_them():
    ours, theirs = normaliser((4, 4, 3), True), normaliser((4, 4, 3), False)
    before = ours.get_weights()
    for network in (ours, theirs):
        network.trainable = False
    got, expected = step(ours, maps(2, 4, 4, 3)), step(theirs, maps(2, 4, 4, 3))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    for a, b in zip(before, ours.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [
    lambda: normaliser((3,), True), lambda: normaliser((4, 4, 3), True, axis=1),
    lambda: normaliser((4, 4, 3), True, epsilon=1e-7), lambda: normaliser((4, 4, 3), True, renorm=True)])
def test_what_the_kernel_does_not_compute_stays_keras_own(make):
    assert not is_fused(make())


def test_other_backends_and_gpus_keep_keras_own(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not kernels.used() and not is_fused(normaliser((4, 4, 3), True))
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0"])
    assert not kernels.used() and not is_fused(normaliser((4, 4, 3), True))


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_a_convolution_of_one_by_one_is_keras_own(policy):
    def network(fused):
        film = keras.Input((5, 4, 8))
        x = keras.layers.Conv2D(6, 1, use_bias=False, kernel_initializer=keras.initializers.GlorotUniform(1))(film)
        model = keras.Model(film, x)
        return kernels.fuse(model) if fused else model

    assert is_fused(network(True))
    ours, theirs = (step(network(fused), maps(3, 5, 4, 8)) for fused in (True, False))
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, atol=0.02 * max(1, np.abs(expected).max()))


def trained(arch: str, size: int, fused: bool, steps: int, pieces: int | None = None, batch: int = 4):
    """A network after some steps on noise, and the losses on the way."""
    keras.utils.set_random_seed(0)
    backbone = BACKBONES[arch].build(size)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(backbone.output)
    x = keras.layers.Dense(14, activation="sigmoid", dtype="float32")(x)
    network = keras.Model(backbone.input, x)
    optimizer = (kernels.adam if fused else keras.optimizers.Adam)(1e-3, gradient_accumulation_steps=pieces)
    if fused:
        kernels.fuse(network)
    network.compile(optimizer, losses.BCE(), jit_compile=False)
    optimizer.build(network.trainable_variables)
    random = np.random.default_rng(2)
    films = random.normal(size=(batch, size, size, 3)).astype(np.float32)
    targets = random.integers(0, 2, (batch, 14)).astype(np.float32)
    return network, [float(network.train_on_batch(films, targets)) for _ in range(steps)]


@pytest.mark.parametrize("pieces", [None, 2])
def test_adam_is_keras_own(pieces):
    (ours, got), (theirs, expected) = (trained("tiny", 32, fused, 6, pieces) for fused in (True, False))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    for a, b in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        assert a.path.split("/", 1)[1] == b.path.split("/", 1)[1] or "adam" in a.path
        scale = max(1e-3, float(np.abs(np.array(b)).max()))
        np.testing.assert_allclose(a, b, atol=1e-3 * scale)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_adam_by_hand():
    weight = keras.Variable(np.array([1.0, -2.0], np.float32))
    adam = kernels.adam(0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    adam.build([weight])
    adam.apply([tf.constant([0.5, -4.0])])  # the first step is rate * sign of the gradient
    np.testing.assert_allclose(weight, [0.9, -1.9], rtol=1e-5)
    adam.apply([tf.constant([0.5, 4.0])])
    moment, square = 0.1 * 0.9 * -4 + 0.1 * 4, 0.001 * 0.999 * 16 + 0.001 * 16  # by hand, of the second weight
    second = -1.9 - 0.1 * (moment / (1 - 0.81)) / np.sqrt(square / (1 - 0.999 ** 2))
    np.testing.assert_allclose(weight, [0.8, second], rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_adam_under_loss_scaling_skips_a_step_that_overflows(policy):
    weight = keras.Variable(np.ones(2, np.float32))
    scaled = keras.optimizers.LossScaleOptimizer(kernels.adam(0.1), initial_scale=4.0)
    scaled.build([weight])
    scaled.apply([tf.constant([np.inf, 1.0])])
    np.testing.assert_array_equal(weight, [1, 1])
    scaled.apply([tf.constant([1.0, 1.0])])
    np.testing.assert_allclose(weight, [0.9, 0.9], rtol=1e-4)


def test_a_saved_network_says_plain_keras_and_loads_without_this_package(tmp_path):
    network, _ = trained("tiny", 32, True, 2)
    network.save(tmp_path / "network.keras")
    with zipfile.ZipFile(tmp_path / "network.keras") as file:
        layers = json.loads(file.read("config.json"))["config"]["layers"]
    assert {(layer["module"], layer["class_name"]) for layer in layers if "bn" in layer["name"]} == {
        ("keras.layers", "BatchNormalization")}
    plain = keras.models.load_model(tmp_path / "network.keras", compile=False)
    assert not is_fused(plain)
    film = maps(3, 32, 32, 3)
    np.testing.assert_allclose(network(film), plain(film), atol=1e-6)


@pytest.mark.slow
@every_policy
@pytest.mark.parametrize("arch", [name for name in BACKBONES if name != "tiny"])
def test_every_network_trains_and_answers_as_with_keras_layers(arch, policy):
    size = max(BACKBONES[arch].smallest, 75)
    (ours, got), (theirs, expected) = (trained(arch, size, fused, 2) for fused in (True, False))
    assert sum("call" in vars(layer) for layer in ours.layers
               if isinstance(layer, keras.layers.BatchNormalization)) == sum(
                   isinstance(layer, keras.layers.BatchNormalization) for layer in ours.layers)
    np.testing.assert_allclose(got[0], expected[0], rtol=10 * CLOSE[policy])  # before Adam amplifies rounding
    theirs.set_weights(ours.get_weights())
    film = maps(2, size, size, 3)
    np.testing.assert_allclose(ours.predict(film, verbose=0), theirs.predict(film, verbose=0),
                               atol=10 * CLOSE[policy])
