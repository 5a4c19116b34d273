"""Radiologists beside a curve: published counts, Stanford's rule at ties, F1 against each other, kappa."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from asking import joined, judged
from sklearn.metrics import cohen_kappa_score, f1_score

from chexpert_hier import evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import radiologists
from chexpert_hier.labels import COMPETITION_LABELS

# Stanford's labels, computed independently: AT, CM, CO, ED, PE, mean, below (>=), strictly below.
PUBLISHED = {"hieupham": (.8913, .9406, .8996, .9219, .9680, .9243, 2.4, 2.2),
             "ngango3": (.8980, .9377, .9207, .9154, .9664, .9277, 2.6, 2.4),
             "desmond": (.8744, .9330, .9160, .9209, .9468, .9182, 2.4, 2.2)}
PER_LABEL = {"hieupham": (2, 3, 2, 3, 2), "ngango3": (3, 3, 2, 3, 2), "desmond": (2, 3, 3, 3, 1)}
READERS = {"bc4": (.804, .787, .477, .954, .655, .890, .628, .915, .817, .947),
           "bc6": (.712, .824, .854, .768, .483, .911, .795, .813, .827, .826),
           "bc8": (.922, .686, .702, .894, .448, .966, .577, .927, .894, .864)}
READERS_F1 = {"bc4": (.703, .603, .380, .601, .810), "bc6": (.675, .715, .329, .566, .664),
              "bc8": (.700, .721, .448, .584, .741)}


@pytest.fixture(scope="module")
def released(shared_data):
    folder = shared_data / "chexpert_test_labels"
    truth = evaluate.read_truth(folder / "groundtruth.csv")
    readers = {name: evaluate.read_predictions(folder / "radiologists" / "benchmark_radiologists" / f"{name}.csv")
               for name in READERS}
    predictions = {name: evaluate.read_predictions(folder / "example_models" / "predictions" / "standard" /
                                                   f"{name}_predictions.csv") for name in PUBLISHED}
    return truth, readers, predictions


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_released_predictions_have_their_published_numbers(released, name):
    truth, readers, predictions = released
    result = judged(predictions[name], truth, replicates=0, curves=False)
    areas = result.table.set_index("label")["auroc"]
    *five, mean, below, strictly = PUBLISHED[name]
    np.testing.assert_allclose(areas[list(COMPETITION_LABELS)], five, atol=6e-5)
    assert areas["mean of five"] == pytest.approx(mean, abs=6e-5)
    table = radiologists.beside(result, readers, truth, replicates=50).below.set_index("label")
    assert tuple(table.loc[list(COMPETITION_LABELS), "below_roc"]) == PER_LABEL[name]
    assert table.loc["mean of five", "below_roc"] == pytest.approx(below)
    assert table.loc["mean of five", "strictly_below_roc"] == pytest.approx(strictly)


def test_the_radiologists_have_their_published_points(released):
    truth, readers, predictions = released
    result = judged(predictions["hieupham"], truth, replicates=0, curves=False)
    points = radiologists.beside(result, readers, truth, replicates=50).points.set_index(["radiologist", "label"])
    for name, values in READERS.items():
        for place, label in enumerate(COMPETITION_LABELS):
            row = points.loc[(name, label)]
            assert row["sensitivity"] == pytest.approx(values[2 * place], abs=6e-4)
            assert row["specificity"] == pytest.approx(values[2 * place + 1], abs=6e-4)
            assert row["f1"] == pytest.approx(READERS_F1[name][place], abs=6e-4)
            assert row["auc"] == pytest.approx((row["sensitivity"] + row["specificity"]) / 2)


def test_the_curve_beside_a_point_by_hand():
    truth = np.array([1, 1, 0, 1, 0, 0, 1, 0.0])                    # highest score first: ROC steps up, up, right, ...
    scores = np.linspace(0.9, 0.2, 8)
    at = {rate: radiologists.curve_at(scores, truth, rate, 0.5)["curve_sensitivity"] for rate in (0, .125, .25, .5, 1)}
    assert at[0.125] == pytest.approx(0.5) and at[0.25] == 0.5      # 0.25: a vertical step, its lower end counts
    assert at[0.5] == 0.75 and at[0] == 0.0
    assert radiologists.curve_at(scores, truth, 0.25, 0.5)["curve_precision"] == pytest.approx(2 / 3)
    assert np.isnan(radiologists.curve_at(scores, np.ones(8), 0.5, 0.5)["curve_sensitivity"])


def test_a_tied_score_is_a_sloped_piece_of_the_curve():
    truth, scores = np.array([1, 0, 1, 0.0]), np.array([0.5, 0.5, 0.5, 0.5])
    assert radiologists.curve_at(scores, truth, 0.25, 0.5)["curve_sensitivity"] == pytest.approx(0.25)


def test_f1_of_each_rater_against_each_other():
    random = np.random.default_rng(0)
    calls = (random.random((80, 4)) < [0.5, 0.4, 0.6, 0.5]).astype(float)
    study = radiologists.f1_study(calls, replicates=200)
    slow = [np.mean([f1_score(calls[:, other], calls[:, rater]) for other in range(4) if other != rater])
            for rater in range(4)]
    np.testing.assert_allclose([rater.f1 for rater in study.raters], slow)
    assert study.radiologists.f1 == pytest.approx(np.mean(slow[1:]))
    assert study.difference.f1 == pytest.approx(slow[0] - np.mean(slow[1:]))
    assert study.difference.low < study.difference.f1 < study.difference.high
    assert "not significant" in study.sentence


def test_a_much_better_model_is_significant_and_bootstrap_draws_patients():
    random = np.random.default_rng(1)
    truth = random.random(300) < 0.4
    raters = np.stack([np.where(random.random(300) < 0.25, ~truth, truth) for _ in range(3)], 1)
    calls = np.c_[truth, raters].astype(float)
    study = radiologists.f1_study(calls, replicates=500)
    assert study.difference.low > 0 and "statistically significant" in study.sentence
    twice = radiologists.f1_study(np.tile(calls, (2, 1)), np.tile(np.arange(300), 2), replicates=500)
    np.testing.assert_allclose(twice.difference, study.difference)


def test_f1_without_any_call_is_said():
    study = radiologists.f1_study(np.zeros((20, 3)), replicates=20)
    assert np.isnan(study.difference.f1) and study.sentence.startswith("No F1")


def test_kappa_is_scikit_learns():
    random = np.random.default_rng(2)
    first, second = (random.random((2, 100)) < 0.4).astype(float)
    assert radiologists.kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert np.isnan(radiologists.kappa(np.ones(5), np.ones(5)))
    first[0] = np.nan
    assert radiologists.kappa(first, second) == pytest.approx(cohen_kappa_score(first[1:], second[1:]))


def test_a_radiologists_score_is_refused(released):
    truth, readers, predictions = released
    result = judged(predictions["hieupham"], truth, replicates=0, curves=False)
    bad = readers["bc4"].copy()
    bad.loc[3, "Edema"] = 0.5
    with pytest.raises(InputError, match=r"row 5 .*Edema is 0\.5; expected 1 or 0"):
        radiologists.beside(result, {"bc4": bad}, truth)


# by hand: eight studies, two radiologists, of whom the second reads one label only

def small(threshold=0.5):
    keys = [f"a/valid/patient{k:05d}/study1/view1_frontal.jpg" for k in range(8)]
    truth = pd.DataFrame({"Path": keys, "Edema": [1, 1, 1, 1, 0, 0, 0, 0.0], "Hernia": [1, 0, 0, 0, 0, 0, 0, 1.0]})
    predicted = pd.DataFrame({"Path": keys, "Edema": [.9, .8, .7, .3, .6, .4, .2, .1], "Hernia": np.arange(8) / 10})
    first = pd.DataFrame({"Path": keys[::-1], "Edema": [0, 0, 0, 1, 0, 1, 1, 1.0], "Hernia": [1, 0, 0, 0, 0, 0, 0, 0]})
    second = pd.DataFrame({"Path": keys, "Edema": [1, 1, 0, 0, 0, 0, 0, 0.0]})
    return judged(predicted, truth, replicates=0, curves=False, threshold=threshold), truth, {"A": first, "B": second}


def test_radiologists_by_hand():
    result, truth, readers = small()
    found = radiologists.beside(result, readers, truth, replicates=40, seed=3)
    points = found.points.set_index(["label", "radiologist"])
    row = points.loc[("Edema", "A")]                                  # calls 1, 1, 1, 0 | 1, 0, 0, 0
    assert row[["sensitivity", "specificity", "precision", "auc", "f1", "kappa"]].tolist() == [
        0.75, 0.75, 0.75, 0.75, 0.75, 0.5]
    assert row["curve_sensitivity"] == 0.75 and row["curve_precision"] == 0.6
    assert (row["below_roc"], row["strictly_below_roc"], row["below_pr"]) == (True, False, False)
    row = points.loc[("Edema", "B")]                                  # 1, 1, 0, 0 | none wrong
    assert row[["sensitivity", "specificity", "precision", "kappa"]].tolist() == [0.5, 1, 1, 0.5]
    assert (row["curve_sensitivity"], row["below_roc"], row["strictly_below_roc"]) == (0.0, False, False)
    assert np.isnan(points.loc[("Hernia", "B"), ["sensitivity", "curve_sensitivity", "kappa"]].to_numpy(float)).all()
    assert found.below.to_dict("list") == {
        "label": ["Edema", "Hernia", "mean of 2"], "below_roc": [1, 0, 0.5], "strictly_below_roc": [0, 0, 0],
        "below_pr": [1, 0, 0.5]}
    assert found.below.index.tolist() == [0, 1, 2]
    assert found.agreement.to_dict("records")[0] == {"label": "Edema", "first": "A", "second": "B", "kappa": 0.5}
    assert len(found.agreement) == 2 and np.isnan(found.agreement["kappa"][1])
    assert found.notes[0].startswith("2 radiologists. ") and "; 40 bootstrap samples" in found.notes[1]
    assert found.notes[1].endswith("The predictions are called at thresholds that are given (0.5), as given.")


def test_the_f1_study_by_hand():
    result, truth, readers = small()
    study = radiologists.beside(result, readers, truth, replicates=40, seed=3).f1.set_index("label")
    # Edema: predictions 11101000, A 11101000, B 11000000: F1 of the two alike 1, of either with B 2 * 2 / 6
    row = study.loc["Edema"]
    assert row[["model", "A", "B", "radiologists", "difference"]].tolist() == pytest.approx(
        [5 / 6, 5 / 6, 2 / 3, 3 / 4, 1 / 12])
    same = radiologists.f1_study(np.array([[1, 1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0, 0, 0],
                                           [1, 1, 0, 0, 0, 0, 0, 0]]).T, replicates=40, seed=3)
    assert [row["model_low"], row["model_high"]] == [same.raters[0].low, same.raters[0].high]
    assert [row["difference_low"], row["difference_high"]] == [same.difference.low, same.difference.high]
    assert row["sentence"] == same.sentence and same.raters[0].low < 5 / 6
    row = study.loc["Hernia"]                                         # B did not read it: the predictions and A alone
    assert row["model"] == row["A"] == pytest.approx(2 * 1 / (3 + 1)) and np.isnan(row["B"])
    alone = radiologists.beside(result, {"B": readers["B"]}, truth, replicates=5).f1.set_index("label")
    assert alone.loc["Hernia", "sentence"] == "no thresholded predictions or no radiologist for this label"
    assert np.isnan(alone.loc["Hernia", "model"]) and alone.loc["Edema", "model"] == pytest.approx(2 / 3)


def test_any_column_may_be_the_model_and_the_seed_counts():
    random = np.random.default_rng(0)
    calls = (random.random((60, 3)) < 0.5).astype(float)
    first, other = (radiologists.f1_study(calls[:, order], model=model, replicates=60)
                    for order, model in (([0, 1, 2], 0), ([1, 2, 0], 2)))
    np.testing.assert_allclose(other.difference, first.difference)
    again, moved, narrow = (radiologists.f1_study(calls, replicates=60, **words)
                            for words in ({"seed": 0}, {"seed": 1}, {"level": 0.5}))
    assert again == first and moved.difference.low != first.difference.low
    assert narrow.difference.high - narrow.difference.low < first.difference.high - first.difference.low
    nothing = radiologists.f1_study(calls, replicates=0)
    assert nothing.difference.f1 == first.difference.f1 and np.isnan(nothing.difference.low)
    assert np.isnan(radiologists.f1_study(np.zeros((0, 2)), replicates=2).difference.f1)


@pytest.mark.parametrize(("values", "words"), [
    ((0.1, 0.01, 0.2), "The predictions' F1 is above the radiologists' by +0.100 (95 % interval +0.010 to +0.200): "
     "statistically significant."),
    ((-0.1, -0.2, -0.01), "The predictions' F1 is below the radiologists' by -0.100 (95 % interval -0.200 to -0.010): "
     "statistically significant."),
    ((0.1, 0.0, 0.2), "The F1s differ by +0.100 (95 % interval +0.000 to +0.200): the interval holds 0, not "
     "significant."),
    ((-0.1, -0.2, 0.0), "The F1s differ by -0.100 (95 % interval -0.200 to +0.000): the interval holds 0, not "
     "significant."),
    ((0.1, np.nan, np.nan), "No F1: a rater called nothing present.")])
def test_the_sentence_on_significance(values, words):
    assert radiologists._f1_sentence(*values) == words


def test_how_the_predictions_became_calls():
    def words(decisions=False, **settings):
        return radiologists._model_calls(SimpleNamespace(cases=SimpleNamespace(decisions=decisions), settings=settings))

    start = "The predictions are called at thresholds that are"
    assert words(True) == "The predictions are decisions already."
    assert words(threshold="given per label", fitted_on="other films") == f"{start} given per label, as given."
    assert words(threshold="x", fitted_on="other films") == f"{start} x, chosen on other films."
    assert words(threshold="x", fitted_on="cross-fitted by patient").endswith(
        "x, chosen against the truth on other patients of the same set (cross-fitted).")


def test_a_radiologist_reads_every_judged_study():
    result, truth, readers = small()
    missing = readers["A"].assign(Path=readers["A"]["Path"].str.replace("patient00007", "patient00009"))
    with pytest.raises(InputError, match="keys are missing"):
        radiologists.beside(result, {"A": missing}, truth)
    reader = joined(readers["A"], truth)
    short = replace(reader, keys=reader.keys[:6], scores=reader.scores[:6])
    with pytest.raises(InputError, match=f"radiologist A: 2 of 8 judged keys are missing, first {reader.keys[6]}"):
        radiologists._aligned(short, result.cases, "A")
    calls = radiologists._aligned(reader.only(["Hernia"]), result.cases, "A")
    np.testing.assert_array_equal(calls, np.c_[np.full(8, np.nan), [0, 0, 0, 0, 0, 0, 0, 1]])
    with pytest.raises(InputError, match=r"row 3 .*Edema is 2; expected 1 or 0"):
        radiologists.beside(result, {"A": readers["A"].assign(Edema=[1, 2, 0, 0, 0, 0, 0, 0])}, truth)
    radiologists.beside(result, {"A": readers["A"].assign(Note="x")}, truth, replicates=0)   # words are no calls


def test_kappa_by_hand():
    first, second = np.array([1, 1, 0, 0, 0]), np.array([1, 0, 1, 0, 0.0])
    assert radiologists.kappa(first, second) == pytest.approx((0.6 - 0.52) / 0.48)
    assert np.isnan(radiologists.kappa(np.full(3, np.nan), np.ones(3)))
    assert np.isnan(radiologists.kappa(*np.zeros((2, 0))))
    assert radiologists.kappa(np.ones(4), np.array([1, 1, 0, 0.0])) == 0


def test_the_broken_line_at_its_points_and_beyond():
    x, y = np.array([0.0, 0.0, 0.5, 0.5, 1.0]), np.array([0.0, 0.4, 0.6, 0.8, 1.0])
    assert [radiologists._projected(x, y, at) for at in (0, 0.25, 0.5, 0.75, 1, 1.5)] == pytest.approx(
        [0, 0.5, 0.6, 0.9, 1, 1])
    assert radiologists._projected(x, y, 0.5 + 1e-13) == 0.6 == radiologists._projected(x, y, 0.5 - 1e-13)
    first = radiologists.curve_at(np.array([0.9, 0.8, 0.7]), np.array([0, 1, 0.0]), 0.5, 0.0)
    assert first == {"curve_sensitivity": 0.0, "curve_precision": 0.0}                # the highest score is a negative
    missing = radiologists.curve_at(np.arange(4.0), np.array([0, 1, 0, 1.0]), np.nan, 0.5)
    assert np.isnan(missing["curve_precision"]) and np.isnan(
        radiologists.curve_at(np.arange(4.0), np.array([0, 1, 0, 1.0]), 0.5, np.nan)["curve_sensitivity"])
