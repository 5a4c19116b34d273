"""Judge one file of predictions against the truth: per label and for the mean, with intervals over patients.

`evaluate` is the way in; everything it finds lies in a `Result`, which `page` and `output` write down.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .. import hierarchy
from ..errors import InputError
from . import calibration, thresholds
from .comparison import compare
from .frames import rows
from .intervals import FEW, NARROW, Resampling, further_means, rank_table, with_mean
from .joining import Cases, Joining, join
from .names import mean_labels
from .ranking import percentile_interval, resamples
from .result import Judging, Result
from .subgroups import require_columns, subgroups
from .tree import tree_for, tree_report

log = logging.getLogger("chexpert_hier.evaluate")


def evaluate(predictions: pd.DataFrame, truth: pd.DataFrame, joining: Joining | None = None,
             judging: Judging | None = None, *, fit: tuple[pd.DataFrame, pd.DataFrame] | None = None,
             conditional: pd.DataFrame | None = None) -> Result:
    """Judge predictions against the truth.

    Args:
        predictions: key column (Path or Study) and one column of scores per label, higher = more likely.
        truth: key column and one column per label with 1, 0, -1 (left out) or blank.
        joining: how the two are put side by side; None: the defaults.
        judging: how they are judged then; None: the defaults.
        fit: (predictions, truth) of other films, on which thresholds and scaling are learned; None cross-fits by
            patient on the films themselves.
        conditional: the same predictions before the chain rule; sets both beside each other.

    Returns:
        the result; `.table` has one row per label and one for the mean.

    Raises:
        InputError: input that does not fit, in one line.
    """
    joining = joining or Joining()
    cases = join(predictions, truth, joining)
    fitting = join(*fit, joining.elsewhere(cases.labels)) if fit else None
    before = None if conditional is None else join(conditional, truth, replace(joining, labels=cases.labels))
    return judge(cases, judging, fitting, before)


def judge(cases: Cases, judging: Judging | None = None, fitting: Cases | None = None,
          conditional: Cases | None = None) -> Result:
    """`evaluate` on cases that are already joined.

    Args:
        cases: what is judged.
        judging: how; None: the defaults.
        fitting: other cases to learn thresholds and scaling from.
        conditional: the same cases before the chain rule.
    """
    judging = judging or Judging()
    require_columns(cases, judging.by)
    notes = list(cases.notes)
    if fitting is not None:
        _refuse_shared_patients(cases, fitting, notes)
    ranked = rank_table(cases, judging.resampling, judging.curves)
    result = Result(judging.name, cases, ranked.table, ranked.replicates, np.full(cases.scores.shape, np.nan),
                    ranked.curves, notes=notes, settings=_settings(cases, judging, fitting))
    _tell_seldom(result)
    drawn = _add_thresholds(result, judging, fitting, ranked.strata)
    tree = judging.tree or tree_for(cases.labels)
    if not cases.decisions:
        _add_calibration(result, judging, fitting, tree)
    _add_means(result, judging, {"auroc": ranked.replicates, **drawn})
    if conditional is not None:
        _add_before(result, conditional, judging)
    result.tree = tree_report(cases, tree, conditional)
    if judging.by:
        result.subgroups = subgroups(cases, judging.by, judging.resampling)
        notes.append("Subgroups: their intervals are not corrected for looking at many groups.")
    return result


def _settings(cases: Cases, judging: Judging, fitting: Cases | None) -> dict[str, Any]:
    return {"unit": cases.unit, "cases": len(cases.keys), "patients": cases.total_patients,
            "replicates": judging.replicates, "seed": judging.seed, "stratified": judging.stratified,
            "threshold": "the file's own decisions" if cases.decisions else thresholds.rule_in_words(judging.threshold),
            "calibrate": "none" if cases.decisions else judging.calibrate,
            "fitted_on": "other films" if fitting else "cross-fitted by patient", "decisions": cases.decisions}


def _refuse_shared_patients(cases: Cases, fitting: Cases, notes: list[str]) -> None:
    if shared := set(cases.who) & set(fitting.who):
        raise InputError(f"--fit: {len(shared)} patients to fit on are also judged, first {min(shared)}; fit on other "
                         "patients, or leave --fit out to cross-fit")
    notes.extend(f"Fitting films: {note}" for note in fitting.notes if note not in notes)


def _tell_seldom(result: Result) -> None:
    cases, notes, table = result.cases, result.notes, list(rows(result.table))
    what = "no measure of both classes" if cases.decisions else "no AUROC"
    if cases.decisions:
        notes.append("These are decisions (0 and 1 only), not scores: sensitivity, specificity, F1 and Matthews' "
                     "correlation are judged; decisions have no order, so no AUROC, no curves and no calibration.")
    for row in table:
        if not row.positives or not row.negatives:
            notes.append(f"{row.label}: {what}, for there are {row.positives} positives and {row.negatives} "
                         "negatives.")
        elif row.dropped_replicates:
            notes.append(f"{row.label}: {row.dropped_replicates:,} resamples lacked a class and were dropped.")
    if few := [f"{row.label} ({row.positives})" for row in table if row.few_positives]:
        notes.append(f"Fewer than {FEW} positives, so that no number of these is reliable: {', '.join(few)}.")
    some = [f"{row.label} ({row.positives})" for row in table if FEW <= row.positives < NARROW]
    if some and not cases.decisions:
        notes.append(f"Fewer than {NARROW} positives: 95 % intervals hold the true AUROC in about 80 to 95 % of cases "
                     f"only (experiments/results/coverage.md): {', '.join(some)}.")
    for k, label in enumerate(cases.labels):
        if len(cases.keys) > 1 and np.ptp(cases.scores[:, k]) == 0 and not cases.decisions:
            notes.append(f"{label}: all scores are the same, which makes the AUROC 0.5 by ties.")


def _add_thresholds(result: Result, judging: Judging, fitting: Cases | None,
                    groups: np.ndarray | None) -> dict[str, np.ndarray]:
    """Calls, thresholds and rates into the result; measure -> float (replicates, labels) of the resamples."""
    cases, rule = result.cases, judging.threshold
    chosen = np.full(len(cases.labels), np.nan)
    if cases.decisions:
        result.calls = cases.scores
    else:
        if isinstance(rule, Mapping) and (missing := [label for label in cases.labels if label not in rule]):
            result.notes.append(f"No threshold was given for {', '.join(missing)}.")
        for k in range(len(cases.labels)):
            chosen[k], result.calls[:, k] = _called(cases, k, rule, fitting, judging.seed)
        result.notes.append(_threshold_in_words(rule, fitting))
    result.table["threshold"] = chosen
    counts = [thresholds.confusion(result.calls[:, k], cases.truth[:, k], cases.patients, cases.total_patients)
              for k in range(len(cases.labels))]
    return _add_rates(result.table, counts, judging.resampling, groups)


def _called(cases: Cases, k: int, rule: thresholds.Rule, fitting: Cases | None, seed: int) -> tuple[float, np.ndarray]:
    """A label's threshold, and its calls (cases,): 1, 0, NaN without a threshold."""
    scores = cases.scores[:, k]
    if not isinstance(rule, str):
        given = float(rule.get(cases.labels[k], np.nan) if isinstance(rule, Mapping) else rule)
        return given, thresholds.call(given, scores)
    learn = fitting or cases
    chosen = thresholds.choose(learn.scores[:, k], learn.truth[:, k], rule)
    if fitting:
        return chosen, thresholds.call(chosen, scores)
    return chosen, thresholds.cross_fitted(scores, cases.truth[:, k], cases.patients,
                                           lambda s, t: thresholds.choose(s, t, rule), thresholds.call, seed)


