"""Area under the ROC curve and average precision, the curves, and their bootstrap intervals over patients.

A label's films are cut at the distinct scores of its positives; after that every replicate of the bootstrap is two
sparse products and a running sum, ties counting exactly one half. Knows arrays only: no files, no label names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

BAND = np.linspace(0.0, 1.0, 101)  # false positive rates (ROC) and recalls (PR) at which bands are given
_CHUNK_CELLS = 2**23               # cells of one float32 block of replicates: 32 MB


class Measures(NamedTuple):
    """AUROC and average precision of every replicate, float (replicates,); NaN where a class is missing."""

    auroc: np.ndarray
    average_precision: np.ndarray


class Curves(NamedTuple):
    """Sensitivity at BAND's false positive rates, precision at BAND's recalls: float (replicates, len(BAND)) each."""

    roc: np.ndarray
    precision: np.ndarray


class RocCurve(NamedTuple):
    """Points from (0, 0) to (1, 1): a film is called present when its score >= threshold; float (points,) each."""

    false_positive_rate: np.ndarray
    sensitivity: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class Ranks:
    """One label's films, cut at the `cuts` distinct scores of its positives, lowest first.

    Attributes:
        cuts: float (cuts,).
        positives: sparse (cuts, patients): how many positives each patient has at each cut.
        negatives: sparse (2 cuts + 1, patients): even rows lie between the cuts, odd rows at a cut (ties).
    """

    cuts: np.ndarray
    positives: Any
    negatives: Any

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray, patients: np.ndarray | None = None,
           total: int | None = None) -> "Ranks":
        """Cut one label's films.

        Args:
            scores: float (films,), finite, higher = more likely present.
            truth: (films,), 1 present, 0 absent, NaN does not count.
            patients: int (films,), which patient a film belongs to; None makes every film its own patient.
            total: number of patients; the largest index + 1 when None.
        """
        scores, truth = np.asarray(scores, float), np.asarray(truth, float)
        patients = np.arange(len(scores)) if patients is None else np.asarray(patients)
        total = int(patients.max(initial=-1)) + 1 if total is None else total
        present, absent = truth == 1, truth == 0
        cuts = np.unique(scores[present])
        # left = right = k between two cuts gives row 2k; a tie with cut k gives left k, right k + 1: row 2k + 1
        between = np.searchsorted(cuts, scores[absent], "left") + np.searchsorted(cuts, scores[absent], "right")
        dtype = np.float32 if len(scores) < 2**22 else np.float64  # float32 counts exactly below 2^24
        return cls(cuts, _tally(np.searchsorted(cuts, scores[present]), patients[present], (len(cuts), total), dtype),
                   _tally(between, patients[absent], (2 * len(cuts) + 1, total), dtype))

    def measure(self, counts: np.ndarray) -> Measures:
        """AUROC and average precision of every replicate.

        Args:
            counts: (patients, replicates), how often each patient was drawn.
        """
        at, below, ties = self._cumulated(counts)
        positives, negatives = at.sum(0, dtype=float), below[-1].astype(float)
        wins = below[0:-1:2] + 0.5 * ties                            # (cuts, replicates)
        called = np.cumsum(at[::-1], 0)[::-1]                        # positives at or above each cut
        precision = called / np.maximum(called + below[-1] - below[0:-1:2], 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.einsum("kr,kr->r", at, wins, dtype=float) / (positives * negatives)
            average_precision = np.einsum("kr,kr->r", at, precision, dtype=float) / positives
        average_precision[(positives == 0) | (negatives == 0)] = np.nan
        return Measures(auroc, average_precision)

    def curves(self, counts: np.ndarray) -> Curves:
        """The ROC curve at the false positive rates of `BAND`, precision at its recalls, for every replicate.

        Args:
            counts: (patients, replicates).

        Returns:
            NaN where a class is missing.
        """
        at, below, ties = (x.astype(float) for x in self._cumulated(counts))
        positives, negatives = at.sum(0), below[-1]
        called = np.cumsum(at[::-1], 0)                              # (cuts, replicates), highest cut first, as below:
        false = (below[-1] - below[0:-1:2])[::-1]                    # positives and negatives at or above each cut
        before = false - ties[::-1]                                  # negatives strictly above it
        roc = np.full((counts.shape[1], len(BAND)), np.nan)
        precision = roc.copy()
        for r in np.flatnonzero((positives > 0) & (negatives > 0)):
            roc[r] = _at_rates(np.stack([before[:, r], false[:, r]], 1) / negatives[r], called[:, r] / positives[r])
            precision[r] = _at_recalls(called[:, r], false[:, r])
        return Curves(roc, precision)

    def _cumulated(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts = counts.astype(self.positives.dtype, copy=False)
        between = self.negatives @ counts                            # (2 cuts + 1, replicates)
        ties = between[1::2].copy()
        return self.positives @ counts, np.cumsum(between, 0, out=between), ties


def _tally(rows: np.ndarray, patients: np.ndarray, shape: tuple[int, int], dtype: Any) -> Any:
    return sparse.coo_array((np.ones(len(rows), dtype), (rows, patients)), shape=shape).tocsr()


def _at_rates(rates: np.ndarray, sensitivity: np.ndarray) -> np.ndarray:
    """The ROC curve's sensitivity at BAND's false positive rates.

    Straight between its points, so flat up to a vertical step; there its upper end, so that the curve starts where it
    leaves the axis (np.interp takes the last of equal places).

    Args:
        rates: (cuts, 2), the false positive rates just before and at each cut, highest cut first.
        sensitivity: (cuts,), at each cut.
    """
    x = np.concatenate([[0.0], rates.ravel(), [1.0]])
    y = np.concatenate([[0.0], np.stack([np.r_[0.0, sensitivity[:-1]], sensitivity], 1).ravel(), [1.0]])
    found: np.ndarray = np.interp(BAND, x, y)
    return found


def _at_recalls(called: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Precision at the highest cut whose recall reaches each of BAND's recalls; no interpolation.

    Args:
        called: (cuts,), positives at or above each cut, highest first; the last is their number.
        false: (cuts,), the same of negatives.
    """
    reached = np.searchsorted(called, BAND * called[-1] - 1e-9)
    precision: np.ndarray = (called / np.maximum(called + false, 1))[reached]
    return precision


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties one half.

    Args:
        scores: float (films,), finite.
        truth: (films,), 1 present, 0 absent, NaN does not count.

    Returns:
        the area, or NaN where there are no positives or no negatives.

    Of the four pairs below three are in the right order and one is tied; the last film does not count:

    >>> auroc(np.array([0.1, 0.5, 0.5, 0.9, 0.3]), np.array([0, 0, 1, 1, np.nan]))
    0.875
    """
    return float(Ranks.of(scores, truth).measure(np.ones((len(scores), 1))).auroc[0])


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision: the mean over the positives of the precision at their score (no interpolation).

    Args and returns as `auroc`.

    >>> round(average_precision(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1])), 3)
    0.833
    """
    return float(Ranks.of(scores, truth).measure(np.ones((len(scores), 1))).average_precision[0])


