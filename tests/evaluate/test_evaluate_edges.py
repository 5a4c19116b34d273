"""Numbers at their edges: one film, one positive, a count at its limit, nothing drawn, defaults as documented."""

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from asking import joined, judged
from test_evaluate_judging import tables

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import calibration, comparison, intervals, ranking, thresholds, variance

NAN = np.nan
DEFAULTS = {
    ranking.bootstrap_auroc: {"patients": None, "replicates": 1000, "seed": 0, "stratified": False},
    ranking.strata: {"smallest": 5}, ranking.percentile_interval: {"level": 0.95},
    ranking.resamples: {"strata": None}, intervals.rank_table: {"curves": False},
    intervals.Resampling: {"replicates": 1000, "seed": 0, "stratified": False},
    comparison.compare: {"names": ("first", "second"), "replicates": 1000, "seed": 0},
    comparison.compare_systems: {"pairs": "first", "replicates": 1000, "seed": 0},
    calibration.reliability: {"bins": 10}, calibration.calibration_error: {"bins": 10},
    calibration.wilson: {"z": 1.959964}, calibration.fit: {"method": "platt"},
    thresholds.folds_of: {"seed": 0, "folds": 5}, thresholds.cross_fitted: {"seed": 0},
    variance.delong: {"patients": None}, variance.delong_interval: {"level": 0.95, "scale": "plain"},
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda function: function.__name__)
def test_defaults_are_those_that_are_documented(function):
    found = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()
             if parameter.default is not inspect.Parameter.empty}
    assert found == DEFAULTS[function]


# ranking

def test_one_film_or_none_has_no_area():
    for films in (0, 1):
        for measure in (evaluate.auroc, evaluate.average_precision):
            assert np.isnan(measure(np.full(films, 0.5), np.ones(films)))
            assert np.isnan(measure(np.full(films, 0.5), np.zeros(films)))
    assert ranking.bootstrap_auroc(np.zeros((0, 2)), np.zeros((0, 2)), replicates=3).shape == (3, 2)


def test_one_positive_and_one_negative_are_enough_for_a_curve():
    counts = np.array([[1, 1, 0], [1, 0, 1]], float)                 # both, the positive alone, the negative alone
    found = ranking.Ranks.of(np.array([0.9, 0.1]), np.array([1.0, 0.0])).curves(counts)
    assert (found.roc[0] == 1).all() and (found.precision[0] == 1).all()
    assert np.isnan(found.roc[1:]).all() and np.isnan(found.precision[1:]).all()
    assert len(ranking.BAND) == 101 and ranking.BAND[0] == 0 and ranking.BAND[50] == 0.5 and ranking.BAND[100] == 1


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_the_points_of_a_missing_class_are_none(truth):
    assert [len(part) for part in ranking.roc_curve(np.arange(3.0), np.full(3, truth))] == [0, 0, 0]


def test_resamples_come_in_blocks_that_add_up_and_keep_their_strata():
    groups = np.array([0, 0, 0, 1, 1])
    blocks = list(ranking.resamples(5, 1100, 0, groups))
    assert sum(block.shape[1] for block in blocks) == 1100 and len(blocks) == 3
    drawn = np.concatenate(blocks, 1)
    assert (drawn[:3].sum(0) == 3).all() and (drawn[3:].sum(0) == 2).all()
    assert abs(drawn.mean(1) - 1).max() < 0.1
    assert [block.shape for block in ranking.resamples(2, 1100, 0)] == [(2, 512), (2, 512), (2, 76)]


def test_a_block_of_resamples_has_its_size_in_memory(monkeypatch):
    for cells, patients, expected in ((3, 1, [3, 2]), (3, 5, [1] * 5), (10, 4, [2, 2, 1])):
        monkeypatch.setattr(ranking, "_CHUNK_CELLS", cells)
        assert [block.shape[1] for block in ranking.resamples(patients, 5, 0)] == expected
    assert ranking.Ranks.of(np.arange(100.0), np.arange(100) % 2).positives.dtype == np.float32


