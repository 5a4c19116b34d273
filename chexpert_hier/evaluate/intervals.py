"""Rank measures of all labels with their intervals: one table, one joint resample of patients, the mean over labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .joining import Cases
from .names import mean_labels
from .ranking import Curves, Ranks, percentile_interval, resamples, strata
from .variance import delong, delong_interval

FEW = 10              # positives below which every number of a label is flagged
NARROW = 30           # positives below which 95 % intervals hold the truth clearly less often (results/coverage.md)
_BANDS_FROM = 500     # replicates that are enough for the curves' bands
_AVERAGED = ("auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "brier",
             "brier_calibrated", "calibration_error", "calibration_error_calibrated")


class Resampling(NamedTuple):
    """How patients are drawn: how often, from which seed, and whether within patterns of truth."""

    replicates: int = 1000
    seed: int = 0
    stratified: bool = False


class RankTable(NamedTuple):
    """Everything that depends on the order of scores alone.

    Attributes:
        table: one row per label: AUROC, average precision, their intervals, counts.
        replicates: float (replicates, labels), AUROC of every resample.
        curves: label -> curves with bands over `ranking.BAND`.
        strata: int (patients,), or None: the strata that patients were drawn in.
    """

    table: pd.DataFrame
    replicates: np.ndarray
    curves: dict[str, dict[str, np.ndarray]]
    strata: np.ndarray | None


def rank_table(cases: Cases, resampling: Resampling, curves: bool = False) -> RankTable:
    """Judge the order of scores; decisions (scores of 0 and 1 only) have none, so that their rank measures are NaN.

    Args:
        cases: what is judged.
        resampling: how patients are drawn.
        curves: also make ROC and PR curves with bands.
    """
    groups = strata_of(cases) if resampling.stratified else None
    ranks = [Ranks.of(cases.scores[:, k], cases.truth[:, k], cases.patients, cases.total_patients)
             for k in range(len(cases.labels))]
    drawn = np.full((resampling.replicates, len(ranks), 2), np.nan)
    bands: list[list[Curves]] = [[] for _ in ranks]
    if not cases.decisions:
        _draw(drawn, bands if curves else [], ranks, resamples(cases.total_patients, resampling.replicates,
                                                               resampling.seed, groups))
    table = pd.DataFrame([_row(cases, k, rank, drawn[:, k]) for k, rank in enumerate(ranks)])
    found = {label: _band(ranks[k], bands[k], cases.total_patients) for k, label in enumerate(cases.labels)
             if curves and not np.isnan(table["auroc"].iloc[k])}
    return RankTable(table, drawn[:, :, 0], found, groups)


def strata_of(cases: Cases) -> np.ndarray:
    """Patients by their pattern of truth over the mean's labels, int (patients,)."""
    over = [cases.labels.index(label) for label in mean_labels(cases.labels).labels]
    return strata(cases.truth[:, over], cases.patients)


def _row(cases: Cases, k: int, rank: Ranks, drawn: np.ndarray) -> dict[str, object]:
    area = precision = variance = np.nan
    if not cases.decisions:
        area, precision = (float(value[0]) for value in rank.measure(np.ones((cases.total_patients, 1))))
        variance = delong(cases.scores[:, k], cases.truth[:, k], cases.patients).covariance[0, 0]
    positives = int((cases.truth[:, k] == 1).sum())
    low, high = percentile_interval(drawn[:, 0])
    delong_low, delong_high = delong_interval(area, variance)
    ap_low, ap_high = percentile_interval(drawn[:, 1])
    dropped = 0 if cases.decisions else int(np.isnan(drawn[:, 0]).sum())
    return {"label": cases.labels[k], "auroc": area, "auroc_low": low, "auroc_high": high, "positives": positives,
            "negatives": int((cases.truth[:, k] == 0).sum()), "uncertain": int(cases.uncertain[k]),
            "few_positives": positives < FEW, "dropped_replicates": dropped, "delong_low": delong_low,
            "delong_high": delong_high, "delong_error": float(np.sqrt(np.maximum(variance, 0.0))),
            "average_precision": precision, "average_precision_low": ap_low, "average_precision_high": ap_high}


