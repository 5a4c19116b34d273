"""Thresholds, calibration, the whole evaluation, comparison and the tree."""

import numpy as np
import pandas as pd
import pytest
from asking import joined, judged
from hypothesis import given, settings
from hypothesis import strategies as st

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import calibration, comparison, names, thresholds
from chexpert_hier.labels import CHEXPERT_LABELS, COMPETITION_LABELS

LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")


def tables(films=200, patients=120, seed=0, labels=LABELS, noise=1.0):
    random = np.random.default_rng(seed)
    who = np.sort(random.integers(0, patients, films))
    keys = [f"CheXpert-v1.0/valid/patient{p:05d}/study{k}/view1_frontal.jpg" for k, p in enumerate(who)]
    truth = pd.DataFrame({"Path": keys, "Sex": random.choice(["Male", "Female"], films),
                          "Age": random.integers(18, 91, films)})
    predicted = pd.DataFrame({"Path": keys})
    for label in labels:
        truth[label] = (random.random(films) < 0.3).astype(float)
        predicted[label] = 1 / (1 + np.exp(-(random.normal(size=films) * noise + 1.5 * truth[label] - 1)))
    return predicted, truth


def test_the_table_has_one_row_per_label_and_the_mean_of_five():
    predicted, truth = tables()
    result = judged(predicted, truth, replicates=200)
    table = result.table
    assert list(table["label"]) == [x for x in CHEXPERT_LABELS if x in LABELS] + ["mean of five"]
    assert list(table.columns[:6]) == ["label", "auroc", "auroc_low", "auroc_high", "positives", "negatives"]
    five = table.iloc[:-1]
    assert table["auroc"].iloc[-1] == pytest.approx(five["auroc"].mean(), abs=1e-12)
    assert table["labels_counted"].iloc[-1] == 5
    assert ((table["auroc_low"] < table["auroc"]) & (table["auroc"] < table["auroc_high"])).all()
    means = result.replicates.mean(1)                                # joint: the mean's interval comes from means
    last = table[["auroc_low", "auroc_high"]].iloc[-1].astype(float)
    np.testing.assert_allclose(last, np.quantile(means, [.025, .975]))
    assert table["positives"].iloc[0] == truth[table["label"].iloc[0]].sum()


def test_row_order_and_label_order_change_nothing():
    predicted, truth = tables()
    order = np.random.default_rng(0).permutation(len(truth))
    shuffled = predicted[["Path", *LABELS[::-1]]].iloc[order]
    one = judged(predicted, truth, replicates=100).table.set_index("label")
    two = judged(shuffled, truth.iloc[::-1], replicates=100).table.set_index("label")
    pd.testing.assert_frame_equal(one, two.loc[one.index], check_exact=False, rtol=1e-9)


def test_a_monotone_transform_changes_no_rank_measure():
    predicted, truth = tables()
    moved = predicted.copy()
    moved[list(LABELS)] = predicted[list(LABELS)] ** 3
    columns = ["auroc", "auroc_low", "auroc_high", "delong_low", "average_precision", "sensitivity", "ppv", "f1"]
    one, two = (judged(p, truth, replicates=100).table[columns] for p in (predicted, moved))
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)


def test_a_missing_class_is_nan_with_counts_and_said_in_words():
    predicted, truth = tables()
    truth["Edema"] = 0.0
    truth.loc[5:, "Consolidation"] = 0.0
    truth.loc[:4, "Consolidation"] = 1.0
    result = judged(predicted, truth, replicates=300)
    row = result.table.set_index("label").loc["Edema"]
    assert np.isnan(row["auroc"]) and row["positives"] == 0 and row["negatives"] == 200
    assert result.table["labels_counted"].iloc[-1] == 4
    assert any("Edema: no AUROC" in note for note in result.notes)
    assert any("Fewer than 10 positives" in note and "Consolidation (5)" in note for note in result.notes)
    assert result.table.set_index("label").loc["Consolidation", "few_positives"]


def test_other_labels_have_a_mean_that_says_over_how_many():
    predicted, truth = tables(labels=("Edema", "Hernia"))
    assert judged(predicted, truth, replicates=10).mean_name == "mean of 2"