def test_one_patient_is_drawn_every_time():
    found = ranking.bootstrap_auroc(np.array([0.9, 0.1]), np.array([1.0, 0.0]), np.array(["P", "P"]), replicates=20)
    assert found.tolist() == [1.0] * 20


def test_strata_by_hand():
    patients = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    truth = np.array([[0, NAN], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], *[[0, 0]] * 4, [0, 1], [NAN, 1], [NAN, 1]])
    found = ranking.strata(truth, patients)                          # 5 patients (1, 0), 4 (0, 0), 1 (0, 1), 2 (-, 1)
    assert len(set(found[:5])) == 1 and found[0] != -1 and (found[5:] == -1).all()
    assert (ranking.strata(truth[6:], np.arange(7)) == 0).all()      # all patterns are rare: one stratum
    one = ranking.strata(truth[:, :1], patients)                     # one label: nothing is pooled
    assert [sorted(set(one[rows])) for rows in (slice(0, 5), slice(5, 10), slice(10, 12))] == [[2], [1], [0]]
    many = ranking.strata(truth, patients, smallest=1)
    assert len(set(many)) == 4 and -1 not in many


def test_percentile_intervals_by_hand():
    values = np.r_[np.arange(101.0), NAN, NAN]
    assert ranking.percentile_interval(values) == pytest.approx((2.5, 97.5))
    assert ranking.percentile_interval(values, 0.5) == pytest.approx((25.0, 75.0))
    assert np.isnan(ranking.percentile_interval(np.array([NAN]))).all()


# intervals

def few(positives, films=40):
    """Cases of one label with so many positives, one film each patient."""
    keys = [f"a/valid/patient{k:05d}/study1/view1_frontal.jpg" for k in range(films)]
    truth = (np.arange(films) < positives).astype(float)
    scores = np.random.default_rng(0).random(films)
    return joined(pd.DataFrame({"Path": keys, "Edema": scores}), pd.DataFrame({"Path": keys, "Edema": truth}))


def test_few_positives_are_fewer_than_ten():
    for positives, flag in ((9, True), (10, False)):
        assert intervals.rank_table(few(positives), intervals.Resampling(0)).table["few_positives"].tolist() == [flag]


def test_replicates_without_a_class_are_counted_and_leave_the_bands():
    found = intervals.rank_table(few(1), intervals.Resampling(60), curves=True)
    dropped = np.isnan(found.replicates[:, 0]).sum()
    assert found.table["dropped_replicates"].tolist() == [dropped] and 10 < dropped < 40
    assert all(np.isfinite(values).all() for values in found.curves["Edema"].values())
    nothing = intervals.rank_table(few(5), intervals.Resampling(0), curves=True)
    assert np.isnan(nothing.curves["Edema"]["roc_low"]).all() and np.isfinite(nothing.curves["Edema"]["roc"]).all()
    assert nothing.table["dropped_replicates"].tolist() == [0] and nothing.replicates.shape == (0, 1)
    assert intervals.rank_table(few(5), intervals.Resampling(2)).curves == {}


def test_bands_are_of_the_first_500_resamples():
    cases = few(15)
    band = intervals.rank_table(cases, intervals.Resampling(540, 3), curves=True).curves["Edema"]
    first = np.concatenate(list(ranking.resamples(40, 540, 3)), 1)[:, :500]
    drawn = ranking.Ranks.of(cases.scores[:, 0], cases.truth[:, 0], cases.patients, 40).curves(first)
    np.testing.assert_allclose([band["roc_low"], band["roc_high"]], np.quantile(drawn.roc, [0.025, 0.975], axis=0))


def test_bands_end_within_a_block(monkeypatch):
    monkeypatch.setattr(ranking, "_CHUNK_CELLS", 40 * 20)             # blocks of 20
    monkeypatch.setattr(intervals, "_BANDS_FROM", 50)
    cases = few(15)
    band = intervals.rank_table(cases, intervals.Resampling(80, 3), curves=True).curves["Edema"]
    first = np.concatenate(list(ranking.resamples(40, 80, 3)), 1)[:, :50]
    drawn = ranking.Ranks.of(cases.scores[:, 0], cases.truth[:, 0], cases.patients, 40).curves(first)
    np.testing.assert_allclose([band["roc_low"], band["roc_high"]], np.quantile(drawn.roc, [0.025, 0.975], axis=0))