def _draw(drawn: np.ndarray, bands: Sequence[list[Curves]], ranks: Sequence[Ranks],
          blocks: Iterable[np.ndarray]) -> None:
    """Fill in AUROC and average precision of every resample, (replicates, labels, 2); curves of the first ones."""
    done = 0
    for counts in blocks:
        size = counts.shape[1]
        for k, rank in enumerate(ranks):
            drawn[done:done + size, k] = np.stack(rank.measure(counts), 1)
            if bands and done < _BANDS_FROM:
                bands[k].append(rank.curves(counts[:, :_BANDS_FROM - done]))
        done += size


def _band(rank: Ranks, drawn: Sequence[Curves], patients: int) -> dict[str, np.ndarray]:
    """The curves of all films, and point by point the 95 % interval of the resamples' that have both classes."""
    out = {kind: values[0] for kind, values in rank.curves(np.ones((patients, 1)))._asdict().items()}
    for kind in tuple(out):
        values = np.concatenate([getattr(block, kind) for block in drawn]) if drawn else np.empty((0, len(out[kind])))
        values = values[~np.isnan(values).any(1)]
        limits = np.quantile(values, [0.025, 0.975], axis=0) if len(values) else np.full((2, len(out[kind])), np.nan)
        out[f"{kind}_low"], out[f"{kind}_high"] = limits
    return out


class WithMean(NamedTuple):
    """A table whose last row is the mean, and the labels that the mean is over."""

    table: pd.DataFrame
    labels: list[str]


def with_mean(table: pd.DataFrame, drawn: Mapping[str, np.ndarray]) -> WithMean:
    """Append the mean over labels, its intervals from the same resamples of patients.

    The mean is over those of `mean_labels` that have positives and negatives; a resample in which one of them has no
    value is dropped.

    Args:
        table: one row per label.
        drawn: measure -> float (replicates, labels), of which the mean gets intervals; "auroc" among them.
    """
    chosen = mean_labels(table["label"])
    counted = (table["positives"] > 0) & (table["negatives"] > 0)
    used = np.flatnonzero(table["label"].isin(chosen.labels) & counted)
    part = table.iloc[used]
    row: dict[str, Any] = {"label": chosen.name, **{c: part[c].mean() for c in _AVERAGED if c in table}}
    for measure, values in drawn.items():
        means = values[:, used].mean(1) if len(used) else np.full(len(values), np.nan)
        row[f"{measure}_low"], row[f"{measure}_high"] = percentile_interval(means)
        if measure == "auroc":
            row["dropped_replicates"] = int(np.isnan(means).sum())
    row |= {c: int(part[c].sum()) for c in ("positives", "negatives", "uncertain")}
    row |= {"few_positives": bool(part["few_positives"].any()), "labels_counted": len(used)}
    whole = pd.concat([table.assign(labels_counted=counted.astype(int)), pd.DataFrame([row])], ignore_index=True)
    return WithMean(whole, [str(label) for label in part["label"]])


def further_means(table: pd.DataFrame, replicates: np.ndarray) -> pd.DataFrame:
    """The plain mean AUROC over all labels, and that weighted by their positives (scikit-learn's "weighted").

    Args:
        table: one row per label.
        replicates: float (replicates, labels), AUROC of every resample; the weights stay those of all cases.

    Returns:
        rows as the mean's: label, auroc, auroc_low, auroc_high, labels_counted.
    """
    used = np.flatnonzero(table["auroc"].notna())
    areas, rows = table["auroc"].to_numpy()[used], []
    for name, weights in ((f"mean of {len(used)}", np.ones(len(used))),
                          (f"mean of {len(used)}, weighted by positives", table["positives"].to_numpy(float)[used])):
        share = weights / weights.sum() if len(used) else weights
        low, high = percentile_interval(replicates[:, used] @ share)
        rows.append({"label": name, "auroc": float(areas @ share) if len(used) else np.nan, "auroc_low": low,
                     "auroc_high": high, "labels_counted": len(used)})
    return pd.DataFrame(rows)