def test_constant_scores_are_a_half_and_said():
    predicted, truth = tables()
    predicted["Edema"] = 0.4
    result = judged(predicted, truth, replicates=50)
    assert result.table.set_index("label").loc["Edema", "auroc"] == 0.5
    assert any("Edema: all scores are the same" in note for note in result.notes)


def test_scores_outside_0_to_1_are_ranked_but_not_calibrated(caplog):
    predicted, truth = tables()
    moved = predicted.copy()
    moved[list(LABELS)] = predicted[list(LABELS)] * 3 - 1
    with caplog.at_level("WARNING", logger="chexpert_hier.evaluate"):
        result = judged(moved, truth, replicates=50)
    assert len(caplog.records) == 1
    assert result.table["brier"].isna().all() and not result.reliability
    assert any("outside [0, 1]" in note and "left out" in note for note in result.notes)
    np.testing.assert_allclose(result.table["auroc"], judged(predicted, truth, replicates=0).table["auroc"])


# thresholds

@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=3, max_size=30),
       st.sampled_from(["youden", "f1", "sensitivity=0.8", "specificity=0.7"]))
def test_thresholds_are_the_best_of_all(rows, rule):
    scores, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    chosen = thresholds.choose(scores, truth, rule)
    if truth.min() == truth.max():
        assert np.isnan(chosen)
        return

    def at(threshold):
        found = thresholds.rates(thresholds.confusion((scores >= threshold).astype(float), truth)[0])
        return {name: float(value) for name, value in found.items()}
    every = {t: at(t) for t in [*np.unique(scores), np.inf]}
    name, _, value = rule.partition("=")
    if name == "sensitivity":
        assert chosen == max(t for t, r in every.items() if r["sensitivity"] >= float(value))
    elif name == "specificity":
        assert chosen == min(t for t, r in every.items() if r["specificity"] >= float(value))
    else:
        worth = {t: r["f1"] if name == "f1" else r["sensitivity"] + r["specificity"] for t, r in every.items()}
        assert worth[chosen] == pytest.approx(max(worth.values()))


def test_no_film_is_judged_at_a_threshold_it_helped_to_choose():
    predicted, truth = tables(seed=3)
    cases = joined(predicted, truth)
    seen = []

    def fit(scores, known):
        seen.append(set(scores))
        return scores

    def use(learned, scores):
        assert not set(scores) & set(learned)
        return scores
    out = thresholds.cross_fitted(cases.scores[:, 0], cases.truth[:, 0], cases.patients, fit, use)
    np.testing.assert_array_equal(out, cases.scores[:, 0])
    assert len(seen) == thresholds.FOLDS
    fold = thresholds.folds_of(cases.truth[:, 0], cases.patients)
    assert all(len(set(fold[cases.patients == p])) == 1 for p in np.unique(cases.patients))


def test_cross_fitting_is_honest_on_noise():
    """Scores that know nothing: Youden chosen on the same films looks better than chance, cross-fitted it does not."""
    gaps, naive = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        scores, truth = random.random(150), (np.arange(150) < 20).astype(float)
        calls = thresholds.cross_fitted(scores, truth, np.arange(150), lambda s, t: thresholds.choose(s, t, "youden"),
                                        thresholds.call, seed)
        same = thresholds.call(thresholds.choose(scores, truth, "youden"), scores)
        for values, out in ((calls, gaps), (same, naive)):
            found = thresholds.rates(thresholds.confusion(values, truth)[0])
            out.append(found["sensitivity"] + found["specificity"] - 1)
    assert np.mean(naive) > 0.12 and abs(np.mean(gaps)) < 0.08


