"""A finished model on films of another data set: what it keeps of its AUROC, calibration and operating points.

"Inside" are the films that the run itself was judged on, "outside" those of the other data set. Works on joined cases
only: `runs` reads the folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from . import calibration
from .comparison import LEVEL, NOISE, UNKNOWN, holm, normal_p, variance_of
from .evaluation import judge
from .joining import Cases
from .names import mean_labels
from .ranking import percentile_interval
from .result import Judging, Result
from .subgroups import groups
from .variance import delong, influence


@dataclass
class External:
    """The same model inside and outside.

    Attributes:
        name: of the other data set.
        inside, outside: judged; outside at the thresholds and with the calibration that were fitted inside.
        table: one row per label and one for the mean; see `compare_outside`.
        subgroups: the outside columns of `table` per group of the outside films, or None.
        notes: sentences for the reader.
    """

    name: str
    inside: Result
    outside: Result
    table: pd.DataFrame
    subgroups: pd.DataFrame | None
    notes: list[str]


def compare_outside(inside: Cases, outside: Cases, judging: Judging, name: str) -> External:
    """Judge a model's answers outside against those inside.

    Args:
        inside, outside: cases of the same model, on different patients.
        judging: how; `by` splits the outside films.
        name: of the other data set.

    Returns:
        in `.table`, per label: auroc_inside and auroc_outside with intervals, difference (outside minus inside) with
        its interval and p values (DeLong for independent samples, corrected over labels by Holm); prevalence;
        mean score, Brier score, calibration error, calibration slope and intercept inside and outside (of the raw
        scores); threshold (chosen inside), sensitivity and specificity there inside (cross-fitted) and outside.

    Raises:
        InputError: no label in common.
    """
    labels = [label for label in inside.labels if label in outside.labels]
    if not labels:
        raise InputError(f"{name}: no label in common with the run's; it has {', '.join(outside.labels)}")
    inside, outside = _apart(inside.only(labels), "inside"), _apart(outside.only(labels), "outside")
    here = judge(inside, replace(judging, by=(), name="inside"))
    there = judge(outside, replace(judging, by=(), name="outside", seed=judging.seed + 1), inside)
    notes = [f"Inside: {inside.in_words}; outside ({name}): {outside.in_words}.",
             "Operating points: thresholds chosen on the inside films and carried over; inside they are judged by "
             "cross-fitting.", "Calibration slope and intercept are those of a logistic regression of the truth on the "
             "logit of the raw score: 1 and 0 where scores mean what they say; a slope below 1 is overconfidence, an "
             "intercept below 0 too many predicted."]
    parts = _by_group(outside, there, judging) if judging.by else None
    return External(name, here, there, _table(here, there), parts, notes)


def _apart(cases: Cases, side: str) -> Cases:
    """Patients of two data sets may have the same names: they are different people."""
    return replace(cases, who=np.array([f"{side}: {who}" for who in cases.who], object).astype(str))


class Calibrated(NamedTuple):
    """How far a label's scores mean what they say; NaN where they are no probabilities or a class is missing."""

    mean_score: float
    slope: float
    intercept: float


def drift(scores: np.ndarray, truth: np.ndarray) -> Calibrated:
    """Mean score, and slope and intercept of the truth's logistic regression on the score's logit.

    Args:
        scores: (films,) in [0, 1].
        truth: (films,), 1, 0, NaN = does not count.

    Source: Cox 1958; Van Calster et al. 2019, "Calibration: the Achilles heel of predictive analytics".
    """
    counted = ~np.isnan(truth)
    mean = float(scores[counted].mean()) if counted.any() else np.nan
    if ((scores < 0) | (scores > 1)).any() or len(set(truth[counted])) < 2:
        return Calibrated(mean, np.nan, np.nan)
    slope, intercept = calibration.logistic(scores[counted], truth[counted])
    return Calibrated(mean, slope, intercept)