def _threshold_in_words(rule: thresholds.Rule, fitting: Cases | None) -> str:
    words = thresholds.rule_in_words(rule)
    if not isinstance(rule, str):
        return f"Thresholds: {words}."
    if fitting:
        return f"Thresholds: {words}, chosen on the fitting films only."
    return (f"Thresholds: {words}. Each patient's films are judged at a threshold chosen on the other patients "
            f"({thresholds.FOLDS}-fold cross-fitting); the threshold shown is that of all films, for later use.")


def _add_rates(table: pd.DataFrame, counts: list[np.ndarray], resampling: Resampling,
               groups: np.ndarray | None) -> dict[str, np.ndarray]:
    """Rates with intervals over patients; the calls stay as they are in the resamples."""
    stacked = np.concatenate(counts, 1)                               # (patients, labels x 4)
    point = thresholds.rates(stacked.sum(0).reshape(-1, 4))
    sums = [block.T @ stacked for block in resamples(len(stacked), resampling.replicates, resampling.seed, groups)]
    totals = np.concatenate(sums) if sums else np.empty((0, stacked.shape[1]))
    drawn = thresholds.rates(totals.reshape(len(totals), len(counts), 4))
    for measure in thresholds.MEASURES:
        table[measure] = point[measure]
        limits = [percentile_interval(drawn[measure][:, k]) for k in range(len(counts))]
        table[f"{measure}_low"], table[f"{measure}_high"] = np.array(limits).T
    return drawn