def test_thresholds_from_other_films_and_given_ones():
    predicted, truth = tables(seed=1)
    others = tables(seed=2, patients=120)
    for table in others:
        table["Path"] = table["Path"].str.replace("/valid/patient", "/train/patient9")
    result = judged(predicted, truth, fit=others, replicates=20)
    fitting = joined(*others)
    k = result.cases.labels.index("Edema")
    expected = thresholds.choose(fitting.scores[:, k], fitting.truth[:, k], "youden")
    row = result.table.set_index("label").loc["Edema"]
    assert row["threshold"] == expected
    called = predicted["Edema"] >= expected
    assert row["sensitivity"] == pytest.approx((called & (truth["Edema"] == 1)).sum() / truth["Edema"].sum())
    given_ = judged(predicted, truth, threshold=0.5, replicates=20)
    assert (given_.table["threshold"].iloc[:-1] == 0.5).all()
    assert "given" in given_.settings["threshold"]
    with pytest.raises(InputError, match="also judged"):
        judged(predicted, truth, fit=(predicted, truth), replicates=0)


@pytest.mark.parametrize("rule", ["best", "sensitivity", "sensitivity=2", "x.json", "nan"])
def test_a_threshold_rule_that_is_none_is_refused(rule):
    with pytest.raises(InputError, match="youden"):
        thresholds.parse_rule(rule)


# calibration

def test_brier_and_calibration_error_by_hand():
    scores, truth = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 1, 1, 1.0])
    assert calibration.brier(scores, truth) == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert calibration.calibration_error(scores, truth) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    assert calibration.calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0


def test_platt_leaves_calibrated_scores_and_mends_distorted_ones():
    random = np.random.default_rng(0)
    p = random.uniform(0.02, 0.98, 20000)
    truth = (random.random(20000) < p).astype(float)
    scaling = calibration.fit(p, truth)
    assert scaling.slope == pytest.approx(1, abs=0.05) and scaling.intercept == pytest.approx(0, abs=0.05)
    logit = np.log(p / (1 - p))
    distorted = 1 / (1 + np.exp(-(2.5 * logit + 1)))
    mended = calibration.fit(distorted, truth)(distorted)
    assert np.abs(mended - p).max() < 0.03
    assert calibration.calibration_error(mended, truth) < 0.02 < calibration.calibration_error(distorted, truth)


def test_platt_is_scikit_learns_logistic_regression_on_the_smoothed_targets():
    from sklearn.linear_model import LogisticRegression
    random = np.random.default_rng(1)
    scores, truth = random.uniform(0.05, 0.95, 300), (np.arange(300) % 4 == 0).astype(float)
    ours = calibration.fit(scores, truth)
    x = np.log(scores / (1 - scores))[:, None]
    high, low = (75 + 1) / (75 + 2), 1 / (225 + 2)
    target = np.where(truth == 1, high, low)
    theirs = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        np.r_[x, x], np.r_[np.ones(300), np.zeros(300)], sample_weight=np.r_[target, 1 - target])
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_platt_stays_finite_on_separable_scores():
    scaling = calibration.fit(np.array([0.0, 0.1, 0.9, 1.0]), np.array([0, 0, 1, 1.0]))
    out = scaling(np.array([0.0, 0.5, 1.0]))
    assert np.isfinite(out).all() and (np.diff(out) > 0).all()


def test_isotonic_needs_200_positives_and_goes_through_json():
    random = np.random.default_rng(2)
    scores = random.random(1000)
    truth = (random.random(1000) < scores**2).astype(float)
    few = np.where(np.cumsum(truth) <= 199, truth, 0.0)
    assert calibration.fit(scores, few, "isotonic").method == "platt"
    scaling = calibration.fit(scores, truth, "isotonic")
    assert scaling.method == "isotonic" and (np.diff(scaling(np.sort(scores))) >= 0).all()
    again = calibration.read_scalings({"Edema": scaling.as_dict()})["Edema"]
    np.testing.assert_array_equal(again(scores), scaling(scores))
    assert calibration.fit(scores, np.zeros(1000)).method == "none"


def test_calibrated_scores_obey_the_tree():
    predicted, truth = tables(labels=CHEXPERT_LABELS, films=300)
    result = judged(predicted, truth, replicates=0)
    tree = hierarchy.CHEXPERT_TREE
    assert list(result.cases.labels) == list(tree.labels)
    assert hierarchy.contradictions(result.calibrated, tree).above.sum() == 0
    assert hierarchy.contradictions(result.cases.scores, tree).above.sum() > 0
    by_hand = calibration.under_ancestors(np.array([[0.2, 0.9, 0.5]]),
                                          ("Lung Opacity", "Pneumonia", "Consolidation"), tree)
    np.testing.assert_array_equal(by_hand, [[0.2, 0.2, 0.2]])


