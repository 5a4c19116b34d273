"""Policies by hand, smoothed draws, class weights, the bridge between label sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chexpert_hier import labels, recipes
from chexpert_hier.datasets.bridge import translate
from chexpert_hier.errors import InputError
from chexpert_hier.labels import (
    CHESTXRAY14_LABELS,
    CHEXPERT_LABELS,
    Labelling,
    Policy,
    hard_targets,
    policy_names,
    targets,
)

NAN = np.nan
RAW = np.array([[1, 0, -1, NAN], [-1, -1, 1, 0]], np.float32)
KEYS = ["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study1/view1_frontal.jpg"]
NAMES = ("Edema", "Pneumonia", "Atelectasis", "Fracture")
BY_HAND = {  # blank = negative
    "u-ignore": [[1, 0, NAN, 0], [NAN, NAN, 1, 0]],
    "u-zeros": [[1, 0, 0, 0], [0, 0, 1, 0]],
    "u-ones": [[1, 0, 1, 0], [1, 1, 1, 0]],
}
RAW_TABLES = arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=st.sampled_from([1, 0, -1, NAN]))


@pytest.mark.parametrize("policy", BY_HAND)
def test_policies_by_hand(policy):
    np.testing.assert_array_equal(targets(RAW, KEYS, NAMES, policy), BY_HAND[policy])
    np.testing.assert_array_equal(hard_targets(RAW, policy), BY_HAND[policy])
    np.testing.assert_array_equal(hard_targets(RAW, Policy(policy, ct=True)), BY_HAND[policy])


def test_blank_ignore_takes_the_blank_cells_out_under_every_policy():
    for policy in policy_names():
        extra = {"selftrained": np.full((2, 4), .5)}
        blank = np.isnan(targets(RAW, KEYS, NAMES, Labelling(policy, blank="ignore"), **extra))
        assert blank[0, 3].all(), policy
        assert not np.isnan(targets(RAW, KEYS, NAMES, policy, **extra))[0, 3].any(), policy


@pytest.mark.parametrize("policy, low, high", [("u-ones+lsr", .55, .85), ("u-zeros+lsr", 0, .3)])
def test_smoothing_moves_uncertain_cells_only_and_into_the_papers_interval(policy, low, high):
    raw = np.full((4000, 1), -1, np.float32)
    drawn = targets(raw, [str(row) for row in range(4000)], ["Edema"], Labelling(policy, seed=3))
    assert low <= drawn.min() < low + .01 and high - .01 < drawn.max() <= high
    assert abs(drawn.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * 4000)
    smooth, certain = targets(RAW, KEYS, NAMES, policy), RAW != -1
    np.testing.assert_array_equal(smooth[certain], np.nan_to_num(RAW[certain]))
    hard = hard_targets(RAW, policy)
    np.testing.assert_array_equal(hard, BY_HAND[policy.removesuffix("+lsr")])  # parents are decided before smoothing


def test_a_draw_depends_on_seed_key_and_label_alone():
    raw = np.full((50, 4), -1, np.float32)
    keys = [f"train/patient{row:05d}/study1/view1_frontal.jpg" for row in range(50)]
    drawn = targets(raw, keys, NAMES, Labelling("u-ones+lsr", seed=1))
    order = np.random.default_rng(0).permutation(50)
    how = Labelling("u-ones+lsr", seed=1)
    np.testing.assert_array_equal(targets(raw, [keys[row] for row in order], NAMES, how), drawn[order])
    np.testing.assert_array_equal(targets(raw[:7, 1:3], keys[:7], NAMES[1:3], how), drawn[:7, 1:3])
    alone = np.where(np.eye(50, 4) == 1, -1, 0).astype(np.float32)  # other cells certain: the draw stays
    np.testing.assert_array_equal(targets(alone, keys, NAMES, Labelling("u-ones+lsr", 1))[np.eye(50, 4) == 1],
                                  drawn[np.eye(50, 4) == 1])
    assert len(np.unique(drawn)) == drawn.size
    assert (labels.uniform_draws(keys, NAMES, 128) != labels.uniform_draws(keys, NAMES, 0)).all()
    np.testing.assert_array_equal(labels.uniform_draws(keys, NAMES, -1), labels.uniform_draws(keys, NAMES, 2**64 - 1))
    assert (targets(raw, keys, NAMES, Labelling("u-ones+lsr", seed=2)) != drawn).all()
    assert (targets(raw, keys[::-1], NAMES, Labelling("u-ones+lsr", seed=1)) != drawn).all()


def test_draws_are_the_same_on_every_platform():
    """BLAKE2b and SplitMix64 worked with Python's whole numbers, not NumPy's."""
    import hashlib

    def mix(value, salt):
        for addend in (0, salt):
            value = ((value ^ addend) + 0x9E3779B97F4A7C15) % 2**64
            value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
            value ^= value >> 31
        return value

    def digest(name):
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")

    expected = [[(mix(digest(key), mix(digest(label), mix(7, 2))) >> 11) / 2**53 for label in NAMES] for key in KEYS]
    np.testing.assert_array_equal(labels.uniform_draws(KEYS, NAMES, seed=7, stream=2), expected)


def test_draws_are_uniform_and_unrelated_between_labels_rows_seeds_and_epochs():
    keys = [str(row) for row in range(20000)]
    first = labels.uniform_draws(keys, ["A", "B"], 0)
    counts = np.histogram(first[:, 0], 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-square, 19 degrees of freedom: p about 0.0001
    others = [first[:, 1], np.roll(first[:, 0], 1), labels.uniform_draws(keys, ["A"], 1)[:, 0],
              labels.uniform_draws(keys, ["A"], 0, stream=1)[:, 0]]
    for other in others:
        assert abs(np.corrcoef(first[:, 0], other)[0, 1]) < 4 / np.sqrt(20000)


def test_epoch_and_mean_draws():
    raw = np.full((2, 4), -1, np.float32)
    fixed, zero, one, again = (
        targets(raw, KEYS, NAMES, Labelling("u-ones+lsr", 5, lsr_draw=draw), epoch=epoch)
        for draw, epoch in (("fixed", 1), ("epoch", 0), ("epoch", 1), ("epoch", 1)))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(fixed, targets(raw, KEYS, NAMES, Labelling("u-ones+lsr", 5)))
    assert (zero != one).all() and (fixed != zero).all()
    np.testing.assert_allclose(targets(raw, KEYS, NAMES, Labelling("u-ones+lsr", 5, lsr_draw="mean")), .70, rtol=1e-6)
    np.testing.assert_allclose(targets(raw, KEYS, NAMES, Labelling("u-zeros+lsr", 5, lsr_draw="mean")), .15, rtol=1e-6)


def test_u_mean_is_positives_over_known():
    raw = np.array([[1, -1, 0], [1, -1, NAN], [0, NAN, NAN], [-1, -1, -1]], np.float32)
    mean = labels.uncertain_mean(raw)
    np.testing.assert_allclose(mean, [2 / 3, NAN, 0])
    result = targets(raw, "abcd", ("A", "B", "C"), "u-mean")
    np.testing.assert_allclose(result[:, 0], [1, 1, 0, 2 / 3])
    np.testing.assert_array_equal(result[:, 1], [NAN, NAN, 0, NAN])


def test_u_selftrained_takes_the_finished_models_probability_for_uncertain_cells_only():
    predictions = np.linspace(.1, .8, 8).reshape(2, 4)
    result = targets(RAW, KEYS, NAMES, "u-selftrained", selftrained=predictions)
    np.testing.assert_allclose(result, [[1, 0, .3, 0], [.5, .6, 1, 0]], rtol=1e-6)
    ends = np.array([[0, 0, 1, 0], [0, 1, 0, 0]])  # 0 and 1 are probabilities
    np.testing.assert_array_equal(targets(RAW, KEYS, NAMES, "u-selftrained", selftrained=ends)[1, :2], [0, 1])
    with pytest.raises(InputError, match="outside"):
        targets(RAW, KEYS, NAMES, "u-selftrained", selftrained=ends - .5)
    with pytest.raises(InputError, match="outside"):
        targets(RAW, KEYS, NAMES, "u-selftrained", selftrained=predictions * 2)
    with pytest.raises(ValueError, match="selftrained"):
        targets(RAW, KEYS, NAMES, "u-selftrained", selftrained=predictions[:1])


def test_multiclass_targets_are_one_hot():
    hot = targets(RAW, KEYS, NAMES, "u-multiclass")
    assert hot.shape == (2, 4, 3) and hot.dtype == np.float32
    np.testing.assert_array_equal(hot[0], [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(targets(RAW, KEYS, NAMES, Labelling("u-multiclass", blank="ignore"))[0, 3], [NAN] * 3)


def test_class_weights_of_chexperts_published_counts():
    """Enlarged Cardiomediastinum and No Finding over all views (Irvin et al. 2019's table, as images)."""
    raw = np.full((223_414, 2), NAN, np.float32)
    raw[:10_798, 0], raw[10_798:23_201, 0], raw[23_201:44_839, 0] = 1, -1, 0
    raw[:22_381, 1] = 1
    counts = labels.class_counts(raw)
    np.testing.assert_array_equal(counts, [[200_213, 10_798, 12_403], [201_033, 22_381, 0]])
    np.testing.assert_allclose(labels.class_weights(counts), [[1.12, 20.69, 18.01], [1.11, 9.98, 0]], atol=.005)
    np.testing.assert_allclose(labels.class_weights([[3, 1, 0]]), [[4 / 3, 4, 0]], rtol=1e-6)  # one film is a class


def test_balance_weights_of_chexnet():
    targets = np.array([[1, NAN, NAN], [0, 1, NAN], [0, NAN, NAN], [0, 1, NAN]])
    np.testing.assert_allclose(labels.balance_weights(targets), [[.75, .25], [0, 1], [.5, .5]])


@pytest.mark.parametrize("text", ["u-ones+ct+lsr", "ct+U-Ones+lsr", "LSR + u-ones + CT"])
def test_parts_of_a_policy_in_any_order(text):
    assert Policy.parse(text) == Policy("u-ones", ct=True, lsr=True) and Policy.parse(text).name == "u-ones+ct+lsr"


@pytest.mark.parametrize("text", ["", "ct", "u-one", "u-ignore+lsr", "u-ones+u-zeros", "u-ones+lsr+lsr", "u-mean+lsr",
                                  "u-ones+ct+"])
def test_an_unknown_policy_lists_the_valid_ones(text):
    with pytest.raises(InputError, match="policy is"):
        Policy.parse(text)
    with pytest.raises(InputError, match=r"expected one of: u-ignore, u-ignore\+ct"):
        Policy.parse("u-nothing")


def test_the_ten_rows_of_table_1_are_policies():
    assert len(recipes.PHAM2019_TABLE_1) == 10 and set(recipes.PHAM2019_TABLE_1) <= set(policy_names())
    assert [Policy.parse(name).name for name in policy_names()] == list(policy_names())


@pytest.mark.parametrize("wrong", [2, -2, .5, np.inf])
def test_other_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"raw\[0, 1\]"):
        hard_targets(np.array([[1, wrong]]), "u-ones")


