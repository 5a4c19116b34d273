"""The variance of AUROCs by DeLong's method, clustered by patient, and the intervals that follow from it.

Knows arrays only: no files, no label names.
"""

from typing import NamedTuple

import numpy as np


class DeLong(NamedTuple):
    """AUROCs (models,) and their covariance (models, models)."""

    areas: np.ndarray
    covariance: np.ndarray


class _Parts(NamedTuple):
    """DeLong's structural components, summed by patient.

    Attributes:
        areas: (models,).
        positives, negatives: (patients, models): sums over a patient's positive films, and over the negative ones, of
            how far their share of pairs won departs from the area.
        m, n: how many positive and negative films.
        with_positive, with_negative, both: how many patients have a positive film, a negative one, any.
    """

    areas: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    m: int
    n: int
    with_positive: int
    with_negative: int
    both: int


def _parts(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray, total: int) -> _Parts:
    present, absent = truth == 1, truth == 0
    m, n, models = int(present.sum()), int(absent.sum()), scores.shape[1]
    if not m or not n:
        empty = np.full((total, models), np.nan)
        return _Parts(np.full(models, np.nan), empty, empty, m, n, 0, 0, 0)
    above = np.stack([_placed(scores[present, k], scores[absent, k]) for k in range(models)], 1) / n   # (m, models)
    below = 1 - np.stack([_placed(scores[absent, k], scores[present, k]) for k in range(models)], 1) / m
    areas = above.mean(0)
    x, y = (_summed(value - areas, patients[rows], total) for value, rows in ((above, present), (below, absent)))
    return _Parts(areas, x, y, m, n, *(len(np.unique(patients[rows])) for rows in (present, absent, present | absent)))


def delong(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray | None = None) -> DeLong:
    """AUROC of one or several score columns with the covariance of DeLong; clustered where patients repeat.

    Args:
        scores: float (films,) or (films, models).
        truth: (films,), 1, 0, NaN = does not count.
        patients: (films,); None makes every film its own patient.

    Returns:
        NaN where a class is missing, the covariance also where one class has fewer than two patients.

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 1988; for several films of a patient Obuchowski, Biometrics
        1997, "Nonparametric analysis of clustered ROC curve data". With one film per patient the two agree exactly.
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    index = np.arange(len(scores)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    found = _parts(scores, truth, index, int(index.max(initial=-1)) + 1)
    if min(found.with_positive, found.with_negative) < 2:
        return DeLong(found.areas, np.full((scores.shape[1],) * 2, np.nan))
    x, y, cross = found.positives, found.negatives, found.positives.T @ found.negatives
    return DeLong(found.areas, x.T @ x * found.with_positive / (found.with_positive - 1) / found.m**2
                  + y.T @ y * found.with_negative / (found.with_negative - 1) / found.n**2
                  + (cross + cross.T) * found.both / (found.both - 1) / (found.m * found.n))


def influence(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray, total: int) -> np.ndarray:
    """What each patient adds to the error of each AUROC; its summed squares times n / (n - 1) are DeLong's variance.

    So that measures of several labels on the same patients, such as the mean AUROC, have a variance too.

    Args:
        scores: float (films, models).
        truth: (films,), 1, 0, NaN = does not count.
        patients: int (films,), 0 to total - 1.
        total: number of patients.

    Returns:
        float (total, models); NaN where a class is missing.
    """
    found = _parts(scores, truth, patients, total)
    if not found.m or not found.n:
        return found.positives
    return found.positives / found.m + found.negatives / found.n


def _placed(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each value, how many of `among` lie below it, ties one half."""
    among = np.sort(among)
    return (np.searchsorted(among, values, "left") + np.searchsorted(among, values, "right")) / 2


def _summed(values: np.ndarray, patients: np.ndarray, total: int) -> np.ndarray:
    sums = np.zeros((total, values.shape[1]))
    np.add.at(sums, patients, values)
    return sums


def delong_interval(area: float, variance: float, level: float = 0.95, scale: str = "plain") -> tuple[float, float]:
    """The normal interval around an AUROC, cut to [0, 1], or the one on the logit scale.

    Args:
        area: AUROC.
        variance: its variance, from `delong`.
        level: of confidence.
        scale: "plain" (as published implementations give it) or "logit" (better near 1).
    """
    from scipy.stats import norm
    if np.isnan(variance):
        return np.nan, np.nan
    reach = norm.ppf((1 + level) / 2) * np.sqrt(max(variance, 0.0))
    if scale == "logit" and 0 < area < 1:
        centre, reach = np.log(area / (1 - area)), reach / (area * (1 - area))
        low, high = 1 / (1 + np.exp(-(centre + reach * np.array([-1, 1]))))
        return float(low), float(high)
    return float(max(area - reach, 0.0)), float(min(area + reach, 1.0))