# the tree, subgroups, comparison

def test_the_tree_report_counts_contradictions_before_and_after():
    predicted, truth = tables(labels=CHEXPERT_LABELS, films=50)
    result = judged(predicted, truth, replicates=0)
    row = result.tree[(result.tree["child"] == "Edema")].iloc[0]
    assert row["above_before"] == (predicted["Edema"] > predicted["Lung Opacity"]).sum()
    assert row["truth_broken"] == ((truth["Edema"] == 1) & (truth["Lung Opacity"] == 0)).sum()
    assert (result.tree["above_after"] == 0).all()
    product = predicted.copy()
    product[list(CHEXPERT_LABELS)] = hierarchy.chain_rule(predicted[list(CHEXPERT_LABELS)].to_numpy(),
                                                          hierarchy.CHEXPERT_TREE)
    both = judged(product, truth, conditional=predicted, replicates=30)
    assert list(both.tree["above_before"]) == list(result.tree["above_before"])
    assert list(both.comparisons) == ["after the chain rule against before"]


def test_subgroups_are_evaluations_of_their_films():
    predicted, truth = tables()
    result = judged(predicted, truth, by=("Sex", "Age"), replicates=50)
    men = truth["Sex"] == "Male"
    alone = judged(predicted[men], truth[men], replicates=50).table
    part = result.subgroups[(result.subgroups["group"] == "Male")]
    np.testing.assert_allclose(part["auroc"].to_numpy(), alone["auroc"].to_numpy())
    np.testing.assert_allclose(part["auroc_low"].to_numpy(), alone["auroc_low"].to_numpy())
    ages = result.subgroups[result.subgroups["by"] == "Age"].drop_duplicates("group")
    assert ages["cases"].sum() == 200 and list(ages["group"]) == ["under 50", "50 to 69", "70 and over"]
    with pytest.raises(InputError, match=r"column 'Ward'; there are: Sex, Age$"):
        judged(predicted, truth, by=("Ward",), replicates=0)


def test_comparing_predictions_with_themselves_is_within_noise():
    predicted, truth = tables()
    cases = joined(predicted, truth)
    table = comparison.compare(cases, cases, replicates=50)
    assert (table["difference"] == 0).all() and (table["p_holm"] == 1).all()
    assert set(table["verdict"]) == {"within noise"}


def test_a_clear_difference_is_said_and_delongs_p_is_right():
    from scipy.stats import norm
    predicted, truth = tables(films=400, patients=400, seed=5)
    worse = tables(films=400, patients=400, seed=5, noise=6.0)[0]
    first, second = joined(predicted, truth), joined(worse, truth)
    table = comparison.compare(first, second, ("good", "bad"), replicates=300)
    assert table["verdict"].iloc[-1] == "good is better, beyond noise"
    both = np.c_[first.scores[:, 0], second.scores[:, 0]]
    areas, covariance = evaluate.delong(both, first.truth[:, 0], first.patients)
    z = (areas[1] - areas[0]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert table["p_delong"].iloc[0] == pytest.approx(2 * norm.sf(abs(z)))
    swapped = comparison.compare(second, first, ("bad", "good"), replicates=300)
    np.testing.assert_allclose(swapped["difference"], -table["difference"])
    np.testing.assert_allclose(swapped["difference_low"], -table["difference_high"])


def test_holm_by_hand():
    np.testing.assert_allclose(comparison.holm(np.array([0.01, 0.04, 0.03, np.nan])), [0.03, 0.06, 0.06, np.nan])


def test_the_mean_is_over_the_competition_labels_only():
    assert names.mean_labels(CHEXPERT_LABELS) == ("mean of five", COMPETITION_LABELS)
    predicted, truth = tables(labels=CHEXPERT_LABELS)
    table = judged(predicted, truth, replicates=0).table.set_index("label")["auroc"]
    assert table["mean of five"] == pytest.approx(table[list(COMPETITION_LABELS)].mean())