def test_the_error_by_delong_is_in_the_table():
    cases = few(12)
    variance_ = evaluate.delong(cases.scores[:, 0], cases.truth[:, 0]).covariance[0, 0]
    row = intervals.rank_table(cases, intervals.Resampling(0)).table.iloc[0]
    assert row["delong_error"] == pytest.approx(np.sqrt(variance_)) and 0 < row["delong_error"] < 0.2
    assert (row["delong_low"], row["delong_high"]) == pytest.approx(evaluate.delong_interval(row["auroc"], variance_))


def test_stratified_tables_say_their_strata():
    cases = joined(*tables(films=80))
    found = intervals.rank_table(cases, intervals.Resampling(4, stratified=True))
    over = [cases.labels.index(label) for label in cases.labels]
    np.testing.assert_array_equal(found.strata, ranking.strata(cases.truth[:, over], cases.patients))
    assert intervals.rank_table(cases, intervals.Resampling(4)).strata is None


def test_the_mean_is_over_labels_with_both_classes_and_says_what_was_dropped():
    table = pd.DataFrame({"label": ["A", "B", "C", "D"], "auroc": [0.6, 0.8, NAN, NAN], "positives": [1, 4, 0, 9],
                          "negatives": [5, 1, 6, 0], "uncertain": [2, 3, 4, 5],
                          "few_positives": [True, False, True, True]})
    drawn = np.array([[0.5, 0.7, NAN, NAN], [0.6, 0.8, NAN, NAN], [NAN, 0.9, NAN, NAN]])
    whole, names = intervals.with_mean(table, {"auroc": drawn})
    last = whole.iloc[-1]
    assert names == ["A", "B"] and last["label"] == "mean of 4" and last["labels_counted"] == 2
    assert last["auroc"] == pytest.approx(0.7) and last["dropped_replicates"] == 1
    assert [last["auroc_low"], last["auroc_high"]] == pytest.approx([0.6025, 0.6975])
    assert [last["positives"], last["negatives"], last["uncertain"], last["few_positives"]] == [5, 6, 5, True]
    assert whole["labels_counted"].tolist() == [1, 1, 0, 0, 2] and whole.index.tolist() == list(range(5))
    nothing = intervals.with_mean(table.iloc[2:], {"auroc": drawn[:, 2:]}).table.iloc[-1]
    assert np.isnan(nothing["auroc"]) and nothing["labels_counted"] == 0 and not nothing["few_positives"]


def test_further_means_by_hand():
    table = pd.DataFrame({"auroc": [0.6, 0.9, NAN], "positives": [1, 3, 0]})
    found = intervals.further_means(table, np.array([[0.5, 0.9, NAN], [0.7, 0.9, NAN]]))
    assert found["label"].tolist() == ["mean of 2", "mean of 2, weighted by positives"]
    np.testing.assert_allclose(found["auroc"], [0.75, 0.825])
    np.testing.assert_allclose(found["auroc_low"], [0.7 + 0.1 * 0.025, 0.8 + 0.05 * 0.025])
    np.testing.assert_allclose(found["auroc_high"], [0.7 + 0.1 * 0.975, 0.8 + 0.05 * 0.975])
    assert found["labels_counted"].tolist() == [2, 2]
    assert intervals.further_means(table.iloc[2:], np.full((2, 1), NAN))["auroc"].isna().all()


# thresholds

