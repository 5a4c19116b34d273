"""Two or more predictions of the same films: are the differences more than noise?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError, one_of
from .frames import rows
from .joining import Cases
from .names import mean_labels
from .ranking import Ranks, percentile_interval, resamples
from .result import Result
from .thresholds import confusion, rates
from .variance import delong, influence

LEVEL = 0.95
NOISE = "within noise"
EDGE = "within noise or at its edge: the tests do not agree, or not after correction"
UNKNOWN = "cannot be told"


def in_common(first: Cases, second: Cases) -> tuple[Cases, Cases]:
    """The same films and labels of both, in the first one's order.

    Raises:
        InputError: they share no film or no label.
    """
    labels = [label for label in first.labels if label in second.labels]
    place = {key: row for row, key in enumerate(second.keys)}
    shared = np.array([row for row, key in enumerate(first.keys) if key in place], int)
    if not labels or not len(shared) or first.unit != second.unit:
        raise InputError("the two predictions share no film or no label, so they cannot be compared")
    other = np.array([place[first.keys[row]] for row in shared], int)
    left, right = first.subset(shared).only(labels), second.subset(other).only(labels)
    return left, replace(right, patients=left.patients)


def compare(first: Cases, second: Cases, names: Sequence[str] = ("first", "second"), *, replicates: int = 1000,
            seed: int = 0) -> pd.DataFrame:
    """AUROC of the second minus that of the first, on the same films and the same resamples of patients.

    Args:
        first, second: predictions joined with the same truth.
        names: what to call them.
        replicates: bootstrap resamples of patients.
        seed: of the resamples.

    Returns:
        one row per label and one for the mean: first, second (their names), label, auroc_first, auroc_second,
        difference, difference_low, difference_high (paired bootstrap), p_delong (two-sided; clustered where patients
        repeat; the mean's from the patients' influence on all its labels), p_bootstrap, p_holm (DeLong's, corrected
        over the labels), verdict in words.

    Source: DeLong et al. 1988; Obuchowski 1997; Holm 1979.
    """
    return corrected([_measured(first, second, names, replicates, seed)])[0]


def compare_systems(results: Sequence[Result], pairs: str = "first", *, replicates: int = 1000,
                    seed: int = 0) -> dict[str, pd.DataFrame]:
    """Compare several judged predictions; p values are corrected over all labels and pairs together (Holm).

    Decisions have no AUROC: a pair with one of them is compared by Matthews' correlation of the calls at the
    thresholds, with bootstrap p values.

    Args:
        results: the judged predictions.
        pairs: "first" sets the others against the first, "all" every two, a name the others against that one.
        replicates: bootstrap resamples of patients.
        seed: of the resamples.

    Returns:
        "B against A" -> table as of `compare`; mcc_first and mcc_second where decisions are compared.

    Raises:
        InputError: `pairs` names no system, or two share no film or label.
    """
    named = {result.name: result for result in results}
    one_of("--pairs", pairs, ("first", "all", *named))
    main = results[0].name if pairs == "first" else pairs
    chosen = list(combinations(named, 2)) if pairs == "all" else [(main, name) for name in named if name != main]
    tables = []
    for names in chosen:
        first, second = (named[name] for name in names)
        by_calls = first.cases.decisions or second.cases.decisions
        tables.append(_measured_calls(first, second, replicates, seed) if by_calls else
                      _measured(first.cases, second.cases, names, replicates, seed))
    return {f"{b} against {a}": table for (a, b), table in zip(chosen, corrected(tables))}


def _measured(first: Cases, second: Cases, names: Sequence[str], replicates: int, seed: int) -> pd.DataFrame:
    """All columns of `compare` but p_holm and verdict."""
    first, second = in_common(first, second)
    total = first.total_patients
    pairs = [[Ranks.of(side.scores[:, k], side.truth[:, k], side.patients, total) for side in (first, second)]
             for k in range(len(first.labels))]
    blocks = [np.stack([right.measure(counts).auroc - left.measure(counts).auroc for left, right in pairs], 1)
              for counts in resamples(total, replicates, seed)]
    drawn = np.concatenate(blocks) if blocks else np.empty((0, len(pairs)))
    found = [_delong_row(first, second, k) for k in range(len(first.labels))]
    influences = np.stack([np.diff(influence(np.stack([first.scores[:, k], second.scores[:, k]], 1), first.truth[:, k],
                                             first.patients, total), axis=1)[:, 0] for k in range(len(pairs))], 1)
    return _table("auroc", names, first.labels, pd.DataFrame(found), drawn, influences)


def _delong_row(first: Cases, second: Cases, k: int) -> dict[str, float]:
    both = np.stack([first.scores[:, k], second.scores[:, k]], 1)
    areas, covariance = delong(both, first.truth[:, k], first.patients)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return {"first": areas[0], "second": areas[1], "p_delong": normal_p(areas[1] - areas[0], variance)}


def normal_p(gap: float, variance: float) -> float:
    """Two-sided p of a difference with this variance; the same order of films in both has none."""
    from scipy.stats import norm
    if np.isnan(variance) or np.isnan(gap):
        return np.nan
    if variance <= 1e-18:
        return 1.0 if abs(gap) < 1e-12 else 0.0
    return float(2 * norm.sf(abs(gap) / np.sqrt(variance)))


def variance_of(influences: np.ndarray) -> float:
    """The variance of a measure from what each patient adds to its error, (patients,)."""
    return float(influences @ influences) * len(influences) / max(len(influences) - 1, 1)


def _measured_calls(first: Result, second: Result, replicates: int, seed: int) -> pd.DataFrame:
    """The same by Matthews' correlation of the calls, where at least one side has decisions only."""
    left, right = in_common(*(replace(side.cases, scores=side.calls) for side in (first, second)))

    sides = [np.stack([confusion(side.scores[:, k], left.truth[:, k], left.patients, left.total_patients)
                       for k in range(len(left.labels))], 1).reshape(left.total_patients, -1) for side in (left, right)]
    point = [rates(side.sum(0).reshape(-1, 4))["mcc"] for side in sides]
    blocks = [_mcc_gap(sides, counts) for counts in resamples(left.total_patients, replicates, seed)]
    drawn = np.concatenate(blocks) if blocks else np.empty((0, len(left.labels)))
    found = pd.DataFrame({"first": point[0], "second": point[1], "p_delong": np.nan})
    return _table("mcc", (first.name, second.name), left.labels, found, drawn, None)


