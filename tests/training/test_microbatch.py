"""A batch in pieces: the loss, the step and the log of the whole batch."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from test_training import FIRST, RECIPE, TREE, Films, train, weights_of

from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.network import losses, model
from chexpert_hier.training.microbatch import PieceLoss, Pieces, WholeSteps


def test_pieces_by_hand():
    assert Pieces.of(32, 0) == Pieces(32, 1, 32) and Pieces.of(32, 40) == Pieces(32, 1, 32)
    assert Pieces.of(32, 8) == Pieces(32, 4, 8) and Pieces.of(10, 4) == Pieces(10, 3, 4)
    rows, table = Pieces(4, 2, 2).cut(np.array([7, 5, 3, 1, 9]), np.ones((5, 3), np.float32), losses.BCE())
    assert rows.tolist() == [7, 5, 3, 1, 9, 9, 9, 9]
    assert table[:, -1].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert table[0, 3] == 12 and table[4, 3] == 3 and np.isnan(table[5, :3]).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_mean_over_pieces_is_the_loss_of_the_whole_batch(name):
    random = np.random.default_rng(0)
    shape = (7, 14, 3) if name == "three_class" else (7, 14)
    truth = random.integers(0, 2, shape).astype(np.float32)
    truth[random.random(shape[:2]) < 0.3] = np.nan
    guess = random.uniform(0.05, 0.95, shape).astype(np.float32)
    loss = losses.build(name, np.nan_to_num(truth), TREE)
    pieces = Pieces.of(10, 4)  # three of four films: seven films and five that do not count
    rows, table = pieces.cut(np.arange(7), truth, loss)
    each = PieceLoss(loss, truth.shape[1:], pieces.count)
    got = [float(keras.ops.convert_to_numpy(each(table[k:k + 4], guess[rows[k:k + 4]]))) for k in range(0, 12, 4)]
    assert np.mean(got) == pytest.approx(float(keras.ops.convert_to_numpy(loss(truth, guess))), rel=1e-5)


def without_batchnorm() -> keras.Model:
    keras.utils.set_random_seed(0)
    film = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(film)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(maps)
    head = model.Findings(14, CHEXPERT_LABELS, activation="sigmoid", name="findings")
    return keras.Model(film, head(pooled))


@pytest.mark.parametrize("count", [40, 37])
def test_training_in_pieces_equals_training_with_the_whole_batch(tmp_path, count):
    recipe = replace(RECIPE, policy="u-ones", stages=(replace(FIRST, rows="all", batch_size=10),))
    results, rows = [], []
    for name, most in (("whole", 0), ("pieces", 4)):
        network = without_batchnorm()
        train(replace(recipe, micro_batch=most), TREE, network, Films(count), Films(12, 1), tmp_path / name)
        results.append(weights_of(network))
        rows.append([float(line.split(",")[5]) for line in (tmp_path / name / "log.csv").read_text().splitlines()[1:]])
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    np.testing.assert_allclose(*rows, rtol=1e-4)


def test_a_batch_of_which_a_piece_overflowed_is_dropped_whole():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    sgd = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    network.compile(keras.optimizers.LossScaleOptimizer(sgd, initial_scale=2.0), "mse", jit_compile=False)
    x = np.array([[1.0], [np.inf], [1.0], [1.0]], np.float32)
    network.fit(x, np.zeros((4, 1), np.float32), batch_size=1, shuffle=False, verbose=0, callbacks=[WholeSteps(2)])
    # First batch dropped; the second one's mean gradient of w**2 at w = 1 is 2.
    np.testing.assert_allclose(weights_of(network)[0], [[-1.0]])


@pytest.mark.slow
def test_float16_trains_in_pieces(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = model.build_model("tiny", CHEXPERT_LABELS, "none", 32, seed=0)
        recipe = replace(RECIPE, policy="u-ones", precision="mixed_float16", micro_batch=3)
        train(recipe, TREE, network, Films(40), Films(12, 1), tmp_path)
    finally:
        keras.config.set_dtype_policy(policy)
    assert all(np.isfinite(value).all() for value in weights_of(network))
