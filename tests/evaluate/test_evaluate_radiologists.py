"""Radiologists beside a curve: published counts, Stanford's rule at ties, F1 against each other, kappa."""

import numpy as np
import pytest
from asking import judged
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
