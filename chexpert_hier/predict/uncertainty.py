"""How sure an answer is: entropy of several networks' probabilities, its parts, and what it says about errors.

The samples are passes with dropout (model.mc_dropout) or an ensemble's members. NumPy only: no films, no models.
"""

from typing import NamedTuple

import numpy as np


class Uncertainty(NamedTuple):
    """Per film and label, float (n, labels); entropies in nats, at most ln 2 = 0.693.

    Attributes:
        mean: of the samples' probabilities.
        sd: their standard deviation (a deviation, not a variance).
        total: entropy of the mean probability.
        expected: mean of the samples' entropies: what every network is unsure of (noise in the film or the label).
        mutual: total - expected, never negative: where the networks disagree (too little training data).
    """

    mean: np.ndarray
    sd: np.ndarray
    total: np.ndarray
    expected: np.ndarray
    mutual: np.ndarray


def entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in nats of a finding that is present with probability p; 0 at p = 0 and p = 1.

    >>> entropy([0.5, 0.9]).round(3).tolist()
    [0.693, 0.325]
    """
    p = np.asarray(p, float)
    q = 1.0 - p
    safe_p, safe_q = np.where(p > 0, p, 1.0), np.where(q > 0, q, 1.0)  # log 1 = 0 where the factor is 0
    return -(p * np.log(safe_p) + q * np.log(safe_q))


def decompose(samples: np.ndarray) -> Uncertainty:
    """Split the uncertainty of sampled probabilities.

    Args:
        samples: float (samples, n, labels), each in [0, 1].

    Source: Depeweg et al. 2018; total = expected + mutual information.
    """
    samples = np.asarray(samples, float)
    mean = samples.mean(axis=0)
    total, expected = entropy(mean), entropy(samples).mean(axis=0)
    return Uncertainty(mean, samples.std(axis=0), total, expected, np.maximum(total - expected, 0.0))


class RiskCoverage(NamedTuple):
    """Selective prediction.

    Attributes:
        coverage: float (m,), the share of cases answered, rising to 1.
        risk: float (m,), the mean error of those answered.
        area: under that curve (AURC), the mean risk over coverages; lower is better, and without information it is
            the overall mean error.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float


def risk_coverage(uncertainty: np.ndarray, error: np.ndarray) -> RiskCoverage:
    """Selective prediction: answer only where one is surest.

    Args:
        uncertainty: float (n,), larger is less sure.
        error: float (n,), e.g. 1 where the call is wrong, or a squared difference; NaN is left out.

    Cases of equal uncertainty enter together, so that their order does not matter.

    Source: Geifman & El-Yaniv 2017.
    """
    known = ~np.isnan(error)
    uncertainty, error = np.asarray(uncertainty, float)[known], np.asarray(error, float)[known]
    if not len(error):
        return RiskCoverage(np.empty(0), np.empty(0), float("nan"))
    levels, level = np.unique(uncertainty, return_inverse=True)
    counts = np.bincount(level, minlength=len(levels))
    answered = np.cumsum(counts)
    risk = np.cumsum(np.bincount(level, error, minlength=len(levels))) / answered
    return RiskCoverage(answered / len(error), risk, float((risk * counts).sum() / len(error)))