def test_the_defaults_are_the_plain_policy_seed_zero_and_negative_blanks():
    assert Policy("u-ones") == Policy.parse("u-ones") == Policy("u-ones", ct=False, lsr=False)
    raw = np.full((2, 4), -1, np.float32)
    np.testing.assert_array_equal(targets(raw, KEYS, NAMES, "u-ones+lsr"),
                                  targets(raw, KEYS, NAMES, Labelling("u-ones+lsr", 0, "negative", "fixed")))
    fresh = Labelling("u-ones+lsr", lsr_draw="epoch")
    np.testing.assert_array_equal(targets(raw, KEYS, NAMES, fresh), targets(raw, KEYS, NAMES, fresh, epoch=0))
    # Streams of their own: the fixed draw is 0, epoch e draws from e + 1.
    for epoch in (0, 3):
        drawn = .55 + .3 * labels.uniform_draws(KEYS, NAMES, 0, epoch + 1)
        np.testing.assert_allclose(targets(raw, KEYS, NAMES, fresh, epoch=epoch), drawn, rtol=1e-6)


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="policy is 'u-perhaps'"):
        Labelling("u-perhaps")
    for options in ({"blank": "zero"}, {"lsr_draw": "once"}, {"lsr_ones": (.9, .5)}, {"lsr_ones": (.5, 1.5)}):
        with pytest.raises(InputError):
            Labelling("u-ones+lsr", **options)


