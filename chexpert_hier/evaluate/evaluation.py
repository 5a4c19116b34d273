"""Judge one file of predictions against the truth: per label and for the mean, with intervals over patients.

`evaluate` is the way in; everything it finds lies in a `Result`, which `page` and `files` write down.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .. import hierarchy
from ..errors import InputError
from . import calibration, comparison, thresholds
from .intervals import FEW, NARROW, rank_table, with_mean
from .joining import Cases, join
from .names import mean_labels
from .ranking import percentile_interval, resamples
from .subgroups import subgroups
from .tree import tree_for, tree_report

log = logging.getLogger("chexpert_hier.evaluate")

@dataclass
class Result:
    """All that was found out about one file of predictions.

    Attributes:
        name: of the predictions.
        cases: what was judged.
        table: one row per label and one for the mean ("mean of five" when all five competition labels are there).
        replicates: float (replicates, labels), AUROC of every resample; NaN where one lacked a class.
        curves: label -> {"roc", "roc_low", "roc_high", "precision", ...} over `ranking.BAND`.
        reliability: label -> {"raw": table, "scaled": table}; empty where scores are no probabilities.
        scalings: label -> calibration.Scaling, fitted on all fitting films, for use on other files.
        calibrated: (cases, labels) calibrated scores that obey the tree, or None.
        subgroups: one row per group and label, or None.
        tree: hierarchy report, one row per edge, or None.
        comparisons: name -> table of `comparison.compare`, e.g. with the scores before the chain rule.
        calls: (cases, labels) 1, 0 or NaN: called present at the threshold (cross-fitted where there is one set).
        notes: sentences for the reader; all assumptions, exclusions and warnings.
        settings: how it was done.
    """

    name: str
    cases: Cases
    table: pd.DataFrame
    replicates: np.ndarray
    curves: dict[str, dict] = field(default_factory=dict)
    reliability: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    scalings: dict[str, calibration.Scaling] = field(default_factory=dict)
    calibrated: np.ndarray | None = None
    subgroups: pd.DataFrame | None = None
    tree: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    calls: np.ndarray | None = None
    comparisons: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def mean_name(self) -> str:
        """The name of the table's last row."""
        return self.table["label"].iloc[-1]


def evaluate(predictions: pd.DataFrame, truth: pd.DataFrame, labels: Sequence[str] | None = None, *,
             patients: str | Sequence | None = None, replicates: int = 1000, seed: int = 0, stratified: bool = False,
             unit: str | None = None, rule: str | Mapping[str, str] = "max", truth_blank: str = "negative",
             intersect: bool = False, views: str = "both", threshold="youden", calibrate: str = "platt",
             fit: tuple[pd.DataFrame, pd.DataFrame] | None = None, conditional: pd.DataFrame | None = None,
             by: Sequence[str] = (), tree: hierarchy.Tree | None = None, curves: bool = True,
             name: str = "predictions") -> Result:
    """Judge predictions against the truth.

    Args:
        predictions: key column (Path or Study) and one column of scores per label, higher = more likely.
        truth: key column and one column per label with 1, 0, -1 (left out) or blank (see `truth_blank`).
        labels, patients, unit, rule, truth_blank, intersect, views: see `joining.join`.
        replicates: bootstrap resamples of patients, the same ones for all labels and their mean.
        seed: of resamples and folds.
        stratified: resample within patients of the same pattern of truth (of the mean's labels).
        threshold: youden, f1, sensitivity=V, specificity=V, a number, or {label: number}.
        calibrate: platt, isotonic (from 200 positives on) or none.
        fit: (predictions, truth) of other films, on which thresholds and scaling are learned; None cross-fits by
            patient on the films themselves.
        conditional: the same predictions before the chain rule; sets both beside each other.
        by: columns of the truth file to split by, e.g. ("Sex", "Age", "AP/PA").
        tree: the hierarchy; None takes that of the data set the labels belong to (see `tree_for`).
        curves: also make ROC and PR curves with bands.
        name: of the predictions, for the report.

    Returns:
        the result; `.table` has one row per label and one for the mean.

    Raises:
        InputError: input that does not fit, in one line.
    """
    threshold = thresholds.parse_rule(threshold)
    if replicates < 0:
        raise InputError(f"--replicates is {replicates}; expected 0 or more")
    joining = {"unit": unit, "rule": rule, "truth_blank": truth_blank, "intersect": intersect, "views": views}
    cases = join(predictions, truth, labels, patients=patients, **joining)
    own = patients if isinstance(patients, str) else None             # a list of patients belongs to `truth` only
    fitting = join(*fit, cases.labels, patients=own, **joining) if fit else None
    before = join(conditional, truth, cases.labels, patients=patients, **joining) if conditional is not None else None
    return judge(cases, fitting, before, replicates=replicates, seed=seed, stratified=stratified, threshold=threshold,
                 calibrate=calibrate, by=by, tree=tree, curves=curves, name=name)


