"""How well maps find findings: pointing game and overlap with boxes or masks, with bootstrap intervals.

Definitions as in CheXlocalize (Saporta et al. 2022, their code): both are computed on films that have the finding, per
finding; a hit is the map's largest pixel lying inside the radiologist's region; overlap is intersection over union of
that region with the map's pixels above a threshold. Works on arrays only: no films, no models.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import InputError


class Mean(NamedTuple):
    """A mean over films with its bootstrap interval; NaN where there is nothing to average."""

    mean: float
    low: float
    high: float
    films: int


def box_mask(boxes: Sequence[Sequence[float]], shape: tuple[int, int]) -> np.ndarray:
    """Boxes (x, y, width, height) in film pixels -> bool (h, w), true for pixels whose centre lies in a box."""
    mask = np.zeros(shape, bool)
    rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    for x, y, width, height in boxes:
        mask |= np.outer((rows >= y) & (rows < y + height), (columns >= x) & (columns < x + width))
    return mask


def hit(heat: np.ndarray, region: np.ndarray) -> bool:
    """Whether the map's largest pixel (the first in row order among equals) lies inside the region.

    Args:
        heat: float (h, w), NaN where the network has not looked.
        region: bool (h, w).
    """
    _same_shape(heat, region)
    if np.isnan(heat).all():
        return False
    return bool(region[np.unravel_index(np.nanargmax(heat), heat.shape)])


def hit_at(point: tuple[float, float], region: np.ndarray) -> bool:
    """Whether a point, (row, column) as shares of height and width in [0, 1), lies inside the region."""
    row, column = (min(int(share * length), length - 1) for share, length in zip(point, region.shape))
    return bool(region[row, column])


def best_constant_point(regions: Iterable[np.ndarray], grid: int = 256) -> tuple[float, float]:
    """The one point that lies in most training regions: what a map must beat that claims to look at the film.

    Args:
        regions: bool (h, w) each, of training films with the finding.
        grid: the regions are counted on a grid of this many cells each way.

    Returns:
        (row, column) as shares of height and width. Among equals the one nearest to their middle.

    Raises:
        InputError: no region has a pixel.
    """
    count = np.zeros((grid, grid))
    for region in regions:
        count += cv2.resize(region.astype("float32"), (grid, grid), interpolation=cv2.INTER_AREA)
    if not count.any():
        raise InputError("best constant point: no training film has a region of this finding")
    best = np.argwhere(count >= count.max() * (1 - 1e-9))
    row, column = best[np.abs(best - best.mean(axis=0)).sum(axis=1).argmin()]
    return (row + 0.5) / grid, (column + 0.5) / grid


def segment(heat: np.ndarray, threshold: float | str = "otsu") -> np.ndarray:
    """The pixels that a map marks: scaled to [0, 1] between its smallest and largest value, then above the threshold.

    Args:
        heat: float (h, w); NaN is never marked. A constant map marks nothing.
        threshold: "otsu" (CheXlocalize's default) or a share in [0, 1) tuned elsewhere.

    Returns:
        bool (h, w).
    """
    seen = ~np.isnan(heat)
    low, high = (np.nanmin(heat), np.nanmax(heat)) if seen.any() else (0.0, 0.0)
    if not high > low:
        return np.zeros(heat.shape, bool)
    scaled = np.where(seen, (heat - low) / (high - low), 0.0)
    if threshold == "otsu":
        levels = (255 * scaled).astype("uint8")  # cut off, not rounded, as theirs
        cut = cv2.threshold(levels[seen].reshape(1, -1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
        return seen & (levels > cut)
    return seen & (scaled > threshold)


def iou(marked: np.ndarray, region: np.ndarray, true_positives_only: bool = True) -> float:
    """Intersection over union of two bool (h, w).

    NaN where the region is empty; where nothing is marked NaN (CheXlocalize's default: "true positive slice") or, with
    `true_positives_only=False`, 0.
    """
    _same_shape(marked, region)
    if not region.any() or (true_positives_only and not marked.any()):
        return float("nan")
    return np.count_nonzero(marked & region) / np.count_nonzero(marked | region)


def bootstrap_mean(values: np.ndarray, patients: np.ndarray | None = None, draws: int = 1000, seed: int = 0,
                   level: float = 0.95) -> Mean:
    """Mean over films with a percentile interval from resampling.

    For a paired comparison give the films' differences.

    Args:
        values: float (n,), one per film with the finding; NaN is left out.
        patients: (n,) names; whole patients are drawn. None draws films, as CheXlocalize does.
        draws: how many resamples.
        seed: of the draws.
        level: the interval's share of them.
    """
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    values = values[known]
    if not len(values):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    groups = np.arange(len(values)) if patients is None else np.unique(np.asarray(patients)[known],
                                                                       return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    rng, means = np.random.default_rng(seed), np.empty(draws)
    for draw in range(draws):
        chosen = rng.integers(0, len(sums), len(sums))
        means[draw] = sums[chosen].sum() / counts[chosen].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Mean(float(values.mean()), float(low), float(high), len(values))


def _same_shape(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape:
        raise ValueError(f"map {one.shape} and region {other.shape} differ; lay the map onto the film first")