@pytest.mark.parametrize("name", policy_names())
@settings(max_examples=15, deadline=None)
@given(raw=RAW_TABLES, seed=st.integers(-5, 2**70), epoch=st.integers(0, 9),
       draw=st.sampled_from(labels.LSR_DRAWS), blank=st.sampled_from(labels.BLANKS))
def test_targets_stay_in_range_and_keep_certain_cells(raw, name, seed, epoch, draw, blank):
    keys = [f"key {row}" for row in range(len(raw))]
    result = targets(raw, keys, NAMES, Labelling(name, seed, blank, draw), epoch=epoch,
                     selftrained=np.full(raw.shape, .6))
    assert result.dtype == np.float32 and result.shape == raw.shape + (3,) * name.startswith("u-multiclass")
    assert ((result >= 0) & (result <= 1) | np.isnan(result)).all()
    if not name.startswith("u-multiclass"):
        known = (raw == 0) | (raw == 1)
        np.testing.assert_array_equal(result[known], raw[known])
        assert (np.isnan(result[np.isnan(raw)]) == (blank == "ignore")).all()
        hard = hard_targets(raw, name, blank=blank)
        assert (((hard == 0) | (hard == 1)) | np.isnan(hard)).all()
        np.testing.assert_array_equal(hard[known], raw[known])


