"""AUROC, average precision, bootstrap and DeLong against slow obvious versions and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from asking import judged
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from chexpert_hier import evaluate
from chexpert_hier.evaluate import ranking


def pairs_won(scores, truth):
    """The definition: pairs of a positive and a negative in the right order, ties one half."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    return np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])


def drawn(seed, films=60, levels=8, prevalence=0.3, patients=None):
    random = np.random.default_rng(seed)
    truth = (random.random(films) < prevalence).astype(float)
    truth[:2] = 0, 1
    scores = np.round(random.random(films) + 0.3 * truth, 1 if levels < 20 else 6)
    return scores, truth, random.integers(0, patients or films, films)


def test_auroc_by_hand():
    truth = np.array([1, 1, 0, 0, 0])
    scores = np.array([0.9, 0.4, 0.4, 0.3, 0.2])            # 6 pairs: 5 won, 1 tie
    assert evaluate.auroc(scores, truth) == 5.5 / 6
    assert evaluate.auroc(-scores, truth) == pytest.approx(0.5 / 6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_won(rows):
    scores, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    if truth.min() == truth.max():
        assert np.isnan(evaluate.auroc(scores, truth))
    else:
        assert evaluate.auroc(scores, truth) == pytest.approx(pairs_won(scores, truth), abs=1e-12)
        expected = average_precision_score(truth, scores)
        assert evaluate.average_precision(scores, truth) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("levels", [8, 1000])
def test_auroc_and_average_precision_are_scikit_learns(levels):
    for seed in range(5):
        scores, truth, _ = drawn(seed, 300, levels)
        assert evaluate.auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        expected = average_precision_score(truth, scores)
        assert evaluate.average_precision(scores, truth) == pytest.approx(expected, abs=1e-7)


def test_films_without_truth_do_not_count():
    scores, truth, _ = drawn(1)
    unknown = np.r_[truth, np.full(20, np.nan)]
    assert evaluate.auroc(np.r_[scores, np.linspace(0, 1, 20)], unknown) == evaluate.auroc(scores, truth)


def test_a_missing_class_is_nan_and_constant_scores_are_a_half():
    assert np.isnan(evaluate.auroc(np.arange(4.0), np.zeros(4)))
    assert np.isnan(evaluate.auroc(np.arange(4.0), np.ones(4)))
    assert np.isnan(evaluate.average_precision(np.arange(4.0), np.zeros(4)))
    assert evaluate.auroc(np.full(4, 0.3), np.array([0, 1, 1, 0])) == 0.5


def test_a_monotone_transform_and_row_order_change_nothing():
    scores, truth, patients = drawn(2, 200, 1000, patients=80)
    order = np.random.default_rng(0).permutation(200)
    here = evaluate.bootstrap_auroc(scores, truth, patients, replicates=50)
    np.testing.assert_allclose(here, evaluate.bootstrap_auroc(np.exp(5 * scores), truth, patients, replicates=50))
    again = evaluate.bootstrap_auroc(scores[order], truth[order], patients[order], replicates=50)
    np.testing.assert_allclose(here, again)


def test_roc_curve_has_scikit_learns_points():
    scores, truth, _ = drawn(3, 100)
    expected = sklearn_roc_curve(truth, scores, drop_intermediate=False)
    for ours, theirs in zip(ranking.roc_curve(scores, truth), expected):
        np.testing.assert_allclose(ours, theirs)


def test_every_replicate_is_scikit_learn_on_the_films_of_the_drawn_patients():
    scores, truth, patients = drawn(4, 120, patients=40)
    patients = np.unique(patients, return_inverse=True)[1]
    total = patients.max() + 1
    rank = ranking.Ranks.of(scores, truth, patients, total)
    for counts in ranking.resamples(total, 20, seed=5):
        areas, precisions = rank.measure(counts)
        for r in range(20):
            rows = np.repeat(np.arange(120), counts[patients, r].astype(int))
            assert areas[r] == pytest.approx(roc_auc_score(truth[rows], scores[rows]), abs=1e-9)
            assert precisions[r] == pytest.approx(average_precision_score(truth[rows], scores[rows]), abs=1e-6)


def test_a_resample_draws_as_many_patients_as_there_are_and_depends_on_the_seed_only():
    first, again, other = (np.concatenate(list(ranking.resamples(50, 700, seed)), 1) for seed in (1, 1, 2))
    assert (first.sum(0) == 50).all() and (first == again).all() and (first != other).any()
    assert abs(first.mean() - 1) < 1e-6 and abs(first.var() - 0.98) < 0.05     # binomial(50, 1/50)


def test_all_labels_are_resampled_together():
    scores, truth, _ = drawn(6, 80, 1000)
    two = evaluate.bootstrap_auroc(np.c_[scores, scores], np.c_[truth, truth], replicates=30)
    np.testing.assert_array_equal(two[:, 0], two[:, 1])
    np.testing.assert_array_equal(two[:, 0], evaluate.bootstrap_auroc(scores, truth, replicates=30))


def test_resamples_without_both_classes_are_nan_and_stratified_ones_never_lack_one():
    scores, truth = np.arange(20.0), (np.arange(20) == 19).astype(float)
    plain = evaluate.bootstrap_auroc(scores, truth, replicates=500)
    assert 0.25 < np.isnan(plain).mean() < 0.5                                # (1 - 1/20)^20 = 0.36
    stratified = evaluate.bootstrap_auroc(scores, truth, replicates=500, stratified=True)
    assert not np.isnan(stratified).any()


def test_stratified_resamples_keep_the_number_of_positives():
    _, truth, _ = drawn(7, 90)
    groups = ranking.strata(truth[:, None], np.arange(90))
    for counts in ranking.resamples(90, 40, 0, groups):
        assert (counts[truth == 1].sum(0) == truth.sum()).all() and (counts.sum(0) == 90).all()


def delong_by_pairs(scores, truth):
    positive, negative = scores[truth == 1], scores[truth == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return wins.mean(), wins.mean(1), wins.mean(0)


def test_delong_is_the_published_formula():
    scores, truth, _ = drawn(8, 150)
    other = np.round(scores + np.random.default_rng(1).normal(size=150) * 0.2, 1)
    areas, covariance = evaluate.delong(np.c_[scores, other], truth)
    m, n = truth.sum(), (truth == 0).sum()
    (a, v10, v01), (b, w10, w01) = delong_by_pairs(scores, truth), delong_by_pairs(other, truth)
    expected = np.cov(np.c_[v10, w10].T) / m + np.cov(np.c_[v01, w01].T) / n
    np.testing.assert_allclose(areas, [a, b])
    np.testing.assert_allclose(covariance, expected)


def obuchowski(scores, truth, patients):
    """Obuchowski 1997 as printed, cluster by cluster."""
    area, v10, v01 = delong_by_pairs(scores, truth)
    who_positive, who_negative = patients[truth == 1], patients[truth == 0]
    m, n, s10, s01, s11 = len(who_positive), len(who_negative), 0.0, 0.0, 0.0
    clusters = np.unique(patients)
    for cluster in clusters:
        x = (v10[who_positive == cluster] - area).sum()
        y = (v01[who_negative == cluster] - area).sum()
        s10, s01, s11 = s10 + x * x, s01 + y * y, s11 + x * y
    i10, i01, i = len(set(who_positive)), len(set(who_negative)), len(clusters)
    s10, s01, s11 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n), s11 * i / (i - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def test_clustered_delong_is_obuchowskis_formula_and_agrees_with_the_patient_bootstrap():
    scores, truth, patients = drawn(9, 400, 1000, patients=90)
    covariance = evaluate.delong(scores, truth, patients)[1]
    assert covariance[0, 0] == pytest.approx(obuchowski(scores, truth, patients), rel=1e-9)
    spread = evaluate.bootstrap_auroc(scores, truth, patients, replicates=4000).std()
    assert np.sqrt(covariance[0, 0]) == pytest.approx(spread, rel=0.1)
    alone = evaluate.delong(scores, truth, np.arange(400))[1]
    np.testing.assert_allclose(alone, evaluate.delong(scores, truth)[1])


def test_copies_of_films_do_not_narrow_the_clustered_interval():
    scores, truth, _ = drawn(10, 80, 1000)
    once = evaluate.delong(scores, truth)[1][0, 0]
    twice = evaluate.delong(np.tile(scores, 2), np.tile(truth, 2), np.tile(np.arange(80), 2))[1][0, 0]
    assert twice == pytest.approx(once, rel=0.05)
    assert evaluate.delong(np.tile(scores, 2), np.tile(truth, 2))[1][0, 0] < 0.6 * once


def test_delong_without_two_patients_per_class_is_nan():
    areas, covariance = evaluate.delong(np.arange(5.0), np.array([0, 0, 0, 0, 1]))
    assert areas[0] == 1 and np.isnan(covariance).all()
    assert np.isnan(evaluate.delong(np.arange(3.0), np.zeros(3))[0]).all()
    assert np.isnan(evaluate.delong_interval(1.0, np.nan)).all()


def test_delong_intervals():
    expected = 0.9 - 1.959964 * 0.05, 0.9 + 1.959964 * 0.05
    assert evaluate.delong_interval(0.9, 0.0025) == pytest.approx(expected, abs=1e-6)
    assert evaluate.delong_interval(0.99, 0.0025)[1] == 1.0
    low, high = evaluate.delong_interval(0.99, 0.0025, scale="logit")
    assert 0 < low < 0.99 < high < 1


def test_chexnets_published_aurocs_to_six_decimals(shared_data):
    folder = shared_data / "chexnet_preds"
    predictions = evaluate.read_predictions(folder / "reference_preds.csv.gz")
    truth = evaluate.read_truth(folder / "reference_preds_truth_onehot.csv.gz")
    table = judged(predictions, truth, replicates=20, curves=False).table.set_index("label")["auroc"]
    published = pd.read_csv(folder / "reference_aucs.csv").set_index("label")["auc"]
    assert len(published) == 14
    np.testing.assert_allclose(table[published.index], published, atol=5e-7)
    assert table["mean of 14"] == pytest.approx(0.838267, abs=5e-7)


@pytest.mark.slow
def test_coverage_of_the_bootstrap_interval():
    """500 studies, 100 positives, AUROC 0.8: 93 to 97 % of 1,000 data sets."""
    random = np.random.default_rng(0)
    truth = (np.arange(500) < 100).astype(float)
    shift = np.sqrt(2) * 0.8416212335729143                                   # AUROC 0.8 for unit normals
    held = delong_held = 0
    for number in range(1000):
        scores = random.normal(size=500) + shift * truth
        low, high = ranking.percentile_interval(evaluate.bootstrap_auroc(scores, truth, replicates=1000, seed=number))
        held += low <= 0.8 <= high
        areas, covariance = evaluate.delong(scores, truth)
        low, high = evaluate.delong_interval(areas[0], covariance[0, 0])
        delong_held += low <= 0.8 <= high
    assert 930 <= held <= 970
    assert 930 <= delong_held <= 970
