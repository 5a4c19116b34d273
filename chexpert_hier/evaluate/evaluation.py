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
from .names import mean_labels
from .ranking import Ranks, delong, delong_interval, percentile_interval, resamples, strata
from .reading import Cases, join

log = logging.getLogger("chexpert_hier.evaluate")
FEW = 10              # positives below which every number of a label is flagged
AGE_BANDS = ((0, 50, "under 50"), (50, 70, "50 to 69"), (70, 999, "70 and over"))  # as in ledger section 8.5
_BANDS_FROM = 500     # replicates that are enough for the curves' bands


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
        labels, patients, unit, rule, truth_blank, intersect, views: see `reading.join`.
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
    table, values, found, groups = _ranked(cases, replicates, seed, stratified, curves, notes)
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
        result.subgroups = subgroups(cases, by, replicates, seed, stratified, notes)
    return result


def _ranked(cases: Cases, replicates: int, seed: int, stratified: bool, curves: bool,
            notes: list[str]) -> tuple[pd.DataFrame, np.ndarray, dict, np.ndarray | None]:
    """Everything that depends on the order of scores alone: AUROC, average precision, curves, their intervals."""
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


def _tell_seldom(table: pd.DataFrame, cases: Cases, notes: list[str]) -> None:
    for row in table.itertuples():
        if np.isnan(row.auroc):
            notes.append(f"{row.label}: no AUROC, for there are {row.positives} positives and {row.negatives} "
                         "negatives.")
        elif row.dropped_replicates:
            notes.append(f"{row.label}: {row.dropped_replicates:,} resamples lacked a class and were dropped.")
    if few := [f"{row.label} ({row.positives})" for row in table.itertuples() if row.few_positives]:
        notes.append(f"Fewer than {FEW} positives, so that no number of these is reliable: {', '.join(few)}.")
    for k, label in enumerate(cases.labels):
        if len(cases.keys) > 1 and np.ptp(cases.scores[:, k]) == 0:
            notes.append(f"{label}: all scores are the same, which makes the AUROC 0.5 by ties.")


def _refuse_shared_patients(cases: Cases, fitting: Cases, notes: list[str]) -> None:
    shared = set(cases.keys) & set(fitting.keys)
    if shared:
        raise InputError(f"--fit: {len(shared)} films or studies to fit on are also judged, first {min(shared)}; "
                         "fit on other patients, or leave --fit out to cross-fit")
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
    """The mean over labels, its interval from the same resamples; dropped where any counted label has no AUROC."""
    table = result.table
    name, over = mean_labels(result.cases.labels)
    used = table.index[table["label"].isin(over) & table["auroc"].notna()]
    drawn = result.replicates[:, used]
    means = drawn.mean(1) if len(used) else np.full(len(drawn), np.nan)
    low, high = percentile_interval(means)
    row = {"label": name, "auroc": table.loc[used, "auroc"].mean(), "auroc_low": low, "auroc_high": high,
           "positives": int(table.loc[used, "positives"].sum()), "negatives": int(table.loc[used, "negatives"].sum()),
           "uncertain": int(table.loc[used, "uncertain"].sum()),
           "few_positives": bool(table.loc[used, "few_positives"].any()),
           "dropped_replicates": int(np.isnan(means).sum()), "labels_counted": len(used)}
    for column in ("average_precision", "sensitivity", "specificity", "ppv", "npv", "f1", "brier", "brier_calibrated",
                   "calibration_error", "calibration_error_calibrated"):
        row[column] = table.loc[used, column].mean()
    table["labels_counted"] = 1 * table["auroc"].notna()
    result.table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    result.settings["mean_over"] = [str(label) for label in table.loc[used, "label"]]
    result.settings["mean_of_all"] = float(table["auroc"].mean())
    result.settings["mean_of_all_labels"] = int(table["auroc"].notna().sum())
    result.notes.append(f"The {name} is over {len(used)} label{'s' * (len(used) != 1)}"
                        + (f"; without AUROC: {', '.join(set(over) - set(table.loc[used, 'label']))}"
                           if len(used) < len(over) else "") + ".")


def _add_before(result: Result, conditional: Cases, replicates: int, seed: int) -> None:
    if list(conditional.keys) != list(result.cases.keys):
        raise InputError("the scores before the chain rule have other keys than those after it; both must judge the "
                         "same films")
    result.settings["conditional"] = "given"
    result.comparisons["after the chain rule against before"] = comparison.compare(
        conditional, result.cases, ("before the chain rule", "after it"), replicates=replicates, seed=seed)