def _table(here: Result, there: Result) -> pd.DataFrame:
    both = ("inside", here), ("outside", there)
    rows = [_row(both, k) for k in range(len(here.cases.labels))]
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_delong"].to_numpy())
    over = mean_labels(here.cases.labels)
    used = np.flatnonzero(table["label"].isin(over.labels) & table["difference"].notna())
    numbers = table.select_dtypes("number").columns
    mean: dict[str, Any] = {"label": over.name, **table.loc[used, numbers].mean()}
    mean |= {c: np.nan for c in numbers if c.startswith(("p_", "threshold")) or "_low" in c or "_high" in c}
    for side, result in both:
        mean |= {f"{c}_{side}": int(table.loc[used, f"{c}_{side}"].sum()) for c in ("positives", "negatives")}
        mean[f"auroc_low_{side}"], mean[f"auroc_high_{side}"] = percentile_interval(_mean_of(result, used))
    gap = _mean_of(there, used) - _mean_of(here, used)
    mean["difference_low"], mean["difference_high"] = percentile_interval(gap)
    mean["p_delong"] = mean["p_holm"] = normal_p(mean["difference"], sum(_variance(r, used) for _, r in both))
    table = pd.concat([table, pd.DataFrame([mean])], ignore_index=True)
    return table.assign(verdict=[_verdict(row) for row in table.to_dict("records")])


def _mean_of(result: Result, used: np.ndarray) -> np.ndarray:
    if not len(used):
        return np.full(len(result.replicates), np.nan)
    means: np.ndarray = result.replicates[:, used].mean(1)
    return means


def _row(both: Sequence[tuple[str, Result]], k: int) -> dict[str, Any]:
    out: dict[str, Any] = {"label": both[0][1].cases.labels[k]}
    areas, variances = [], []
    for side, result in both:
        cases, row = result.cases, result.table.iloc[k]
        positives, negatives = int(row["positives"]), int(row["negatives"])
        found = drift(cases.scores[:, k], cases.truth[:, k])
        out |= {f"{c}_{side}": row[c] for c in ("auroc", "auroc_low", "auroc_high", "positives", "negatives")}
        out |= {f"prevalence_{side}": positives / max(positives + negatives, 1), f"mean_score_{side}": found.mean_score,
                f"slope_{side}": found.slope, f"intercept_{side}": found.intercept,
                f"brier_{side}": row.get("brier", np.nan),
                f"calibration_error_{side}": row.get("calibration_error", np.nan),
                f"brier_calibrated_{side}": row.get("brier_calibrated", np.nan)}
        for measure in ("sensitivity", "specificity"):
            out |= {f"{c}_{side}": row[c] for c in (measure, f"{measure}_low", f"{measure}_high")}
        areas.append(row["auroc"])
        variances.append(delong(cases.scores[:, k], cases.truth[:, k], cases.patients).covariance[0, 0])
    drawn = both[1][1].replicates[:, k] - both[0][1].replicates[:, k]
    low, high = percentile_interval(drawn)
    return out | {"threshold": both[0][1].table["threshold"].iloc[k], "difference": areas[1] - areas[0],
                  "difference_low": low, "difference_high": high,
                  "p_delong": normal_p(areas[1] - areas[0], sum(variances))}


def _variance(result: Result, used: np.ndarray) -> float:
    """Of the mean AUROC over some labels, from the patients' influence on all of them."""
    cases = result.cases
    found = [influence(cases.scores[:, [k]], cases.truth[:, k], cases.patients, cases.total_patients) for k in used]
    return variance_of(np.concatenate(found, 1).mean(1)) if found else np.nan


def _verdict(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["difference"]) or np.isnan(row["p_holm"]):
        return UNKNOWN
    apart = row["difference_low"] > 0 or row["difference_high"] < 0
    if apart and row["p_holm"] < 1 - LEVEL:
        return f"{'better' if row['difference'] > 0 else 'worse'} outside, beyond noise"
    return NOISE


def _by_group(outside: Cases, there: Result, judging: Judging) -> pd.DataFrame:
    """AUROC, sensitivity and specificity at the carried thresholds for each group of the outside films."""
    given = {label: float(value) for label, value in zip(outside.labels, there.table["threshold"])}
    parts = []
    for column in judging.by:
        for group, rows in groups(outside, column).items():
            found = judge(outside.subset(rows), replace(judging, by=(), threshold=given, curves=False,
                                                        calibrate="none"))
            kept = found.table[["label", "auroc", "auroc_low", "auroc_high", "positives", "negatives", "few_positives",
                                *(f"{m}{e}" for m in ("sensitivity", "specificity") for e in ("", "_low", "_high"))]]
            parts.append(kept.assign(by=column, group=group, cases=len(found.cases.keys)))
    return pd.concat(parts, ignore_index=True)