def test_threshold_rules_are_read(tmp_path):
    for text in ("youden", "f1", "sensitivity=1", "specificity=0.01"):
        assert thresholds.parse_rule(text) == text
    assert thresholds.parse_rule("0.25") == 0.25 == thresholds.parse_rule(0.25)
    assert thresholds.parse_rule({"A": 1.0}) == {"A": 1.0}
    for text in ("sensitivity=0", "specificity=1.01", "inf", "accuracy=0.5", "0.5=", "youden="):
        with pytest.raises(InputError, match="expected youden"):
            thresholds.parse_rule(text)
    plain, whole = tmp_path / "plain.json", tmp_path / "evaluation.json"
    plain.write_text(json.dumps({"A": 0.5, "B": None}))
    whole.write_text(json.dumps({"labels": {"A": {"threshold": 0.25}, "B": {"threshold": None}}}))
    assert thresholds.parse_rule(str(plain)) == {"A": 0.5} and thresholds.parse_rule(str(whole)) == {"A": 0.25}


def test_threshold_rules_in_words():
    words = [thresholds.rule_in_words(rule) for rule in ({"A": 1.0}, 0.5, "youden", "f1", "sensitivity=0.9")]
    assert words == ["given per label", "given (0.5)", "the largest sensitivity + specificity (Youden)",
                     "the largest F1", "a sensitivity of at least 0.9"]


def test_a_rate_that_is_reached_exactly_is_reached():
    """1 - 9/10 is a little below 0.1 in floating point, and equally good thresholds give the highest."""
    scores, truth = np.arange(11.0), np.r_[1.0, np.zeros(10)]
    assert thresholds.choose(scores, truth, "specificity=0.1") == 2
    truth = np.r_[np.zeros(2), np.ones(10)]
    assert thresholds.choose(np.arange(12.0), truth, "sensitivity=0.3") == 9
    assert thresholds.choose(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1.0]), "youden") == 0.4
    assert thresholds.choose(np.array([0.1, 0.2, 0.3]), np.array([1, 1, 0.0]), "youden") == np.inf
    assert thresholds.choose(np.array([0.1, 0.2, NAN]), np.array([0, 1, NAN]), "f1") == 0.2


def test_folds_share_out_the_positives():
    truth, patients = np.r_[np.ones(12), np.zeros(31)], np.arange(43)
    fold = thresholds.folds_of(truth, patients)
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert sorted(np.bincount(fold[:12])) == [2, 2, 2, 3, 3] and sorted(np.bincount(fold)) == [8, 8, 9, 9, 9]
    np.testing.assert_array_equal(fold, thresholds.folds_of(truth, patients, 0, 5))
    assert (fold != thresholds.folds_of(truth, patients, 1)).any()
    assert len(thresholds.folds_of(np.zeros(0), np.zeros(0, int))) == 0
    order = np.random.default_rng(7).permutation(43)                  # those with the finding first, in this order
    dealt = [*order[order < 12], *order[order >= 12]]
    assert thresholds.folds_of(truth, patients, 7)[dealt].tolist() == [k % 5 for k in range(43)]


def test_calls_and_their_counts_by_hand():
    np.testing.assert_array_equal(thresholds.call(0.5, np.array([0.4, 0.5, 0.6])), [0, 1, 1])
    assert np.isnan(thresholds.call(NAN, np.array([0.4]))).all()
    calls, truth = np.array([1, 0, 0, 1, NAN, 1, 0]), np.array([1, 1, 0, 0, 1, NAN, NAN])
    np.testing.assert_array_equal(thresholds.confusion(calls, truth), [[1, 1, 1, 1]])
    found = thresholds.confusion(calls, truth, np.array([0, 0, 2, 2, 0, 0, 0]), 4)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(thresholds.confusion(calls, truth, np.array([0, 0, 2, 2, 0, 0, 0])), found[:3])


def test_rates_by_hand():
    found = thresholds.rates(np.array([3, 1, 4, 2]))                  # tp, fn, tn, fp
    expected = {"sensitivity": 3 / 4, "specificity": 4 / 6, "ppv": 3 / 5, "npv": 4 / 5, "f1": 6 / 9,
                "mcc": (12 - 2) / np.sqrt(5 * 4 * 6 * 5)}
    assert tuple(found) == thresholds.MEASURES and {k: float(v) for k, v in found.items()} == pytest.approx(expected)


