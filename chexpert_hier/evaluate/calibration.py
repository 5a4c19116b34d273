"""Do the scores mean what they say? Brier score, calibration error, reliability, Platt and isotonic scaling.

Only scores in [0, 1] are judged here; others have an order but no meaning as probabilities.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from .. import schema
from ..errors import InputError, one_of
from ..hierarchy import Tree

ISOTONIC_POSITIVES = 200  # isotonic steps follow the noise below that many positives
METHODS = ("platt", "isotonic", "none")
_EDGE = 1e-6              # probabilities are kept this far from 0 and 1 before the logit


def brier(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared difference of probability and truth over the films that count; NaN where none does."""
    counts = np.isfinite(truth) & np.isfinite(scores)
    return float(np.mean((scores[counts] - truth[counts]) ** 2)) if counts.any() else np.nan


def reliability(scores: np.ndarray, truth: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Mean probability beside observed frequency in equal-width bins of [0, 1].

    Returns:
        one row per bin that holds films: low, high, films, predicted, observed, and the 95 % Wilson interval of the
        observed frequency (observed_low, observed_high; films taken as independent).
    """
    counts = np.isfinite(truth) & np.isfinite(scores)
    scores, truth = scores[counts], truth[counts]
    place = np.minimum((scores * bins).astype(int), bins - 1)
    films = np.bincount(place, minlength=bins)
    used = films > 0
    predicted = np.bincount(place, scores, bins)[used] / films[used]
    observed = np.bincount(place, truth, bins)[used] / films[used]
    low, high = wilson(observed, films[used])
    edges = np.linspace(0, 1, bins + 1)
    return pd.DataFrame({"low": edges[:-1][used], "high": edges[1:][used], "films": films[used],
                         "predicted": predicted, "observed": observed, "observed_low": low, "observed_high": high})


def calibration_error(scores: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: the mean over films of |observed - predicted| in 10 equal-width bins.

    Source: Naeini, Cooper, Hauskrecht, AAAI 2015; Guo et al., ICML 2017, eq. 3.
    """
    table = reliability(scores, truth, bins)
    gap = (table["observed"] - table["predicted"]).abs()
    return float((gap * table["films"]).sum() / table["films"].sum()) if len(table) else np.nan


def wilson(share: np.ndarray, count: np.ndarray, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % Wilson score interval of shares out of counts."""
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1)


@dataclass(frozen=True)
class Scaling:
    """A map from a label's scores to calibrated probabilities; plain numbers, so that it goes into JSON.

    Attributes:
        method: "platt", "isotonic" or "none" (scores stay as they are).
        slope, intercept: Platt: p = sigmoid(slope * logit(score) + intercept).
        x, y: isotonic: the corners of the rising line, linear between them.
        positives: how many positives it was fitted on.
    """

    method: str
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    positives: int = 0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of scores in [0, 1], same shape."""
        if self.method == "none":
            return np.asarray(scores, float)
        if self.method == "isotonic":
            scaled: np.ndarray = np.interp(scores, self.x, self.y)
            return scaled
        scaled = 1 / (1 + np.exp(-(self.slope * _logit(scores) + self.intercept)))
        return scaled

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def fit(scores: np.ndarray, truth: np.ndarray, method: str = "platt") -> Scaling:
    """Fit a label's scaling.

    Args:
        scores: (films,) in [0, 1].
        truth: (films,), 1, 0, NaN = does not count.
        method: "platt", "isotonic" (which needs 200 positives, else Platt is taken) or "none".

    Returns:
        the scaling; "none" where a class is missing, for nothing can be learned there.

    Source: Platt 1999 with his smoothed targets (N+ + 1)/(N+ + 2) and 1/(N- + 2), on the logit of the score, so that
        slope 1 and intercept 0 leave a calibrated score as it is; Zadrozny and Elkan 2002 for isotonic.
    """
    one_of("--calibrate", method, METHODS)
    counts = np.isfinite(truth)
    scores, present = np.asarray(scores, float)[counts], truth[counts] == 1
    positives, negatives = int(present.sum()), int((~present).sum())
    if method == "none" or not positives or not negatives:
        return Scaling("none", positives=positives)
    if method == "isotonic" and positives >= ISOTONIC_POSITIVES:
        from sklearn.isotonic import IsotonicRegression
        line = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, present.astype(float))
        return Scaling("isotonic", x=tuple(map(float, line.X_thresholds_)), y=tuple(map(float, line.y_thresholds_)),
                       positives=positives)
    target = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, intercept = _newton(_logit(scores), target)
    return Scaling("platt", slope, intercept, positives=positives)


def _logit(scores: np.ndarray) -> np.ndarray:
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    logit: np.ndarray = np.log(inside) - np.log1p(-inside)
    return logit


def logistic(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of a truth (1, 0) on the logit of scores in [0, 1], (films,)."""
    return _newton(_logit(scores), truth)


def _newton(x: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Logistic regression of soft targets on one variable by damped Newton steps."""
    design = np.stack([x, np.ones_like(x)], 1)
    weights = np.array([0.0, _logit(target.mean())])  # of no slope

    def loss(w: np.ndarray) -> float:
        z = design @ w
        return float(np.sum(np.logaddexp(0, z) - target * z))

    now = loss(weights)
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - target)
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2), gradient)
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > now:
            size /= 2
        weights = weights - size * step
        now = loss(weights)
        if np.abs(size * step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def under_ancestors(probabilities: np.ndarray, labels: tuple[str, ...], tree: Tree) -> np.ndarray:
    """Lower every probability to the smallest of its ancestors', so that the tree holds after per-label scaling.

    Args:
        probabilities: (films, labels).
        labels: the columns; ancestors that are not among them are left out.
        tree: the hierarchy.
    """
    out = probabilities.copy()
    place = {label: k for k, label in enumerate(labels)}
    for k, label in enumerate(labels):
        if label in tree.labels:
            row = tree.ancestors[tree.labels.index(label)]
            above = [place[name] for name, is_above in zip(tree.labels, row) if is_above and name in place]
            out[:, k] = np.minimum.reduce(probabilities[:, above], axis=1) if above else out[:, k]
    return out


def read_scalings(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Scaling]:
    """Scalings as they stand in evaluation.json under "calibration".

    Raises:
        InputError: a field is missing, unknown, or not of its type.
    """
    scalings = {label: schema.read(Scaling, fields, f"calibration: {label}") for label, fields in stored.items()}
    for label, scaling in scalings.items():
        one_of(f"calibration: {label}: method", scaling.method, METHODS)
        if len(scaling.x) != len(scaling.y) or (scaling.method == "isotonic" and not scaling.x):
            raise InputError(f"calibration: {label}: {len(scaling.x)} x and {len(scaling.y)} y; expected as many, and "
                             "some for isotonic")
    return scalings
