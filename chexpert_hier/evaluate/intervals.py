"""Rank measures of all labels with their intervals: one table, one joint resample of patients, the mean over labels."""

import numpy as np
import pandas as pd

from .joining import Cases
from .names import mean_labels
from .ranking import Ranks, delong, delong_interval, percentile_interval, resamples, strata

FEW = 10              # positives below which every number of a label is flagged
NARROW = 30           # positives below which 95 % intervals hold the truth clearly less often (results/coverage.md)
_BANDS_FROM = 500     # replicates that are enough for the curves' bands
_AVERAGED = ("auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1", "brier",
             "brier_calibrated", "calibration_error", "calibration_error_calibrated")


def rank_table(cases: Cases, replicates: int, seed: int, stratified: bool = False,
               curves: bool = False) -> tuple[pd.DataFrame, np.ndarray, dict[str, dict], np.ndarray | None]:
    """Everything that depends on the order of scores alone: AUROC, average precision, curves, their intervals.

    Returns:
        one row per label; float (replicates, labels), AUROC of every resample; label -> curves with bands (empty
        unless asked for); the strata of patients, or None.
    """
    ranks = [Ranks.of(cases.scores[:, k], cases.truth[:, k], cases.patients, cases.total_patients)
             for k in range(len(cases.labels))]
    groups = None
    if stratified:
        over = [cases.labels.index(label) for label in mean_labels(cases.labels)[1]]
        groups = strata(cases.truth[:, over], cases.patients)
    drawn, bands = _draw(ranks, cases.total_patients, replicates, seed, groups, curves)
    rows = []
    for k, label in enumerate(cases.labels):
        counts = np.ones((cases.total_patients, 1))
        area, precision = (float(value[0]) for value in ranks[k].measure(counts))
        covariance = delong(cases.scores[:, k], cases.truth[:, k], cases.patients)[1]
        low, high = percentile_interval(drawn[:, k, 0])
        delong_low, delong_high = delong_interval(area, covariance[0, 0])
        positives = int((cases.truth[:, k] == 1).sum())
        ap_low, ap_high = percentile_interval(drawn[:, k, 1])
        rows.append({"label": label, "auroc": area, "auroc_low": low, "auroc_high": high, "positives": positives,
                     "negatives": int((cases.truth[:, k] == 0).sum()), "uncertain": int(cases.uncertain[k]),
                     "few_positives": positives < FEW, "dropped_replicates": int(np.isnan(drawn[:, k, 0]).sum()),
                     "delong_low": delong_low, "delong_high": delong_high,
                     "delong_error": float(np.sqrt(max(covariance[0, 0], 0))) if covariance[0, 0] == covariance[0, 0]
                     else np.nan, "average_precision": precision, "average_precision_low": ap_low,
                     "average_precision_high": ap_high})
    found = {label: _band(ranks[k], bands[k], cases.total_patients) for k, label in enumerate(cases.labels)
             if curves and not np.isnan(rows[k]["auroc"])}
    return pd.DataFrame(rows), drawn[:, :, 0], found, groups


def _draw(ranks: list[Ranks], patients: int, replicates: int, seed: int, groups: np.ndarray | None,
          curves: bool) -> tuple[np.ndarray, list[list]]:
    drawn = np.full((replicates, len(ranks), 2), np.nan)
    bands: list[list] = [[] for _ in ranks]
    done = 0
    for counts in resamples(patients, replicates, seed, groups):
        size = counts.shape[1]
        for k, rank in enumerate(ranks):
            drawn[done:done + size, k] = np.stack(rank.measure(counts), 1)
            if curves and done < _BANDS_FROM:
                bands[k].append(rank.curves(counts[:, :_BANDS_FROM - done]))
        done += size
    return drawn, bands


def _band(rank: Ranks, drawn: list, patients: int) -> dict[str, np.ndarray]:
    roc, precision = (value[0] for value in rank.curves(np.ones((patients, 1))))
    out = {"roc": roc, "precision": precision}
    for at, kind in enumerate(("roc", "precision")):
        values = np.concatenate([block[at] for block in drawn]) if drawn else np.empty((0, len(roc)))
        values = values[~np.isnan(values).any(1)]
        limits = np.quantile(values, [0.025, 0.975], axis=0) if len(values) else np.full((2, len(roc)), np.nan)
        out[f"{kind}_low"], out[f"{kind}_high"] = limits
    return out


def mean_row(table: pd.DataFrame, replicates: np.ndarray) -> tuple[dict, list[str]]:
    """The mean over labels, its interval from the same resamples; a resample that lacks a class anywhere is dropped.

    Args:
        table: one row per label.
        replicates: float (replicates, labels).

    Returns:
        the row, with labels_counted, and the labels it is over: those of `mean_labels` that have an AUROC.
    """
    name, over = mean_labels(table["label"])
    used = table.index[table["label"].isin(over) & table["auroc"].notna()]
    means = replicates[:, used].mean(1) if len(used) else np.full(len(replicates), np.nan)
    low, high = percentile_interval(means)
    row = {"label": name, **{c: table.loc[used, c].mean() for c in _AVERAGED if c in table},
           "auroc_low": low, "auroc_high": high,
           **{c: int(table.loc[used, c].sum()) for c in ("positives", "negatives", "uncertain")},
           "few_positives": bool(table.loc[used, "few_positives"].any()),
           "dropped_replicates": int(np.isnan(means).sum()), "labels_counted": len(used)}
    return row, [str(label) for label in table.loc[used, "label"]]


def with_mean(table: pd.DataFrame, replicates: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """The table with the mean as its last row, and the labels that the mean is over."""
    row, used = mean_row(table, replicates)
    table = table.assign(labels_counted=1 * table["auroc"].notna())
    return pd.concat([table, pd.DataFrame([row])], ignore_index=True), used
