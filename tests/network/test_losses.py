"""Losses: by hand, against slow oracles, gradients by finite differences, masks, pieces of a batch, round trips."""

import keras
import numpy as np
import pytest

from chexpert_hier import hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.heatmaps.maps import backend_gradient
from chexpert_hier.network import losses
from chexpert_hier.network.losses import LOSSES

# A chain 0 -> 1 -> 2, a child 3 of 0, and 4 alone.
EDGES = [[0, 1], [1, 2], [0, 3]]
ANCESTORS = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
SETTINGS = {
    "bce": {},
    "bce_sum": {},
    "weighted_bce": {"positive": [0.9, 0.8, 0.7, 0.6, 0.5], "negative": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "three_class": {"weights": np.arange(1.0, 16.0).reshape(5, 3)},
    "product_bce": {"ancestors": ANCESTORS},
    "hbce_literal": {"edges": EDGES, "weights": [0.5, 1.0, 0.25]},
    "hbce_soft": {"edges": EDGES, "weights": [0.5, 1.0, 0.25]},
}


def example(name, films=7, seed=0, masked=True):
    """Truth with NaN and logits, of the shape that the loss takes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (films, 5)).astype("float32")
    truth = (rng.random((films, 5)) < 0.4).astype("float32")
    truth[0, 4] = 0.7  # a smoothed label
    if name == "three_class":
        logits = rng.normal(0, 2, (films, 5, 3)).astype("float32")
        truth = np.eye(3, dtype="float32")[rng.integers(0, 3, (films, 5))]
    if masked:
        truth[1, 2] = np.nan
        truth[2] = np.nan
    return truth, logits


def probabilities(name, logits):
    if name == "three_class":
        odds = np.exp(logits)
        return odds / odds.sum(-1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


def gradient(loss, truth, prediction):
    return backend_gradient(lambda x: loss(truth, x), keras.ops.convert_to_tensor(prediction))


def value(loss, truth, prediction):
    return float(loss(truth, prediction))


def test_every_loss_has_settings_here():
    assert set(SETTINGS) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_logits_and_probabilities_give_the_same_loss(name):
    truth, logits = example(name)
    by_logits = value(LOSSES[name](**SETTINGS[name], from_logits=True), truth, logits)
    by_probabilities = value(LOSSES[name](**SETTINGS[name]), truth, probabilities(name, logits))
    assert by_logits == pytest.approx(by_probabilities, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_finite_differences(name):
    truth, logits = example(name, films=4, seed=3)
    loss = LOSSES[name](**SETTINGS[name], from_logits=True)
    slope, step = gradient(loss, truth, logits), 1e-2
    assert np.isfinite(slope).all() and np.abs(slope).max() > 1e-3
    for place in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        assert slope[place] == pytest.approx((value(loss, truth, up) - value(loss, truth, down)) / (2 * step), abs=2e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_masked_cells_have_no_influence(name):
    truth, logits = example(name)
    loss = LOSSES[name](**SETTINGS[name], from_logits=True)
    if name in ("bce", "bce_sum", "weighted_bce", "three_class"):
        changed = logits.copy()
        changed[np.isnan(truth)] += 5
        assert value(loss, truth, changed) == pytest.approx(value(loss, truth, logits), rel=1e-6)
        assert not gradient(loss, truth, logits)[np.isnan(truth)].any()
    kept = np.delete(truth, 2, axis=0), np.delete(logits, 2, axis=0)  # film 2 has nothing that counts
    if not name.startswith("hbce"):  # its penalty concerns predictions, whatever the truth
        assert value(loss, *kept) == pytest.approx(value(loss, truth, logits), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_counted_is_zero_with_finite_gradient(name):
    truth, logits = example(name)
    loss = LOSSES[name](**SETTINGS[name], from_logits=True)
    nothing = np.full_like(truth, np.nan)
    if not name.startswith("hbce"):
        assert value(loss, nothing, logits) == 0.0
    assert np.isfinite(gradient(loss, nothing, logits)).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 3])
def test_pieces_of_a_batch_add_up_to_the_batch(name, size):
    truth, logits = example(name)
    loss = LOSSES[name](**SETTINGS[name], from_logits=True)
    counts = loss.normaliser(truth)
    pieces = [float(loss.share(truth[k:k + size], logits[k:k + size], counts)) for k in range(0, len(truth), size)]
    assert sum(pieces) == pytest.approx(value(loss, truth, logits), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_saturated_predictions_stay_finite(name):
    truth, logits = example(name)
    loss = LOSSES[name](**SETTINGS[name], from_logits=True)
    assert np.isfinite(gradient(loss, truth, logits * 100)).all()
    assert np.isfinite(value(LOSSES[name](**SETTINGS[name]), truth, np.round(probabilities(name, logits))))


@pytest.mark.parametrize("name", LOSSES)
def test_configuration_makes_the_same_loss_again(name):
    loss = LOSSES[name](**SETTINGS[name], from_logits=True)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    truth, logits = example(name)
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert value(again, truth, logits) == value(loss, truth, logits)


@pytest.mark.parametrize("name", ["bce", "hbce_soft"])
def test_a_compiled_model_trains_on_it(name):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, activation="sigmoid")])
    model.compile("sgd", LOSSES[name](**SETTINGS[name]))
    truth, _ = example(name)
    films = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    expected = value(LOSSES[name](**SETTINGS[name]), truth, model.predict(films, verbose=0))
    assert model.evaluate(films, truth, batch_size=7, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert model.fit(films, truth, batch_size=7, epochs=3, verbose=0).history["loss"][-1] < expected


def test_bce_by_hand():
    truth, p = np.array([[1, 0], [np.nan, 0.7]], "float32"), np.array([[0.8, 0.4], [0.1, 0.5]], "float32")
    cells = [-np.log(0.8), -np.log(0.6), -np.log(0.5)]
    assert value(losses.BCE(), truth, p) == pytest.approx(np.mean(cells), rel=1e-6)
    assert value(losses.BCESum(), truth, p) == pytest.approx(np.sum(cells) / 2, rel=1e-6)


def test_bce_without_mask_is_that_of_keras():
    truth, logits = example("bce", masked=False)
    theirs = keras.losses.BinaryCrossentropy(from_logits=True)(truth, logits)
    assert value(losses.BCE(from_logits=True), truth, logits) == pytest.approx(float(theirs), rel=1e-6)


def test_class_weights_are_chexnets_and_change_the_loss():
    targets = np.array([[1, 0, np.nan], [0, np.nan, np.nan], [0, np.nan, np.nan], [0, np.nan, np.nan]])
    loss = losses.build("weighted_bce", targets)
    assert loss.positive == [0.75, 1.0, 0.5] and loss.negative == [0.25, 0.0, 0.5]
    truth, p = np.array([[1.0], [0.0]], "float32"), np.array([[0.5], [0.25]], "float32")
    by_hand = (0.75 * np.log(2) - 0.25 * np.log(0.75)) / 2
    assert value(losses.WeightedBCE([0.75], [0.25]), truth, p) == pytest.approx(by_hand, rel=1e-6)


def test_three_class_weights_are_counted_on_the_targets():
    one_hot = np.eye(3)[[[0], [0], [1], [1]]]
    assert np.asarray(losses.build("three_class", one_hot).weights).tolist() == [[2.0, 2.0, 0.0]]
    assert losses.build("three_class+unweighted", one_hot).weights is None


@pytest.mark.parametrize("normalise", ["n", "weights"])
def test_three_class_loss_against_a_loop(normalise):
    truth, logits = example("three_class")
    weights = np.arange(1.0, 16.0).reshape(5, 3)
    log_p = np.log(probabilities("three_class", logits))
    per_label, cells = [], []
    for label in range(5):
        total = weight = 0.0
        for film in range(len(truth)):
            if not np.isnan(truth[film, label]).any():
                state = truth[film, label].argmax()
                cell = -weights[label, state] * log_p[film, label, state]
                cells.append(cell)
                total, weight = total + cell, weight + weights[label, state]
        per_label.append(total / weight)
    loss = losses.ThreeClassCE(weights, normalise, from_logits=True)
    assert value(loss, truth, logits) == pytest.approx(np.mean(cells if normalise == "n" else per_label), rel=1e-5)
    counts = loss.normaliser(truth)
    pieces = sum(float(loss.share(truth[k:k + 2], logits[k:k + 2], counts)) for k in range(0, len(truth), 2))
    assert pieces == pytest.approx(value(loss, truth, logits), rel=1e-5)


def test_one_light_cell_alone_weighs_as_it_should():
    """Counts below 1 and labels without any counted cell: the mean is over what counts, nothing is taken for one."""
    truth = np.full((2, 3, 3), np.nan, "float32")
    truth[0, 1] = [0, 1, 0]
    p = np.full((2, 3, 3), 0.25, "float32")
    p[..., 2] = 0.5
    for normalise, expected in (("n", 0.5 * np.log(4)), ("weights", np.log(4))):
        loss = losses.ThreeClassCE(np.full((3, 3), 0.5), normalise)
        assert value(loss, truth, p) == pytest.approx(expected, rel=1e-6)
    truth[1, 2] = [0, 1, 0]                                           # two labels, each below 1: their mean
    assert value(losses.ThreeClassCE(np.full((3, 3), 0.5), "weights"), truth, p) == pytest.approx(np.log(4), rel=1e-6)
    for loss in (losses.BCE(), losses.BCESum()):
        assert value(loss, np.array([[1.0, np.nan]], "float32"), np.array([[0.25, 0.5]], "float32")) == pytest.approx(
            np.log(4), rel=1e-6)


def test_product_loss_is_cross_entropy_of_the_products():
    truth, logits = example("product_bce")
    p = probabilities("product_bce", logits).astype(float)
    products = np.stack([p[:, np.array(row, bool)].prod(axis=1) for row in ANCESTORS], axis=1)
    cells = -(truth * np.log(products) + (1 - truth) * np.log1p(-products))
    loss = losses.ProductBCE(ANCESTORS, from_logits=True)
    assert value(loss, truth, logits) == pytest.approx(np.nanmean(cells), rel=1e-5)


def test_product_loss_keeps_its_gradient_where_products_underflow():
    logits = np.full((1, 5), -80.0, "float32")  # product of three: e^-240, 0 in float32
    slope = gradient(losses.ProductBCE(ANCESTORS, from_logits=True), np.ones((1, 5), "float32"), logits)
    np.testing.assert_allclose(slope[0] * 5, [-4, -2, -1, -1, -1], rtol=1e-5)  # one for each label that it is in


def test_product_loss_is_never_below_zero_by_rounding():
    logits = np.random.default_rng(0).normal(-5, 8, (2000, 3)).astype("float32")
    loss = losses.ProductBCE([[1, 0, 0], [1, 1, 0], [1, 1, 1]], from_logits=True)
    cells = loss.cells(np.zeros((2000, 3), "float32"), logits)
    assert (keras.ops.convert_to_numpy(cells) >= 0).all()


def test_product_loss_of_a_sure_wrong_chain():
    logits = np.full((1, 3), 60.0, "float32")  # 1 - p = 3 e^-60, lost in float32 when formed from p
    chain = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    loss = losses.ProductBCE(chain, from_logits=True)
    truth = np.array([[np.nan, np.nan, 0.0]], "float32")
    assert value(loss, truth, logits) == pytest.approx(60 - np.log(3), rel=1e-5)
    np.testing.assert_allclose(gradient(loss, truth, logits), [[1 / 3] * 3], rtol=1e-4)


@pytest.mark.parametrize("from_logits", [False, True])
def test_literal_penalty_moves_the_value_and_has_no_gradient(from_logits):
    truth, logits = example("bce", masked=False)
    prediction = logits if from_logits else probabilities("bce", logits).astype("float32")
    plain = losses.BCE(from_logits=from_logits)
    literal = losses.HBCELiteral(EDGES, 0.5, from_logits=from_logits)
    p = probabilities("bce", logits)
    broken = sum((p[:, a] < 0.5) & (p[:, b] > 0.5) for a, b in EDGES)
    assert broken.sum() > 0
    expected = value(plain, truth, prediction) + 0.5 * broken.mean()
    assert value(literal, truth, prediction) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(gradient(literal, truth, prediction), gradient(plain, truth, prediction))


@pytest.mark.parametrize("space", ["probability", "log"])
def test_soft_penalty_pushes_child_down_and_parent_up(space):
    truth = np.array([[1.0, 1.0]], "float32")
    p = np.array([[0.3, 0.8]], "float32")
    soft, plain = losses.HBCESoft([[0, 1]], 2.0, space), losses.BCE()
    extra = gradient(soft, truth, p) - gradient(plain, truth, p)
    expected = [[-2.0, 2.0]] if space == "probability" else [[-2 / 0.3, 2 / 0.8]]
    np.testing.assert_allclose(extra, expected, rtol=1e-4)
    kept = np.array([[0.8, 0.3]], "float32")  # the tree is obeyed: no penalty
    assert value(soft, truth, kept) == pytest.approx(value(plain, truth, kept), rel=1e-6)


def test_product_loss_agrees_with_the_chain_rule_of_the_trees():
    tree = hierarchy.CHEXPERT_TREE
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (6, len(tree.labels))).astype("float32")
    truth = (rng.random(logits.shape) < 0.3).astype("float32")
    log_p, log_not = hierarchy.log_chain_rule(logits, tree)
    expected = -(truth * log_p + (1 - truth) * log_not).mean()
    loss = losses.build("product_bce", tree=tree, from_logits=True)
    assert value(loss, truth, logits) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", [*LOSSES, "three_class+by-weights", "hbce_literal+data-driven",
                                  "hbce_soft+data-driven+log"])
def test_losses_are_built_by_name_from_targets_and_tree(name):
    base = name.split("+")[0]
    tree = hierarchy.Tree(tuple("ABCDE"), {"B": ("A",), "C": ("B",), "D": ("A",)})
    truth, logits = example(base)
    loss = losses.build(name, targets=truth, tree=tree, from_logits=True)
    assert type(loss) is LOSSES[base] and np.isfinite(value(loss, truth, logits))
    if "data-driven" in name:
        assert loss.weights == hierarchy.edge_penalties(truth, tree).tolist()


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_are_expected_unless_logits_are_named(name):
    tree = hierarchy.Tree(tuple("ABCDE"), {"B": ("A",), "C": ("B",), "D": ("A",)})
    truth, _ = example(name)
    assert LOSSES[name](**SETTINGS[name]).from_logits is False
    assert LOSSES[name].from_data(truth, tree, ()).from_logits is losses.build(name, truth, tree).from_logits is False
    assert LOSSES[name].from_data(truth, tree, (), True).from_logits is True


def test_what_the_options_set():
    tree = hierarchy.Tree(tuple("ABCDE"), {"B": ("A",), "C": ("B",), "D": ("A",)})
    hot = example("three_class")[0]
    assert losses.build("three_class", hot).normalise == losses.ThreeClassCE().normalise == "n"
    assert losses.build("three_class+by-weights", hot).normalise == "weights"
    for name in ("hbce_soft", "hbce_literal"):
        assert losses.build(name, hot, tree).weights == LOSSES[name](EDGES).weights == [0.5] * 3
    assert losses.build("hbce_soft", hot, tree).space == losses.HBCESoft(EDGES).space == "probability"
    assert losses.build("hbce_soft+log", hot, tree).space == "log"


def test_a_new_loss_is_one_class_and_one_row(monkeypatch):
    class Halved(losses.BCE):
        options = ("quartered",)

        @classmethod
        def from_data(cls, targets, tree, options, from_logits=False):
            made = cls(from_logits=from_logits)
            made.factor = 0.25 if "quartered" in options else 0.5
            return made

        def cells(self, y_true, y_pred):
            return self.factor * super().cells(y_true, y_pred)

    monkeypatch.setitem(LOSSES, "halved", Halved)
    truth, p = np.array([[1.0]], "float32"), np.array([[0.5]], "float32")
    assert value(losses.build("halved", truth), truth, p) == pytest.approx(np.log(2) / 2, rel=1e-6)
    assert value(losses.build("halved+quartered", truth), truth, p) == pytest.approx(np.log(2) / 4, rel=1e-6)
    with pytest.raises(InputError, match="expected one of: quartered"):
        losses.build("halved+log")


def test_a_loss_that_counts_says_so_when_it_is_given_nothing_to_count():
    for name in ("weighted_bce", "three_class", "product_bce", "hbce_soft", "hbce_literal+data-driven"):
        with pytest.raises(ValueError, match="training targets or the tree"):
            losses.build(name)


def test_unknown_losses_and_options_are_told():
    with pytest.raises(InputError, match="expected one of: bce"):
        losses.build("focal")
    with pytest.raises(InputError, match="expected one of: data-driven"):
        losses.build("hbce_literal+log")


def test_wrong_settings_are_told():
    with pytest.raises(InputError, match="network has 5"):
        losses.WeightedBCE([1, 2], [1, 2])(*example("bce"))
    with pytest.raises(InputError, match="diagonal"):
        losses.ProductBCE([[0, 1], [0, 1]])
    with pytest.raises(InputError, match="normalise"):
        losses.ThreeClassCE(normalise="sum")
    with pytest.raises(InputError, match="space"):
        losses.HBCESoft(EDGES, space="logit")