def judge(cases: Cases, fitting: Cases | None = None, conditional: Cases | None = None, *, replicates: int = 1000,
          seed: int = 0, stratified: bool = False, threshold="youden", calibrate: str = "platt", by: Sequence[str] = (),
          tree: hierarchy.Tree | None = None, curves: bool = True, name: str = "predictions") -> Result:
    """`evaluate` on cases that are already joined.

    Args:
        cases: what is judged.
        fitting: other cases to learn thresholds and scaling from.
        conditional: the same cases before the chain rule.

    The further arguments are those of `evaluate`.
    """
    notes = list(cases.notes)
    tree = tree or tree_for(cases.labels)
    table, values, found, groups = rank_table(cases, replicates, seed, stratified, curves)
    result = Result(name, cases, table, values, found, notes=notes, settings={
        "unit": cases.unit, "cases": len(cases.keys), "patients": cases.total_patients, "replicates": replicates,
        "seed": seed, "stratified": stratified, "threshold": thresholds.rule_in_words(threshold),
        "calibrate": calibrate, "fitted_on": "other films" if fitting else "cross-fitted by patient"})
    _tell_seldom(table, cases, notes)
    if fitting is not None:
        _refuse_shared_patients(cases, fitting, notes)
    _add_thresholds(result, fitting, threshold, replicates, seed, groups)
    _add_calibration(result, fitting, calibrate, tree, seed)
    _add_mean(result)
    if conditional is not None:
        _add_before(result, conditional, replicates, seed)
    result.tree = tree_report(cases, tree, conditional)
    if by:
        result.subgroups = subgroups(cases, by, replicates, seed, stratified)
        notes.append("Subgroups: their intervals are not corrected for looking at many groups.")
    return result


def _tell_seldom(table: pd.DataFrame, cases: Cases, notes: list[str]) -> None:
    for row in table.itertuples():
        if np.isnan(row.auroc):
            notes.append(f"{row.label}: no AUROC, for there are {row.positives} positives and {row.negatives} "
                         "negatives.")
        elif row.dropped_replicates:
            notes.append(f"{row.label}: {row.dropped_replicates:,} resamples lacked a class and were dropped.")
    if few := [f"{row.label} ({row.positives})" for row in table.itertuples() if row.few_positives]:
        notes.append(f"Fewer than {FEW} positives, so that no number of these is reliable: {', '.join(few)}.")
    if some := [f"{row.label} ({row.positives})" for row in table.itertuples() if FEW <= row.positives < NARROW]:
        notes.append(f"Fewer than {NARROW} positives: 95 % intervals hold the true AUROC in about 80 to 95 % of cases "
                     f"only (experiments/results/coverage.md): {', '.join(some)}.")
    for k, label in enumerate(cases.labels):
        if len(cases.keys) > 1 and np.ptp(cases.scores[:, k]) == 0:
            notes.append(f"{label}: all scores are the same, which makes the AUROC 0.5 by ties.")


def _refuse_shared_patients(cases: Cases, fitting: Cases, notes: list[str]) -> None:
    if shared := set(cases.who) & set(fitting.who):
        raise InputError(f"--fit: {len(shared)} patients to fit on are also judged, first {min(shared)}; fit on other "
                         "patients, or leave --fit out to cross-fit")
    notes.extend(f"Fitting films: {note}" for note in fitting.notes if note not in notes)


def _add_thresholds(result: Result, fitting: Cases | None, rule, replicates: int, seed: int,
                    groups: np.ndarray | None) -> None:
    cases, table = result.cases, result.table
    calls = np.full(cases.scores.shape, np.nan)
    chosen = np.full(len(cases.labels), np.nan)
    if isinstance(rule, Mapping) and (missing := [label for label in cases.labels if label not in rule]):
        result.notes.append(f"No threshold was given for {', '.join(missing)}.")
    for k, label in enumerate(cases.labels):
        scores, truth = cases.scores[:, k], cases.truth[:, k]
        if not isinstance(rule, str):
            chosen[k] = rule.get(label, np.nan) if isinstance(rule, Mapping) else rule
            calls[:, k] = thresholds.call(chosen[k], scores)
            continue
        learn = fitting or cases
        chosen[k] = thresholds.choose(learn.scores[:, k], learn.truth[:, k], rule)
        calls[:, k] = thresholds.call(chosen[k], scores) if fitting else thresholds.cross_fitted(
            scores, truth, cases.patients, lambda s, t: thresholds.choose(s, t, rule), thresholds.call, seed)
    result.calls = calls
    counts = [thresholds.confusion(calls[:, k], cases.truth[:, k], cases.patients, cases.total_patients)
              for k in range(len(cases.labels))]
    table["threshold"] = chosen
    _add_rates(table, counts, replicates, seed, groups)
    words = thresholds.rule_in_words(rule)
    result.notes.append(
        f"Thresholds: {words}." if not isinstance(rule, str) else
        f"Thresholds: {words}, chosen on the fitting films only." if fitting else
        f"Thresholds: {words}. Each patient's films are judged at a threshold chosen on the other patients "
        f"({thresholds.FOLDS}-fold cross-fitting); the threshold shown is that of all films, for later use.")


