"""Two predictions of the same films: is the difference more than noise?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..errors import InputError
from .joining import Cases
from .names import mean_labels
from .ranking import Ranks, delong, percentile_interval, resamples


def in_common(first: Cases, second: Cases) -> tuple[Cases, Cases]:
    """The same films and labels of both, in the first one's order.

    Raises:
        InputError: they share no film or no label.
    """
    labels = [label for label in first.labels if label in second.labels]
    place = {key: row for row, key in enumerate(second.keys)}
    rows = np.array([row for row, key in enumerate(first.keys) if key in place], int)
    if not labels or not len(rows) or first.unit != second.unit:
        raise InputError("the two predictions share no film or no label, so they cannot be compared")
    other = np.array([place[first.keys[row]] for row in rows], int)
    left, right = first.subset(rows), second.subset(other)
    left, right = left.only(labels), right.only(labels)
    return left, replace(right, patients=left.patients)


def compare(first: Cases, second: Cases, names: Sequence[str] = ("first", "second"), *, replicates: int = 1000,
            seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """AUROC of the second minus that of the first, on the same films and the same resamples of patients.

    Args:
        first, second: predictions joined with the same truth.
        names: what to call them in the verdict.
        replicates: bootstrap resamples of patients.
        seed: of the resamples.
        level: of the intervals.

    Returns:
        one row per label and one for the mean: label, auroc_first, auroc_second, difference, difference_low,
        difference_high (paired bootstrap), p_delong (two-sided; clustered where patients repeat), p_bootstrap,
        p_holm (DeLong's, corrected over the labels; for the mean the bootstrap's own), verdict in words.

    Source: DeLong et al. 1988; Obuchowski 1997; Holm 1979.
    """
    first, second = in_common(first, second)
    rows = [_label_row(first, second, k) for k in range(len(first.labels))]
    drawn = _differences(first, second, replicates, seed)            # (replicates, labels)
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_delong"].to_numpy())
    name, over = mean_labels(first.labels)
    used = table.index[table["label"].isin(over) & table["difference"].notna()]
    mean = {"label": name, **table.loc[used, ["auroc_first", "auroc_second", "difference"]].mean().to_dict()}
    table = pd.concat([table, pd.DataFrame([mean])], ignore_index=True)
    means = drawn[:, used].mean(1) if len(used) else np.full(len(drawn), np.nan)
    columns = [*drawn.T, means]
    table["difference_low"], table["difference_high"] = np.array([percentile_interval(c, level) for c in columns]).T
    table["p_bootstrap"] = [_bootstrap_p(column) for column in columns]
    table.loc[len(table) - 1, "p_holm"] = table["p_bootstrap"].iloc[-1]
    table["verdict"] = [_verdict(row, names, level) for row in table.itertuples()]
    return table


def _label_row(first: Cases, second: Cases, k: int) -> dict:
    from scipy.stats import norm
    both = np.stack([first.scores[:, k], second.scores[:, k]], 1)
    areas, covariance = delong(both, first.truth[:, k], first.patients)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    gap = areas[1] - areas[0]
    if np.isnan(variance):
        p = np.nan
    elif variance <= 1e-18:                                          # the same order of films in both
        p = 1.0 if abs(gap) < 1e-12 else 0.0
    else:
        p = float(2 * norm.sf(abs(gap) / np.sqrt(variance)))
    return {"label": first.labels[k], "auroc_first": areas[0], "auroc_second": areas[1], "difference": gap,
            "p_delong": p}


def _differences(first: Cases, second: Cases, replicates: int, seed: int) -> np.ndarray:
    total = first.total_patients
    pairs = [[Ranks.of(side.scores[:, k], side.truth[:, k], side.patients, total) for side in (first, second)]
             for k in range(len(first.labels))]
    blocks = [np.stack([right.measure(counts)[0] - left.measure(counts)[0] for left, right in pairs], 1)
              for counts in resamples(total, replicates, seed)]
    return np.concatenate(blocks) if blocks else np.empty((0, len(pairs)))


def _bootstrap_p(differences: np.ndarray) -> float:
    values = differences[~np.isnan(differences)]
    if not len(values):
        return np.nan
    tail = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(values) + 1)))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p values (tests,); NaN stays NaN and does not count as a test."""
    p = np.asarray(p, float)
    out = np.full(len(p), np.nan)
    order = [k for k in np.argsort(p, kind="stable") if not np.isnan(p[k])]
    worst = 0.0
    for place, k in enumerate(order):
        worst = max(worst, (len(order) - place) * p[k])
        out[k] = min(worst, 1.0)
    return out


def _verdict(row, names: Sequence[str], level: float) -> str:
    if np.isnan(row.difference) or np.isnan(row.p_holm):
        return "cannot be told"
    clear = row.p_holm < 1 - level and (row.difference_low > 0 or row.difference_high < 0)
    if clear:
        return f"{names[1] if row.difference > 0 else names[0]} is better, beyond noise"
    if row.p_holm < 1 - level or row.difference_low > 0 or row.difference_high < 0:
        return "within noise or at its edge: the tests do not agree, or not after correction"
    return "within noise"