# calibration

def test_wilsons_interval_by_hand():
    low, high = calibration.wilson(np.array([0.5, 0.0, 1.0]), np.array([10, 10, 10]))
    np.testing.assert_allclose(low, [0.236593, 0.0, 0.722467], atol=1e-6)
    np.testing.assert_allclose(high, [0.763407, 0.277533, 1.0], atol=1e-6)
    counts = np.arange(1, 2000)
    assert calibration.wilson(np.ones(1999), counts)[1].max() <= 1
    assert calibration.wilson(np.zeros(1999), counts)[0].min() >= 0


def test_reliability_by_hand():
    scores = np.array([0.0, 0.09, 0.1, 0.95, 1.0, 0.5, NAN])
    truth = np.array([0.0, 1.0, 0.0, 1.0, 1.0, NAN, 1.0])
    table = calibration.reliability(scores, truth)
    np.testing.assert_allclose(table[["low", "high"]], [[0, 0.1], [0.1, 0.2], [0.9, 1.0]])
    assert table["films"].tolist() == [2, 1, 2] and table["observed"].tolist() == [0.5, 0, 1]
    np.testing.assert_allclose(table["predicted"], [0.045, 0.1, 0.975])
    low, high = calibration.wilson(np.array([0.5, 0, 1]), np.array([2, 1, 2]))
    np.testing.assert_allclose([table["observed_low"], table["observed_high"]], [low, high])
    assert len(calibration.reliability(scores, truth, bins=2)) == 2
    for measure in (calibration.brier, calibration.calibration_error):
        assert np.isnan(measure(np.array([0.5]), np.array([NAN])))