def _add_calibration(result: Result, judging: Judging, fitting: Cases | None, tree: hierarchy.Tree) -> None:
    cases, method = result.cases, judging.calibrate
    for column in ("brier", "brier_calibrated", "calibration_error", "calibration_error_calibrated"):
        result.table[column] = np.nan
    outside = int(((cases.scores < 0) | (cases.scores > 1)).sum())
    if outside or (fitting is not None and ((fitting.scores < 0) | (fitting.scores > 1)).any()):
        message = (f"{outside:,} of {cases.scores.size:,} scores lie outside [0, 1]: they are no probabilities. Ranks "
                   "(AUROC, average precision, thresholds) are judged; Brier score and calibration are left out.")
        log.warning("%s: %s", result.name, message)
        result.notes.append(message)
        return
    scaled = np.stack([_scaled(result, k, method, fitting, judging.seed) for k in range(len(cases.labels))], 1)
    result.calibrated = calibration.under_ancestors(scaled, cases.labels, tree)
    for k, label in enumerate(cases.labels):
        truth = cases.truth[:, k]
        for scores, kind, ending in ((cases.scores, "raw", ""), (result.calibrated, "scaled", "_calibrated")):
            result.table.loc[k, f"brier{ending}"] = calibration.brier(scores[:, k], truth)
            result.table.loc[k, f"calibration_error{ending}"] = calibration.calibration_error(scores[:, k], truth)
            result.reliability.setdefault(label, {})[kind] = calibration.reliability(scores[:, k], truth)
    result.notes.append(_calibration_in_words(result, method, fitting))


def _scaled(result: Result, k: int, method: str, fitting: Cases | None, seed: int) -> np.ndarray:
    """A label's calibrated scores (cases,); keeps the scaling that was fitted on all fitting films."""
    cases, learn = result.cases, fitting or result.cases
    scaling = calibration.fit(learn.scores[:, k], learn.truth[:, k], method)
    result.scalings[cases.labels[k]] = scaling
    if fitting:
        return scaling(cases.scores[:, k])
    return thresholds.cross_fitted(cases.scores[:, k], cases.truth[:, k], cases.patients,
                                   lambda s, t: calibration.fit(s, t, method), lambda learned, s: learned(s), seed)


def _calibration_in_words(result: Result, method: str, fitting: Cases | None) -> str:
    if method == "none":
        return "Scores were not calibrated."
    used: dict[str, list[str]] = {}
    for label, scaling in result.scalings.items():
        used.setdefault(scaling.method, []).append(label)
    words = {"platt": "Platt scaling", "isotonic": "isotonic regression", "none": "none (a class is missing)"}
    parts = [words[m] + (f" for {', '.join(found)}" if len(used) > 1 else " for every label")
             for m, found in used.items()]
    where = "fitted on the fitting films" if fitting else "each patient's scores scaled by a fit to the other patients"
    return (f"Calibration: {'; '.join(parts)}; {where}; then no label above an ancestor of it. Isotonic regression is "
            f"used from {calibration.ISOTONIC_POSITIVES} positives on.")


def _add_means(result: Result, judging: Judging, drawn: Mapping[str, np.ndarray]) -> None:
    labels, every = result.table["label"], result.table["auroc"]
    result.settings |= {"mean_of_all": float(every.mean()), "mean_of_all_labels": int(every.notna().sum())}
    if judging.mean == "weighted" and not result.cases.decisions:
        result.means = further_means(result.table, result.replicates)
    result.table, used = with_mean(result.table, drawn)
    result.settings["mean_over"] = used
    chosen = mean_labels(labels)
    missing = [label for label in chosen.labels if label not in used]
    lacking = "without both classes" if result.cases.decisions else "without AUROC"
    result.notes.append(f"The {chosen.name} is over {len(used)} label{'s' * (len(used) != 1)}"
                        + (f"; {lacking}: {', '.join(missing)}" if missing else "") + ".")


def _add_before(result: Result, conditional: Cases, judging: Judging) -> None:
    if list(conditional.keys) != list(result.cases.keys):
        raise InputError("the scores before the chain rule have other keys than those after it; both must judge the "
                         "same films")
    result.settings["conditional"] = "given"
    result.comparisons["after the chain rule against before"] = compare(
        conditional, result.cases, ("before the chain rule", "after it"), replicates=judging.replicates,
        seed=judging.seed)