def test_what_the_rows_of_the_policies_say():
    rows = labels.POLICIES.items()
    assert [name for name, rule in rows if rule.smoothing] == ["u-zeros", "u-ones"]
    assert [name for name, rule in rows if rule.three_class] == ["u-multiclass"]
    assert [name for name, rule in rows if rule.predictions] == ["u-selftrained"]
    assert {name: rule.uncertain for name, rule in rows if rule.uncertain == rule.uncertain} == {
        "u-zeros": 0, "u-ones": 1}


def test_a_new_policy_is_one_function_and_one_row(monkeypatch):
    def u_half(cells):
        return cells.filled(cells.smoothed((.5, .5)) if cells.how.parsed.lsr else .5)

    monkeypatch.setattr(labels, "POLICIES", {**labels.POLICIES, "u-half": labels.Rule(u_half, 1.0, smoothing=True)})
    assert policy_names()[-4:] == ("u-half", "u-half+ct", "u-half+lsr", "u-half+ct+lsr")
    for name in ("u-half", "u-half+ct+lsr"):
        np.testing.assert_array_equal(targets(RAW, KEYS, NAMES, name), [[1, 0, .5, 0], [.5, .5, 1, 0]])
    np.testing.assert_array_equal(hard_targets(RAW, "U-Half+ct"), BY_HAND["u-ones"])
    assert recipes.change(recipes.PHAM2019, "policy=u-half+ct").conditional


def test_p_positive_of_three_classes_leaves_the_uncertain_one_out():
    three = np.array([[.2, .6, .2], [0, 0, 1], [.5, 0, .5], [1e-12, 3e-12, 1]], np.float32)
    result = labels.positive_of_three(three)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [.75, .5, 0, .75], rtol=1e-6, atol=1e-20)


def test_key_is_the_part_after_the_first_slash():
    assert labels.key("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg") == KEYS[0]
    assert labels.key("00000001_000.png") == "00000001_000.png"


def test_the_bridge_between_label_sets():
    nih = np.zeros((4, 14), np.float32)
    nih[0, CHESTXRAY14_LABELS.index("Nodule")] = 1
    nih[1, CHESTXRAY14_LABELS.index("Effusion")] = 1
    nih[2, CHESTXRAY14_LABELS.index("Infiltration")] = 1
    chexpert = dict(zip(CHEXPERT_LABELS, translate(nih, CHESTXRAY14_LABELS, CHEXPERT_LABELS).T))
    np.testing.assert_array_equal(chexpert["Lung Lesion"], [1, 0, 0, 0])
    np.testing.assert_array_equal(chexpert["Pleural Effusion"], [0, 1, 0, 0])
    np.testing.assert_array_equal(chexpert["Lung Opacity"], [1, 0, 1, 0])
    np.testing.assert_array_equal(chexpert["No Finding"], [0, 0, 0, 1])
    assert np.isnan(chexpert["Support Devices"]).all()
    back = np.zeros((1, 14), np.float32)
    back[0, CHEXPERT_LABELS.index("Lung Lesion")] = 1
    truth = dict(zip(CHESTXRAY14_LABELS, translate(back, CHEXPERT_LABELS, CHESTXRAY14_LABELS)[0]))
    assert np.isnan(truth["Mass"]) and np.isnan(truth["Nodule"]) and truth["Effusion"] == 0  # which of the two: unknown
    assert np.isnan(truth["Hernia"]) and np.isnan(truth["Infiltration"])
    scores = translate(back * .7, CHEXPERT_LABELS, CHESTXRAY14_LABELS, scores=True)[0]
    scores = dict(zip(CHESTXRAY14_LABELS, scores))
    assert scores["Mass"] == scores["Nodule"] == np.float32(.7)
