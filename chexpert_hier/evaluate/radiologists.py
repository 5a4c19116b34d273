"""Predictions beside radiologists: operating points, who lies below the curve, F1 against each other, agreement.

A radiologist's file has 1 and 0 per label and study, as an operating point has no score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from .joining import Cases, Joining, join
from .names import label_columns, mean_labels
from .ranking import percentile_interval, resamples, roc_curve
from .reading import where
from .result import Result
from .thresholds import confusion, rates

_EQUAL = 1e-12  # rates are quotients of counts; closer than this is a tie


@dataclass
class Readers:
    """Radiologists and one file of predictions on the same studies.

    Attributes:
        points: one row per radiologist and label: sensitivity, specificity, precision, auc (of the one point), f1,
            kappa with the truth, below_roc and strictly_below_roc, curve_sensitivity, curve_precision, below_pr.
        below: one row per label and one for the mean: how many radiologists lie below the curve (>=, and strictly).
        f1: one row per label: F1 of the model and of the radiologists, each against the others, with intervals.
        agreement: one row per label and pair of radiologists: Cohen's kappa.
        notes: sentences for the reader.
    """

    points: pd.DataFrame
    below: pd.DataFrame
    f1: pd.DataFrame
    agreement: pd.DataFrame
    notes: list[str]


def beside(result: Result, radiologists: Mapping[str, pd.DataFrame], truth: pd.DataFrame,
           joining: Joining | None = None, *, replicates: int = 10000, seed: int = 0) -> Readers:
    """Set predictions beside radiologists.

    Args:
        result: the judged predictions, whose calls (at their thresholds) stand for the model in the F1 study.
        radiologists: name -> table of 1 and 0 with a key column.
        truth: as given to `evaluate`.
        joining: as given to `evaluate`.
        replicates: bootstrap samples of the F1 study (CheXNet drew 10,000).
        seed: of the resamples.

    Raises:
        InputError: a radiologist's cell that is neither 1 nor 0, or studies that do not match.
    """
    cases, calls = result.cases, {}
    joining = replace(joining or Joining(), labels=None, unit=cases.unit)
    for name, table in radiologists.items():
        _refuse_scores(table)
        calls[name] = _aligned(join(table, truth, joining), cases, name)
    points = operating_points(cases, calls)
    names = ["predictions", *calls]
    study = pd.DataFrame([_f1_row(cases, k, np.stack([result.calls[:, k], *(c[:, k] for c in calls.values())], 1),
                                  names, replicates, seed) for k in range(len(cases.labels))])
    notes = [f"{len(calls)} radiologists. A radiologist lies below the curve when the curve, straight between its "
             "points, is at least as high at the radiologist's false positive rate (Stanford's rule; the strict count "
             "stands beside it).",
             f"F1 as in CheXNet's Table 1: each rater against every other rater as reference, then the mean; "
             f"{replicates:,} bootstrap samples of patients. " + _model_calls(result)]
    return Readers(points, below_table(points, cases.labels), study, agreement(cases, calls), notes)


def _model_calls(result: Result) -> str:
    if result.cases.decisions:
        return "The predictions are decisions already."
    return f"The predictions are called at thresholds that are {result.settings['threshold']}, " + (
        "as given." if result.settings["threshold"].startswith("given") else
        "chosen on other films." if result.settings["fitted_on"] == "other films" else
        "chosen against the truth on other patients of the same set (cross-fitted).")


def _refuse_scores(table: pd.DataFrame) -> None:
    for column in label_columns(table.columns, table.attrs.get("source", "radiologist")).values():
        if pd.api.types.is_numeric_dtype(table[column]):
            bad = ~table[column].isin((0, 1))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise InputError(f"{where(table, row)}: {column} is {table[column].iloc[row]:g}; expected 1 or 0 from "
                                 "a radiologist")


def _aligned(reader: Cases, cases: Cases, name: str) -> np.ndarray:
    """A radiologist's calls (cases, labels) in the order of the predictions' cases; NaN for labels not read."""
    place = {key: row for row, key in enumerate(reader.keys)}
    if missing := [key for key in cases.keys if key not in place]:
        raise InputError(f"radiologist {name}: {len(missing)} of {len(cases.keys)} judged keys are missing, first "
                         f"{missing[0]}")
    rows = [place[key] for key in cases.keys]
    out = np.full((len(cases.keys), len(cases.labels)), np.nan)
    for k, label in enumerate(cases.labels):
        if label in reader.labels:
            out[:, k] = reader.scores[rows, reader.labels.index(label)]
    return out


def operating_points(cases: Cases, calls: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Each radiologist's point per label, and where the predictions' curves pass it.

    Args:
        cases: predictions and truth.
        calls: radiologist -> (cases, labels) of 1, 0, NaN.
    """
    rows: list[dict[str, Any]] = []
    for k, label in enumerate(cases.labels):
        for name, called in calls.items():
            counts = confusion(called[:, k], cases.truth[:, k])[0]
            found = {measure: float(value) for measure, value in rates(counts).items()}
            false_positive_rate = counts[3] / (counts[2] + counts[3]) if counts[2:].any() else np.nan
            curve = curve_at(cases.scores[:, k], cases.truth[:, k], false_positive_rate, found["sensitivity"])
            rows.append({"label": label, "radiologist": name, "sensitivity": found["sensitivity"],
                         "specificity": found["specificity"], "precision": found["ppv"],
                         "auc": (found["sensitivity"] + found["specificity"]) / 2, "f1": found["f1"],
                         "kappa": kappa(called[:, k], cases.truth[:, k]), **curve,
                         "below_roc": curve["curve_sensitivity"] >= found["sensitivity"] - _EQUAL,
                         "strictly_below_roc": curve["curve_sensitivity"] > found["sensitivity"] + _EQUAL,
                         "below_pr": curve["curve_precision"] >= found["ppv"] - _EQUAL})
    return pd.DataFrame(rows)