def tree_for(labels: Sequence[str]) -> hierarchy.Tree:
    """The first tree of `hierarchy.TREES` that knows all the labels; one without edges where none does."""
    return next((tree for tree in hierarchy.TREES.values() if set(labels) <= set(tree.labels)),
                hierarchy.flat(labels))


def tree_report(cases: Cases, tree: hierarchy.Tree, conditional: Cases | None = None) -> pd.DataFrame | None:
    """How often predictions break the tree before and after the chain rule, and how often the truth does, per edge.

    Args:
        cases: the predictions; taken as those after the chain rule when `conditional` is given, else as those before.
        tree: the hierarchy.
        conditional: the same cases before the chain rule.

    Returns:
        parent, child, films, above_before and above_after (p(child) > p(parent)), crossed_before and crossed_after
        (child above and parent below 0.5), truth_checked and truth_broken (child present, parent absent); "after" is
        NaN for scores that are no probabilities. None where no edge has both ends among the labels.
    """
    over = [label for label in tree.labels if label in cases.labels]
    small = tree.subset(over) if over else None
    if small is None or not len(small.edges):
        return None
    place = [cases.labels.index(label) for label in over]
    before, truth = (conditional or cases).scores[:, place], cases.truth[:, place]
    inside = ((before >= 0) & (before <= 1)).all()
    after = cases.scores[:, place] if conditional else hierarchy.chain_rule(before, small) if inside else None
    then = hierarchy.contradictions(before, small)
    now = hierarchy.contradictions(after, small) if after is not None else None
    parent, child = truth[:, small.edges[:, 0]], truth[:, small.edges[:, 1]]
    return pd.DataFrame({"parent": [edge[0] for edge in then.edges], "child": [edge[1] for edge in then.edges],
                         "films": then.films, "above_before": then.above, "crossed_before": then.crossed,
                         "above_after": now.above if now else np.nan, "crossed_after": now.crossed if now else np.nan,
                         "truth_checked": (~np.isnan(parent) & ~np.isnan(child)).sum(0),
                         "truth_broken": ((child == 1) & (parent == 0)).sum(0)})


def subgroups(cases: Cases, by: Sequence[str], replicates: int, seed: int, stratified: bool,
              notes: list[str]) -> pd.DataFrame:
    """AUROC per value of each column, every group with its own resamples of its own patients.

    Raises:
        InputError: the truth file has no such column.
    """
    parts = []
    for column in by:
        for group, rows in _groups(cases, column):
            part = cases.subset(rows)
            table, values, _, _ = _ranked(part, replicates, seed, stratified, False, [])
            small = Result("", part, table, values, notes=[])
            for missing in ("sensitivity", "specificity", "ppv", "npv", "f1", "brier", "brier_calibrated",
                            "calibration_error", "calibration_error_calibrated"):
                table[missing] = np.nan
            _add_mean(small)
            kept = small.table[["label", "auroc", "auroc_low", "auroc_high", "positives", "negatives",
                                "few_positives", "labels_counted", "dropped_replicates"]].copy()
            kept.insert(0, "by", column)
            kept.insert(1, "group", group)
            kept.insert(2, "cases", len(part.keys))
            kept.insert(3, "patients", part.total_patients)
            parts.append(kept)
    notes.append("Subgroups are compared by eye only: their intervals are not corrected for looking at many groups.")
    return pd.concat(parts, ignore_index=True)


def _groups(cases: Cases, column: str) -> list[tuple[str, np.ndarray]]:
    if column not in cases.about:
        raise InputError(f"--by: the truth file has no column {column!r}; it has: "
                         f"{', '.join(map(str, cases.about.columns)) or 'no others'}")
    values = cases.about[column].reset_index(drop=True)
    if column.strip().lower() in ("age", "patient age"):
        ages = pd.to_numeric(values, errors="coerce").to_numpy(float)
        groups = [(name, (ages >= low) & (ages < high)) for low, high, name in AGE_BANDS]
        groups.append(("unknown", np.isnan(ages)))
    else:
        text = values.fillna("").astype(str).str.strip().replace("", "unknown").to_numpy(object)
        groups = [(value, text == value) for value in sorted(set(text))]
    if len(groups) > 50:
        raise InputError(f"--by {column}: {len(groups)} different values; choose a column with at most 50")
    return [(name, rows) for name, rows in groups if rows.any()]
