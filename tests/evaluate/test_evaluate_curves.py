"""What the ROC and PR pictures are drawn from: the curves by value, their bands, and the points in the pictures."""

import re

import numpy as np
import pytest
from asking import joined, judged
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluate_judging import tables

from chexpert_hier import evaluate
from chexpert_hier.evaluate import figures, intervals, ranking


def curves(scores, truth, counts=None):
    counts = np.ones((len(scores), 1)) if counts is None else counts
    return ranking.Ranks.of(np.array(scores, float), np.array(truth, float)).curves(counts)


def test_the_curves_by_hand():
    """Highest first: +, -, +, -, -, +: the ROC steps up at rate 0, right to 1/3, up, right to 1, up."""
    found = curves([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 0, 1])
    at = dict(zip(ranking.BAND.round(2), found.roc[0]))
    assert at[0] == pytest.approx(1 / 3) and at[0.2] == pytest.approx(1 / 3)
    assert at[0.33] == pytest.approx(1 / 3) and at[0.34] == pytest.approx(2 / 3)      # the step at 1/3
    assert at[0.66] == pytest.approx(2 / 3) and at[0.99] == pytest.approx(2 / 3) and at[1] == 1
    precision = dict(zip(ranking.BAND.round(2), found.precision[0]))
    assert precision[0] == precision[0.33] == 1                       # the first positive: 1 of 1
    assert precision[0.34] == precision[0.66] == pytest.approx(2 / 3)
    assert precision[0.67] == precision[1] == pytest.approx(3 / 6)


def test_ties_are_a_slope_and_count_at_their_cut():
    found = curves([0.5, 0.5, 0.5, 0.5, 0.1], [1, 0, 1, 0, 0])       # two of three negatives tied with both positives
    np.testing.assert_allclose(found.roc[0], np.minimum(ranking.BAND / (2 / 3), 1), atol=1e-12)
    np.testing.assert_allclose(found.precision[0], 0.5)


def test_weights_are_copies_and_a_replicate_without_a_class_has_no_curve():
    scores, truth = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), np.array([1, 0, 1, 0, 0, 1.0])
    counts = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 0], [3, 1, 2], [1, 1, 1], [1, 1, 0]], float)
    found = curves(scores, truth, counts)
    rows = np.repeat(np.arange(6), counts[:, 0].astype(int))
    twice = curves(scores[rows], truth[rows])
    np.testing.assert_allclose(found.roc[0], twice.roc[0])
    np.testing.assert_allclose(found.precision[0], twice.precision[0])
    np.testing.assert_allclose(found.roc[1], curves(scores, truth).roc[0])
    assert np.isnan(found.roc[2]).all() and np.isnan(found.precision[2]).all()        # no positive was drawn


def slow_roc(scores, truth, rate):
    """The highest sensitivity on the broken line through all thresholds' points, at one false positive rate."""
    points = sorted({(np.mean(scores[truth == 0] >= t), np.mean(scores[truth == 1] >= t))
                     for t in [*np.unique(scores), np.inf]})
    if at := [y for x, y in points if abs(x - rate) < 1e-12]:
        return max(at)
    (left, low), (right, high) = (max(p for p in points if p[0] < rate), min(p for p in points if p[0] > rate))
    return low + (high - low) * (rate - left) / (right - left)


def slow_precision(scores, truth, recall):
    """Precision at the highest threshold that reaches a recall, among the positives' scores."""
    threshold = max(t for t in np.unique(scores[truth == 1]) if np.mean(scores[truth == 1] >= t) >= recall - 1e-9)
    return np.mean(truth[scores >= threshold])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=25))
def test_the_curves_are_those_of_all_thresholds(rows):
    scores, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    found = curves(scores, truth)
    if truth.min() == truth.max():
        assert np.isnan(found.roc).all()
        return
    for place in (0, 7, 25, 50, 83, 100):
        at = ranking.BAND[place]
        assert found.roc[0, place] == pytest.approx(slow_roc(scores, truth, at), abs=1e-9)
        assert found.precision[0, place] == pytest.approx(slow_precision(scores, truth, at), abs=1e-9)


def test_the_area_under_the_drawn_curve_is_the_auroc():
    random = np.random.default_rng(3)
    truth = (np.arange(400) < 150).astype(float)
    scores = np.round(random.normal(size=400) + truth, 1)             # with ties
    drawn = np.trapezoid(curves(scores, truth).roc[0], ranking.BAND)
    assert drawn == pytest.approx(evaluate.auroc(scores, truth), abs=0.003)


def test_bands_are_the_quantiles_of_the_resamples_curves():
    predicted, truth = tables(films=120, labels=("Edema",))
    cases = joined(predicted, truth)
    ranked = intervals.rank_table(cases, intervals.Resampling(40, 5), curves=True)
    rank = ranking.Ranks.of(cases.scores[:, 0], cases.truth[:, 0], cases.patients, cases.total_patients)
    drawn = rank.curves(np.concatenate(list(ranking.resamples(cases.total_patients, 40, 5)), 1))
    for kind in ("roc", "precision"):
        band = ranked.curves["Edema"]
        expected = np.quantile(getattr(drawn, kind), [0.025, 0.975], axis=0)
        np.testing.assert_allclose([band[f"{kind}_low"], band[f"{kind}_high"]], expected)
        np.testing.assert_allclose(band[kind], getattr(rank.curves(np.ones((cases.total_patients, 1))), kind)[0])


def drawn_points(svg, colour):
    """The corners of the line of one colour in a picture, in its own units."""
    path = re.search(rf'<path d="([^"]+)"[^>]*style="fill: none; stroke: {colour.lower()}; stroke-width: 1.5', svg)
    return np.array([tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path[1])])


@pytest.mark.parametrize(("kind", "column"), [("roc", "roc"), ("pr", "precision")])
def test_the_pictures_show_the_curves(kind, column):
    predicted, truth = tables(films=80, labels=("Edema",))
    result = judged(predicted, truth, replicates=20)
    svg = figures.draw(evaluate.Findings([result])).panels["Edema"][kind].svg
    found = drawn_points(svg, figures.COLOURS[0])
    left, right = found[:, 0].min(), found[:, 0].max()
    share = (found[:, 0] - left) / (right - left)                     # false positive rate or recall, 0 to 1
    height = found[:, 1]
    curve = result.curves["Edema"][column]
    scale = np.polyfit(np.interp(share[1:], ranking.BAND, curve), height[1:], 1)      # one straight scale for all
    residual = height[1:] - np.polyval(scale, np.interp(share[1:], ranking.BAND, curve))
    assert scale[0] < 0 and np.abs(residual).max() < 0.02 * np.ptp(height)