def test_scaling_by_hand():
    ends = calibration.Scaling("platt")(np.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(ends, [1e-6, 0.25, 1 - 1e-6], rtol=1e-9)
    np.testing.assert_allclose(calibration.Scaling("platt", 2.0, 1.0)(np.array([0.5])), [1 / (1 + np.exp(-1))])
    line = calibration.Scaling("isotonic", x=(0.2, 0.4), y=(0.0, 1.0))
    np.testing.assert_allclose(line(np.array([0.1, 0.25, 0.9])), [0, 0.25, 1])
    np.testing.assert_array_equal(calibration.Scaling("none", 3.0)(np.array([0.1])), [0.1])
    stored = {"method": "platt", "slope": 2.0, "intercept": 1.0, "x": (), "y": (), "positives": 7}
    assert calibration.Scaling(**stored).as_dict() == stored
    with pytest.raises(InputError, match="calibration"):
        calibration.read_scalings({"A": {"method": "platt", "steep": 1.0}})


def test_stored_scalings_are_whole():
    line = {"method": "isotonic", "x": [0.1, 0.9], "y": [0.0, 1.0]}
    found = calibration.read_scalings({"A": line, "B": {"method": "platt"}, "C": {"method": "none"}})
    assert found["A"].y == (0.0, 1.0) and found["B"] == calibration.Scaling("platt")
    for wrong, words in (({**line, "method": "beta"}, "method is 'beta'"), ({**line, "y": [0.0]}, "2 x and 1 y"),
                         ({"method": "isotonic"}, "0 x and 0 y; expected as many, and some for isotonic")):
        with pytest.raises(InputError, match=f"^calibration: A: {words}"):
            calibration.read_scalings({"A": wrong})


def test_scores_that_say_nothing_give_the_smoothed_share():
    """Of 3 positives and 7 negatives: targets 4 / 5 and 1 / 9."""
    found, share = calibration.fit(np.full(10, 0.5), np.r_[np.ones(3), np.zeros(7)]), (3 * 4 / 5 + 7 / 9) / 10
    assert found.slope == 0 and found.intercept == pytest.approx(np.log(share / (1 - share)), abs=1e-9)


def test_no_probability_above_an_ancestors():
    tree, given = hierarchy.CHEXPERT_TREE, np.array([[0.9, 0.2, 0.5, 0.7], [0.1, 0.8, 0.9, 0.7]])
    found = calibration.under_ancestors(given, ("Pneumonia", "Lung Opacity", "Consolidation", "Mass"), tree)
    np.testing.assert_array_equal(found, [[0.2, 0.2, 0.2, 0.7], [0.1, 0.8, 0.8, 0.7]])    # Mass is not in the tree
    alone = calibration.under_ancestors(given[:, :1], ("Pneumonia",), tree)
    np.testing.assert_array_equal(alone, given[:, :1])                # its ancestors are not there


def test_cells_that_do_not_count_for_brier():
    assert calibration.brier(np.array([NAN, 0.5, 0.25]), np.array([1.0, NAN, 1.0])) == pytest.approx(0.5625)


def test_decisions_drop_no_resample():
    predicted, truth = tables(films=20, patients=20, labels=("Edema",))
    truth["Edema"] = [1.0] + [0.0] * 19                               # most resamples lack the positive
    found = intervals.rank_table(joined(predicted.assign(Edema=truth["Edema"]), truth), intervals.Resampling(20)).table
    assert found["dropped_replicates"].tolist() == [0] and found["auroc"].isna().all()


def test_what_a_scaling_needs():
    random = np.random.default_rng(0)
    scores, truth = random.random(600), np.r_[np.ones(200), np.zeros(400)]
    assert calibration.fit(scores, truth, "isotonic").method == "isotonic"      # 200 positives are enough
    assert calibration.fit(scores, np.r_[NAN, truth[1:]], "isotonic").method == "platt"
    for known, positives in ((np.ones(600), 600), (np.zeros(600), 0)):
        assert calibration.fit(scores, known) == calibration.Scaling("none", positives=positives)
    assert calibration.fit(scores, truth, "none") == calibration.Scaling("none", positives=200)
    assert calibration.fit(scores, truth).positives == 200
    with pytest.raises(InputError, match="--calibrate"):
        calibration.fit(scores, truth, "beta")


def test_the_calibration_slope_is_that_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    random = np.random.default_rng(1)
    scores = random.uniform(0.05, 0.95, 400)
    truth = (random.random(400) < scores**2).astype(float)
    theirs = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(np.log(scores / (1 - scores))[:, None], truth)
    expected = theirs.coef_[0, 0], theirs.intercept_[0]
    assert calibration.logistic(scores, truth) == pytest.approx(expected, abs=1e-4)
    scores, truth = np.r_[np.full(990, 0.9), np.full(10, 0.2)], (np.arange(1000) % 100 != 0).astype(float)
    truth[990:] = np.arange(10) % 2                                   # 10 in 990 and 5 in 10 are absent
    steep = np.log(980 / 10) / np.log(9 * 4), np.log(980 / 10) - np.log(980 / 10) / np.log(9 * 4) * np.log(9)
    assert calibration.logistic(scores, truth) == pytest.approx(steep, abs=1e-7)     # almost all are present


# variance

def test_two_patients_of_each_class_have_a_variance():
    covariance = evaluate.delong(np.array([0.1, 0.4, 0.3, 0.9]), np.array([0, 0, 1, 1.0])).covariance
    assert covariance.shape == (1, 1)                                # placements (0.5, 1) and (1, 0.5)
    assert covariance[0, 0] == pytest.approx(0.125 / 2 + 0.125 / 2)


def test_influences_give_delongs_variance():
    random = np.random.default_rng(0)
    truth, scores = (np.arange(60) % 3 == 0).astype(float), random.random((60, 2))
    found = variance.influence(scores, truth, np.arange(60), 60)
    covariance = evaluate.delong(scores, truth).covariance
    for k in range(2):                                               # n - 1 of all beside those of the classes
        assert comparison.variance_of(found[:, k]) == pytest.approx(covariance[k, k], rel=0.04)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-12)
    assert np.isnan(variance.influence(scores, np.zeros(60), np.arange(60), 60)).all()
    assert comparison.variance_of(np.array([1.0, -1.0, 0.0])) == 3.0 and comparison.variance_of(np.array([2.0])) == 4.0