def roc_curve(scores: np.ndarray, truth: np.ndarray) -> RocCurve:
    """The ROC curve at every distinct score, from (0, 0) at threshold inf to (1, 1); empty where a class is missing."""
    scores, truth = np.asarray(scores, float), np.asarray(truth, float)
    scores, truth = scores[~np.isnan(truth)], truth[~np.isnan(truth)]
    order = np.argsort(-scores, kind="stable")
    scores, present = scores[order], truth[order] == 1
    if present.all() or not present.any():
        return RocCurve(np.empty(0), np.empty(0), np.empty(0))
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]
    called = np.cumsum(present)[last]
    return RocCurve(np.r_[0.0, (last + 1 - called) / (~present).sum()], np.r_[0.0, called / present.sum()],
                    np.r_[np.inf, scores[last]])


def resamples(patients: int, replicates: int, seed: int, strata: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Draw patients with replacement, block by block.

    Args:
        patients: how many patients there are.
        replicates: how many resamples to draw.
        seed: of the random numbers; the draws depend on nothing else than the arguments.
        strata: int (patients,); draws stay inside a stratum, whose size is kept. None draws from all.

    Yields:
        float32 (patients, block): how often each patient was drawn in each replicate.
    """
    random = np.random.default_rng(seed)
    groups = [np.arange(patients)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
    block = int(np.clip(_CHUNK_CELLS // max(patients, 1), 1, 512))
    for start in range(0, replicates, block):
        size = min(block, replicates - start)
        counts = np.empty((patients, size), np.float32)
        for group in groups:
            drawn = random.integers(0, len(group), (size, len(group)), dtype=np.int32).astype(np.int64)
            drawn += np.arange(size)[:, None] * len(group)
            tally = np.bincount(drawn.ravel(), minlength=size * len(group)).reshape(size, len(group))
            counts[group] = tally.T
        yield counts


def bootstrap_auroc(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray | None = None, *,
                    replicates: int = 1000, seed: int = 0, stratified: bool = False) -> np.ndarray:
    """AUROC in bootstrap resamples of patients, one joint resample for all labels.

    Args:
        scores: float (films,) or (films, labels).
        truth: the same shape; 1, 0, NaN = does not count.
        patients: (films,), anything that tells patients apart; None makes every film its own patient.
        replicates: how many resamples.
        seed: of the draws.
        stratified: keep the number of patients per pattern of truth (for one label: of positives and negatives).

    Returns:
        float (replicates,) or (replicates, labels); NaN where a resample lacks a class.
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, float)
    flat = scores.ndim == 1
    scores, truth = (scores[:, None], truth[:, None]) if flat else (scores, truth)
    index = np.arange(len(scores)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    total = int(index.max(initial=-1)) + 1
    labels = [Ranks.of(scores[:, k], truth[:, k], index, total) for k in range(scores.shape[1])]
    groups = strata(truth, index) if stratified else None
    blocks = [np.stack([label.measure(counts).auroc for label in labels], 1)
              for counts in resamples(total, replicates, seed, groups)]
    values = np.concatenate(blocks) if blocks else np.empty((0, len(labels)))
    return values[:, 0] if flat else values


def strata(truth: np.ndarray, patients: np.ndarray, smallest: int = 5) -> np.ndarray:
    """Patients with the same pattern of truth over the labels; patterns with few patients are pooled.

    Args:
        truth: (films, labels), 1, 0 or NaN; a patient has a finding when any of the films has it.
        patients: int (films,), 0 to patients - 1.
        smallest: patterns with fewer patients go into one common stratum, for a stratum of one never varies.

    Returns:
        int (patients,).
    """
    code = np.where(np.isnan(truth), 0, 1 + (truth == 1))
    best = np.zeros((int(patients.max(initial=-1)) + 1, truth.shape[1]), int)
    np.maximum.at(best, patients, code)
    _, pattern, size = np.unique(best, axis=0, return_inverse=True, return_counts=True)
    pattern = pattern.ravel()
    if truth.shape[1] == 1:
        return pattern
    return np.where(size[pattern] < smallest, -1, pattern) if (size >= smallest).any() else pattern * 0


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap values (replicates,), NaN replicates dropped; NaN when none is left."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