def _add_rates(table: pd.DataFrame, counts: list[np.ndarray], replicates: int, seed: int,
               groups: np.ndarray | None) -> None:
    """Rates with intervals over patients; the calls stay as they are in the resamples."""
    stacked = np.concatenate(counts, 1)                               # (patients, labels x 4)
    point = thresholds.rates(stacked.sum(0).reshape(-1, 4))
    sums = [block.T @ stacked for block in resamples(len(stacked), replicates, seed, groups)]
    drawn = thresholds.rates(np.concatenate(sums).reshape(replicates, -1, 4)) if sums else None
    for measure in thresholds.MEASURES:
        table[measure] = point[measure]
        limits = [percentile_interval(drawn[measure][:, k] if drawn else np.empty(0)) for k in range(len(counts))]
        table[f"{measure}_low"], table[f"{measure}_high"] = np.array(limits).T


def _add_calibration(result: Result, fitting: Cases | None, method: str, tree: hierarchy.Tree, seed: int) -> None:
    cases, table = result.cases, result.table
    for column in ("brier", "brier_calibrated", "calibration_error", "calibration_error_calibrated"):
        table[column] = np.nan
    outside = ((cases.scores < 0) | (cases.scores > 1)).sum()
    if outside or (fitting is not None and ((fitting.scores < 0) | (fitting.scores > 1)).any()):
        message = (f"{outside:,} of {cases.scores.size:,} scores lie outside [0, 1]: they are no probabilities. Ranks "
                   "(AUROC, average precision, thresholds) are judged; Brier score and calibration are left out.")
        log.warning("%s: %s", result.name, message)
        result.notes.append(message)
        return
    scaled = np.empty_like(cases.scores)
    for k, label in enumerate(cases.labels):
        learn = fitting or cases
        result.scalings[label] = calibration.fit(learn.scores[:, k], learn.truth[:, k], method)
        scaled[:, k] = result.scalings[label](cases.scores[:, k]) if fitting else thresholds.cross_fitted(
            cases.scores[:, k], cases.truth[:, k], cases.patients,
            lambda s, t: calibration.fit(s, t, method), lambda scaling, s: scaling(s), seed)
    result.calibrated = calibration.under_ancestors(scaled, cases.labels, tree)
    for k, label in enumerate(cases.labels):
        truth = cases.truth[:, k]
        for scores, kind, ending in ((cases.scores, "raw", ""), (result.calibrated, "scaled", "_calibrated")):
            table.loc[k, f"brier{ending}"] = calibration.brier(scores[:, k], truth)
            table.loc[k, f"calibration_error{ending}"] = calibration.calibration_error(scores[:, k], truth)
            result.reliability.setdefault(label, {})[kind] = calibration.reliability(scores[:, k], truth)
    result.notes.append(_calibration_in_words(result, method, fitting))


def _calibration_in_words(result: Result, method: str, fitting: Cases | None) -> str:
    if method == "none":
        return "Scores were not calibrated."
    used = {}
    for label, scaling in result.scalings.items():
        used.setdefault(scaling.method, []).append(label)
    parts = [f"{ {'platt': 'Platt scaling', 'isotonic': 'isotonic regression', 'none': 'none (a class is missing)'}[m]}"
             + (f" for {', '.join(found)}" if len(used) > 1 else " for every label") for m, found in used.items()]
    where = "fitted on the fitting films" if fitting else "each patient's scores scaled by a fit to the other patients"
    return (f"Calibration: {'; '.join(parts)}; {where}; then no label above an ancestor of it. Isotonic regression is "
            f"used from {calibration.ISOTONIC_POSITIVES} positives on.")


def _add_mean(result: Result) -> None:
    labels = result.table["label"]
    every = result.table["auroc"]
    result.settings |= {"mean_of_all": float(every.mean()), "mean_of_all_labels": int(every.notna().sum())}
    result.table, used = with_mean(result.table, result.replicates)
    result.settings["mean_over"] = used
    name, over = mean_labels(labels)
    missing = [label for label in over if label not in used]
    result.notes.append(f"The {name} is over {len(used)} label{'s' * (len(used) != 1)}"
                        + (f"; without AUROC: {', '.join(missing)}" if missing else "") + ".")


def _add_before(result: Result, conditional: Cases, replicates: int, seed: int) -> None:
    if list(conditional.keys) != list(result.cases.keys):
        raise InputError("the scores before the chain rule have other keys than those after it; both must judge the "
                         "same films")
    result.settings["conditional"] = "given"
    result.comparisons["after the chain rule against before"] = comparison.compare(
        conditional, result.cases, ("before the chain rule", "after it"), replicates=replicates, seed=seed)