def test_delong_intervals_by_hand():
    assert evaluate.delong_interval(0.5, 0.01, 0.9) == pytest.approx((0.5 - 0.1644854, 0.5 + 0.1644854), abs=1e-6)
    assert evaluate.delong_interval(0.05, 0.01) == pytest.approx((0.0, 0.05 + 0.1959964), abs=1e-6)
    reach = 1.959964 * 0.1 / (0.8 * 0.2)
    expected = tuple(1 / (1 + np.exp(-(np.log(4) + sign * reach))) for sign in (-1, 1))
    assert evaluate.delong_interval(0.8, 0.01, scale="logit") == pytest.approx(expected, abs=1e-6)
    assert evaluate.delong_interval(1.0, 0.0, scale="logit") == (1.0, 1.0)


# comparison

def test_holm_by_hand():
    np.testing.assert_allclose(comparison.holm(np.array([0.01, NAN, 0.04, 0.03, 0.5])), [0.04, NAN, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(comparison.holm(np.array([0.5, 0.6])), [1.0, 1.0])
    assert len(comparison.holm(np.array([]))) == 0


@pytest.mark.parametrize(("difference", "low", "high", "p", "verdict"), [
    (0.1, 0.01, 0.2, 0.04, "new is better, beyond noise"), (-0.1, -0.2, -0.01, 0.04, "old is better, beyond noise"),
    (0.1, 0.01, 0.2, 0.06, comparison.EDGE), (0.1, -0.01, 0.2, 0.04, comparison.EDGE),
    (0.1, 0.0, 0.2, 0.06, comparison.NOISE), (-0.1, -0.2, 0.0, 0.06, comparison.NOISE),
    (NAN, 0.1, 0.2, 0.01, comparison.UNKNOWN), (0.1, 0.01, 0.2, NAN, comparison.UNKNOWN)])
def test_verdicts_by_hand(difference, low, high, p, verdict):
    row = {"first": "old", "second": "new", "difference": difference, "difference_low": low, "difference_high": high,
           "p_holm": p}
    assert comparison._verdict(SimpleNamespace(**row)) == verdict
    better = verdict.split(" is better")[0] if "better" in verdict else None
    assert comparison.certainly_better({**row, "verdict": verdict}) == better


def test_correction_is_over_the_labels_of_all_tables_and_their_means_apart():
    def table(p, by="p_delong"):
        rows = pd.DataFrame({"label": ["A", "B", "mean of 2"], "first": "old", "second": "new", "difference": 0.1,
                             "difference_low": 0.05, "difference_high": 0.2, "p_delong": NAN, "p_bootstrap": 0.9})
        return rows.assign(**{by: p})
    first, second = comparison.corrected([table([0.01, 0.02, 0.04]), table([0.03, 0.5, 0.5], "p_bootstrap")])
    np.testing.assert_allclose(first["p_holm"], [0.04, 0.06, 0.08])
    np.testing.assert_allclose(second["p_holm"], [0.06, 0.5, 0.5])
    assert first["verdict"].tolist() == ["new is better, beyond noise", comparison.EDGE, comparison.EDGE]
    assert comparison.corrected([]) == []


def test_only_what_two_predictions_share_is_compared():
    predicted, truth = tables(films=30, patients=30)
    cases = joined(predicted, truth)
    other = cases.subset(np.arange(29, 9, -1)).only(["Edema", "Cardiomegaly"])
    left, right = comparison.in_common(cases, other)
    assert left.labels == right.labels == tuple(label for label in cases.labels if label in other.labels)
    assert list(left.keys) == list(right.keys) == list(cases.keys[10:])
    np.testing.assert_array_equal(left.scores, right.scores)
    for wrong in (other.only(["Edema"]).subset(np.arange(0)), joined(predicted, truth, unit="film")):
        with pytest.raises(InputError, match="share no film or no label"):
            comparison.in_common(cases, wrong)


def test_each_system_is_compared_once_with_the_one_named():
    results = [judged(*tables(films=40, patients=40, noise=noise), replicates=5, name=name, curves=False)
               for name, noise in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    for pairs, expected in (("first", ["b against a", "c against a"]), ("b", ["a against b", "c against b"]),
                            ("all", ["b against a", "c against a", "c against b"])):
        assert list(comparison.compare_systems(results, pairs, replicates=5)) == expected
    table = comparison.compare_systems(results[:2], replicates=5)["b against a"]
    gap = results[1].table["auroc"] - results[0].table["auroc"]
    np.testing.assert_allclose(table["difference"], gap)
    assert table["first"].eq("a").all() and table["second"].eq("b").all()
    assert table["p_delong"].iloc[-1] == pytest.approx(_p_of_mean(results), rel=1e-6)


def _p_of_mean(results):
    """DeLong's p of the mean's difference, from the influences of all labels summed patient by patient."""
    parts = []
    for k in range(len(results[0].cases.labels)):
        truth = results[0].cases.truth[:, k]
        gap = [variance.influence(r.cases.scores[:, [k]], truth, r.cases.patients, r.cases.total_patients)[:, 0]
               for r in results[:2]]
        parts.append(gap[1] - gap[0])
    error = np.mean(parts, 0)
    spread = (error**2).sum() * len(error) / (len(error) - 1)
    difference = results[1].table["auroc"].iloc[-1] - results[0].table["auroc"].iloc[-1]
    return comparison.normal_p(difference, spread)


def test_without_resamples_there_is_no_interval_and_decisions_have_their_own():
    predicted, truth = tables(films=40, patients=40, labels=("Edema",))
    cases = joined(predicted, truth)
    bare = comparison.compare(cases, cases, replicates=0)
    assert bare["difference_low"].isna().all() and bare["p_bootstrap"].isna().all()
    worse = predicted.assign(Edema=(predicted["Edema"].rank() % 3 == 0).astype(float))
    results = [judged(table, truth, replicates=5, name=name, curves=False) for name, table in (
        ("calls", predicted.assign(Edema=truth["Edema"])), ("noise", worse))]
    found = comparison.compare_systems(results, replicates=60, seed=2)["noise against calls"].iloc[0]
    drawn = []
    for counts in ranking.resamples(results[0].cases.total_patients, 60, 2):
        rows = [np.repeat(np.arange(40), counts[results[0].cases.patients, r].astype(int)) for r in range(60)]
        drawn += [np.subtract(*(thresholds.rates(thresholds.confusion(result.calls[part, 0], result.cases.truth[part, 0]
                                                                      ))["mcc"][0] for result in results[::-1]))
                  for part in rows]
    np.testing.assert_allclose([found["difference_low"], found["difference_high"]], np.nanquantile(drawn, [.025, .975]))
    assert found["mcc_first"] == 1 and found["difference"] < -0.5


def test_intervals_are_those_of_their_own_measure():
    cases = few(12)
    found = intervals.rank_table(cases, intervals.Resampling(50, 4))
    rank = ranking.Ranks.of(cases.scores[:, 0], cases.truth[:, 0], cases.patients, 40)
    drawn = rank.measure(np.concatenate(list(ranking.resamples(40, 50, 4)), 1))
    row = found.table.iloc[0]
    for name, values in (("auroc", drawn.auroc), ("average_precision", drawn.average_precision)):
        np.testing.assert_allclose([row[f"{name}_low"], row[f"{name}_high"]], np.nanquantile(values, [0.025, 0.975]))


def test_influences_of_patients_with_films_of_both_kinds():
    random = np.random.default_rng(0)
    truth, scores, patients = (np.arange(90) % 3 == 0).astype(float), random.random((90, 1)), np.arange(90) // 3
    found = variance.influence(scores, truth, patients, 30)
    covariance = evaluate.delong(scores, truth, patients).covariance[0, 0]
    assert comparison.variance_of(found[:, 0]) == pytest.approx(covariance, rel=1e-9)