def curve_at(scores: np.ndarray, truth: np.ndarray, false_positive_rate: float, recall: float) -> dict[str, float]:
    """The curves beside a point: sensitivity at its false positive rate, precision at its recall.

    Straight between the curve's points. Where the curve has several points there (a vertical step) the first one on
    the way counts, that is the lowest sensitivity and the lowest precision: so does Stanford's code, whose published
    counts depend on it (deviations R1).

    Returns:
        curve_sensitivity and curve_precision; NaN where a class is missing.
    """
    curve = roc_curve(scores, truth)
    if not len(curve.sensitivity) or np.isnan(false_positive_rate) or np.isnan(recall):
        return {"curve_sensitivity": np.nan, "curve_precision": np.nan}
    true, false = curve.sensitivity * (truth == 1).sum(), curve.false_positive_rate * (truth == 0).sum()
    precision = np.divide(true, true + false, out=np.ones_like(true), where=true + false > 0)
    return {"curve_sensitivity": _projected(curve.false_positive_rate, curve.sensitivity, false_positive_rate),
            "curve_precision": _projected(-curve.sensitivity[::-1], precision[::-1], -recall)}


def _projected(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """y of the broken line over rising x, at its first point that reaches `at`."""
    reached = min(int(np.searchsorted(x, at - _EQUAL, "left")), len(x) - 1)
    if reached == 0 or x[reached] <= at + _EQUAL:
        return float(y[reached])
    share = (at - x[reached - 1]) / (x[reached] - x[reached - 1])
    return float(y[reached - 1] + share * (y[reached] - y[reached - 1]))


def below_table(points: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """How many radiologists lie below the ROC curve per label, and the mean over labels (Irvin et al. 2019; deviations
    R1)."""
    counts = points.groupby("label", sort=False)[["below_roc", "strictly_below_roc", "below_pr"]].sum()
    counts = counts.reindex(list(labels)).reset_index()
    over = mean_labels(labels)
    mean = counts[counts["label"].isin(over.labels)].drop(columns="label").mean()
    return pd.concat([counts, pd.DataFrame([{"label": over.name, **mean}])], ignore_index=True)


def _f1_row(cases: Cases, k: int, calls: np.ndarray, names: Sequence[str], replicates: int,
            seed: int) -> dict[str, Any]:
    used = ~np.isnan(calls).all(0)
    if not used[0] or used.sum() < 2 or np.isnan(calls[:, used]).any():
        return {"label": cases.labels[k], "model": np.nan, "radiologists": np.nan, "difference": np.nan,
                "sentence": "no thresholded predictions or no radiologist for this label"}
    study = f1_study(calls[:, used], cases.patients, replicates=replicates, seed=seed)
    raters = ["model", *(name for name, is_used in zip(names[1:], used[1:]) if is_used)]
    row: dict[str, Any] = {"label": cases.labels[k]}
    for name, values in (*zip(raters, study.raters), ("radiologists", study.radiologists),
                         ("difference", study.difference)):
        row |= {name: values.f1, f"{name}_low": values.low, f"{name}_high": values.high}
    return row | {"sentence": study.sentence}


class F1(NamedTuple):
    """An F1 score, or a difference of two, with its bootstrap interval."""

    f1: float
    low: float
    high: float


class F1Study(NamedTuple):
    """F1 of every rater against the others.

    Attributes:
        raters: in the order of the columns.
        radiologists: their mean.
        difference: the model minus that mean.
        sentence: on significance.
    """

    raters: tuple[F1, ...]
    radiologists: F1
    difference: F1
    sentence: str


def f1_study(calls: np.ndarray, patients: np.ndarray | None = None, *, model: int = 0, replicates: int = 10000,
             seed: int = 0, level: float = 0.95) -> F1Study:
    """F1 of every rater against each other rater as reference, averaged; the model is one of the raters.

    Args:
        calls: (films, raters) of 1 and 0.
        patients: (films,); None makes every film its own patient.
        model: which column is the model; the others are radiologists.
        replicates: bootstrap samples of patients.
        seed: of the samples.
        level: of the intervals.

    Source: Rajpurkar et al. 2017 (CheXNet, arXiv v3), section 3.1 and Table 1: four radiologists and the network, each
        against the other four; 10,000 samples; a difference is significant when its interval leaves out 0.
    """
    calls = np.asarray(calls, float)
    raters = calls.shape[1]
    index = np.arange(len(calls)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    pairs = list(combinations(range(raters), 2))
    cells = np.concatenate([calls, np.stack([calls[:, a] * calls[:, b] for a, b in pairs], 1)], 1)
    sums = np.zeros((int(index.max(initial=-1)) + 1, cells.shape[1]))
    np.add.at(sums, index, cells)
    others = [r for r in range(raters) if r != model]

    def columns(totals: np.ndarray) -> np.ndarray:                   # raters, the radiologists' mean, the difference
        f1 = _against_others(totals, raters, pairs)
        mean = f1[:, others].mean(1)
        return np.column_stack([f1, mean, f1[:, model] - mean])

    point = columns(sums.sum(0)[None])[0]
    drawn = [columns(block.T.astype(float) @ sums) for block in resamples(len(sums), replicates, seed)]
    values = np.concatenate(drawn) if drawn else np.empty((0, raters + 2))
    found = [F1(float(value), *percentile_interval(values[:, k], level)) for k, value in enumerate(point)]
    return F1Study(tuple(found[:raters]), found[raters], found[raters + 1], _f1_sentence(*found[raters + 1]))


def _against_others(totals: np.ndarray, raters: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Mean F1 with each other rater, (replicates, raters), from sums of calls and of pairs' common calls."""
    out = np.zeros((len(totals), raters))
    for column, (a, b) in enumerate(pairs, raters):
        both = totals[:, a] + totals[:, b]
        f1 = np.divide(2 * totals[:, column], both, out=np.full(len(totals), np.nan), where=both > 0)
        out[:, a] += f1 / (raters - 1)
        out[:, b] += f1 / (raters - 1)
    return out


def _f1_sentence(difference: float, low: float, high: float) -> str:
    if np.isnan([difference, low, high]).any():
        return "No F1: a rater called nothing present."
    where = f"{difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"The predictions' F1 is above the radiologists' by {where}: statistically significant."
    if high < 0:
        return f"The predictions' F1 is below the radiologists' by {where}: statistically significant."
    return f"The F1s differ by {where}: the interval holds 0, not significant."


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two columns of 1 and 0; films where either is NaN do not count; NaN without variation."""
    counts = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[counts], second[counts]
    if not len(first):
        return np.nan
    chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    return float(((first == second).mean() - chance) / (1 - chance)) if chance < 1 else np.nan


def agreement(cases: Cases, calls: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Cohen's kappa of every pair of radiologists per label."""
    rows = [{"label": label, "first": a, "second": b, "kappa": kappa(calls[a][:, k], calls[b][:, k])}
            for k, label in enumerate(cases.labels) for a, b in combinations(calls, 2)]
    return pd.DataFrame(rows, columns=["label", "first", "second", "kappa"])
