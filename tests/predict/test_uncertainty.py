"""Uncertainty: entropies by hand, their parts add up, and the curve of risk over coverage."""

import numpy as np
import pytest

from chexpert_hier.predict import uncertainty


def test_entropy_by_hand():
    np.testing.assert_allclose(uncertainty.entropy([0, 1, 0.5, 0.25]), [0, 0, np.log(2), 0.5623351446], atol=1e-9)


def test_disagreement_and_noise_are_told_apart():
    agree = uncertainty.decompose(np.full((4, 1, 1), 0.5))
    assert agree.total == pytest.approx(np.log(2)) and agree.mutual == pytest.approx(0) and agree.sd == 0
    disagree = uncertainty.decompose(np.array([0.0, 1.0]).reshape(2, 1, 1))
    assert disagree.expected == 0 and disagree.mutual == pytest.approx(np.log(2)) and disagree.sd == 0.5


def test_parts_add_up_and_are_never_negative():
    parts = uncertainty.decompose(np.random.default_rng(0).random((7, 50, 3)))
    np.testing.assert_allclose(parts.expected + parts.mutual, parts.total, atol=1e-12)
    assert (parts.mutual >= 0).all() and (parts.total <= np.log(2) + 1e-12).all() and parts.mean.shape == (50, 3)


def test_risk_over_coverage_by_hand():
    coverage, risk, area = uncertainty.risk_coverage(np.array([0.1, 0.2, 0.3, 0.4, 9]), np.array([0, 0, 1, 1, np.nan]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 0.5])
    assert area == pytest.approx((0 + 0 + 1 / 3 + 0.5) / 4)


def test_uncertainty_without_information_leaves_the_mean_error():
    error = np.array([1.0, 0, 0, 1, 1])
    assert uncertainty.risk_coverage(np.ones(5), error)[2] == pytest.approx(0.6)
    rng = np.random.default_rng(0)
    many = (rng.random(20_000) < 0.3).astype(float)
    assert uncertainty.risk_coverage(rng.random(20_000), many)[2] == pytest.approx(0.3, abs=0.03)
    assert uncertainty.risk_coverage(many, many)[2] < 0.1  # the uncertainty that knows
    assert np.isnan(uncertainty.risk_coverage(np.ones(1), np.array([np.nan]))[2])