def _mcc_gap(sides: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Second minus first in every resample, (replicates, labels), from the sides' (patients, labels x 4)."""
    first, second = (rates((counts.T @ side).reshape(counts.shape[1], -1, 4))["mcc"] for side in sides)
    gap: np.ndarray = second - first
    return gap


def _table(measure: str, names: Sequence[str], labels: Sequence[str], found: pd.DataFrame, drawn: np.ndarray,
           influences: np.ndarray | None) -> pd.DataFrame:
    """Rows of the labels and of their mean.

    Args:
        measure: "auroc" or "mcc".
        names: of the two.
        labels: (labels,).
        found: columns first, second, p_delong; one row per label.
        drawn: (replicates, labels), differences.
        influences: (patients, labels) of the differences, or None where there is no DeLong.
    """
    over = mean_labels(labels)
    gaps = (found["second"] - found["first"]).to_numpy()
    used = np.flatnonzero(np.isin(labels, over.labels) & ~np.isnan(gaps))
    means = drawn[:, used].mean(1) if len(used) else np.full(len(drawn), np.nan)
    p_mean = np.nan
    if influences is not None and len(used):
        p_mean = normal_p(gaps[used].mean(), variance_of(influences[:, used].mean(1)))
    columns = [*drawn.T, means]
    limits = np.array([percentile_interval(column, LEVEL) for column in columns])
    mean = found.iloc[used].mean()
    out = {"first": names[0], "second": names[1], "label": [*labels, over.name],
           f"{measure}_first": [*found["first"], mean["first"]],
           f"{measure}_second": [*found["second"], mean["second"]]}
    return pd.DataFrame(out).assign(
        difference=[*gaps, mean["second"] - mean["first"]], difference_low=limits[:, 0], difference_high=limits[:, 1],
        p_delong=[*found["p_delong"], p_mean], p_bootstrap=[_bootstrap_p(column) for column in columns])


def _bootstrap_p(differences: np.ndarray) -> float:
    values = differences[~np.isnan(differences)]
    if not len(values):
        return np.nan
    tail = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(values) + 1)))


def corrected(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Add p_holm and the verdict: one family of tests for the labels of all tables, one for their means.

    Args:
        tables: columns label, difference, difference_low, difference_high, p_delong, p_bootstrap, first, second; the
            last row is the mean. DeLong's p counts where there is one, else the bootstrap's.
    """
    p = [table["p_bootstrap" if table["p_delong"].isna().all() else "p_delong"].to_numpy(float) for table in tables]
    labels = iter(holm(np.concatenate([values[:-1] for values in p])) if p else ())
    means = iter(holm(np.array([values[-1] for values in p])))
    out = []
    for table in tables:
        table = table.assign(p_holm=[*(next(labels) for _ in range(len(table) - 1)), next(means)])
        out.append(table.assign(verdict=[_verdict(row) for row in rows(table)]))
    return out


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


def _verdict(row: Any) -> str:
    if np.isnan(row.difference) or np.isnan(row.p_holm):
        return UNKNOWN
    small, apart = row.p_holm < 1 - LEVEL, row.difference_low > 0 or row.difference_high < 0
    if small and apart:
        return f"{row.second if row.difference > 0 else row.first} is better, beyond noise"
    return EDGE if small or apart else NOISE


def certainly_better(row: Mapping[Any, Any]) -> str | None:
    """The name of the system that a row of a comparison finds better beyond noise, or None."""
    better = row["second"] if row["difference"] > 0 else row["first"]
    return str(better) if row["verdict"] == f"{better} is better, beyond noise" else None
