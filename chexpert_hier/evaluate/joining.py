"""Predictions beside truth: matched by key and by label name, on one unit, nothing dropped silently.

The bridge between tables and arrays: after `join` there are only float arrays, one row per film, study or patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from .. import labels as names_of_labels
from ..errors import InputError, one_of
from . import names
from .aggregate import RULES, aggregate
from .reading import BLANK, where

UNITS = ("film", "study", "patient")


@dataclass(frozen=True)
class Cases:
    """What is judged: predictions beside truth, row by row.

    Attributes:
        labels: the findings, columns of the arrays.
        keys: str (cases,).
        patients: int (cases,), 0 to the number of patients - 1.
        who: str (cases,), the patients' names.
        scores: float (cases, labels), finite.
        truth: float (cases, labels), 1 present, 0 absent, NaN does not count.
        about: one row per case with the truth file's other columns (Sex, Age, ...).
        unit: "film", "study" or "patient".
        uncertain: int (labels,), how many -1 cells of the truth were left out.
        notes: what was assumed or dropped, one sentence each.
    """

    labels: tuple[str, ...]
    keys: np.ndarray
    patients: np.ndarray
    who: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    about: pd.DataFrame
    unit: str
    uncertain: np.ndarray
    notes: list[str] = field(default_factory=list)

    def subset(self, rows: np.ndarray) -> "Cases":
        """The same for some rows: a bool mask or indices (cases,)."""
        return replace(self, keys=self.keys[rows], patients=np.unique(self.patients[rows], return_inverse=True)[1],
                       who=self.who[rows], scores=self.scores[rows], truth=self.truth[rows],
                       about=self.about.iloc[np.arange(len(self.keys))[rows]], notes=[])

    def only(self, labels: Sequence[str]) -> "Cases":
        """The same for some labels, in the given order."""
        place = [self.labels.index(label) for label in labels]
        return replace(self, labels=tuple(labels), scores=self.scores[:, place], truth=self.truth[:, place],
                       uncertain=self.uncertain[place], notes=[])

    @property
    def total_patients(self) -> int:
        """How many patients there are."""
        return int(self.patients.max(initial=-1)) + 1


def join(predictions: pd.DataFrame, truth: pd.DataFrame, labels: Sequence[str] | None = None, *,
         patients: str | Sequence | None = None, unit: str | None = None, rule: str | Mapping[str, str] = "max",
         truth_blank: str = "negative", intersect: bool = False, views: str = "both") -> Cases:
    """Put predictions beside the truth, by key and by label name.

    Args:
        predictions: key column and scores, as `read_predictions` gives them.
        truth: key column and truths, as `read_truth` gives them.
        labels: which labels; None takes all that both have.
        patients: the name of a column, or one value per row of `truth`; None reads them from the keys.
        unit: "film", "study" or "patient"; None takes what both files can be joined on (studies when one has them).
        rule: how films become studies or patients: max, mean, confident, or {label: rule} with "*" for the others.
        truth_blank: "negative" counts blank truths as absent, "ignore" leaves them out.
        intersect: drop keys that only one side has, instead of an error.
        views: "frontal", "lateral" or "both": which films count.

    Raises:
        InputError: anything that does not fit, in one line.
    """
    one_of("--truth-blank", truth_blank, ("negative", "ignore"))
    one_of("--views", views, ("both", "frontal", "lateral"))
    if unit is not None:
        one_of("--unit", unit, UNITS)
    notes: list[str] = []
    pairs = _chosen_labels(predictions, truth, labels, notes)
    scored = _side(predictions, [(label, ours) for label, ours, _ in pairs], "score")
    known = _side(truth, [(label, theirs) for label, _, theirs in pairs], "truth")
    _tell_spelling(pairs, notes)
    scored["patient"] = None
    known["patient"] = _given_patients(truth, patients)
    scored, known, found = _to_common_unit(scored, known, unit, views, notes)
    counted = known["joined"].isin(scored["joined"]).to_numpy()
    known, uncertain = _settle_truth(known, [p[0] for p in pairs], counted, truth_blank, notes)
    scored = aggregate(scored, found, rule, [p[0] for p in pairs], "score")
    known = aggregate(known, found, "max", [p[0] for p in pairs], "truth")
    scored, known = _matched(scored, known, predictions, truth, intersect, notes)
    chosen = [p[0] for p in pairs]
    about = known.drop(columns=[*chosen, "key", "patient", "joined"])
    if found != "film" and len(predictions) > len(scored):
        notes.append(f"{len(predictions):,} films were joined into {len(scored):,} "
                     f"{'studies' if found == 'study' else 'patients'} by {_rule_in_words(rule)}.")
    who = _patient_names(known, notes)
    return Cases(tuple(chosen), known["key"].to_numpy(object), np.unique(who, return_inverse=True)[1], who,
                 scored[chosen].to_numpy(float), known[chosen].to_numpy(float), about, found, uncertain, notes)


def _rule_in_words(rule: str | Mapping[str, str]) -> str:
    return RULES[rule] if isinstance(rule, str) else "one rule per label"


def _chosen_labels(predictions: pd.DataFrame, truth: pd.DataFrame, labels, notes: list[str]) -> list[tuple]:
    sources = [table.attrs.get("source", name) for table, name in ((predictions, "predictions"), (truth, "truth"))]
    predicted, known = ({name: column for name, column in names.label_columns(table.columns, source, kind).items()
                         if pd.api.types.is_numeric_dtype(table[column])}
                        for table, source, kind in zip((predictions, truth), sources, ("score", "truth")))
    pairs = names.paired_labels(predicted, known)
    if labels is not None:
        by_name = {names.plain(pair[0]): pair for pair in pairs}
        missing = [label for label in labels if names.plain(label) not in by_name]
        if missing:
            raise InputError(f"label {missing[0]!r} is not in both {sources[0]} and {sources[1]}; both have: "
                             f"{', '.join(pair[0] for pair in pairs) or 'none'}")
        return [by_name[names.plain(label)] for label in labels]
    if not pairs:
        raise InputError(f"{sources[0]} and {sources[1]} have no label in common; found {_few(predicted.values())} "
                         f"and {_few(known.values())}")
    used = ({c for pair in pairs for c in pair[1]}, {c for pair in pairs for c in pair[2]})
    for columns, taken, side in zip((predicted, known), used, ("predictions have", "truth has")):
        if alone := [c for c in columns.values() if c not in taken]:
            notes.append(f"Not judged, for only the {side} {'it' if len(alone) == 1 else 'them'}: {', '.join(alone)}.")
    return pairs


def _few(items, most: int = 5) -> str:
    items = list(map(str, items))
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "") if items else "none"


def _tell_spelling(pairs: list[tuple], notes: list[str]) -> None:
    changed = []
    for label, ours, theirs in pairs:
        for side, columns in (("predictions", ours), ("truth", theirs)):
            if columns != [label]:
                changed.append(f"{' or '.join(columns)} ({side}) as {label}")
    if changed:
        notes.append(f"Columns read under another name: {'; '.join(changed)}.")


def _side(table: pd.DataFrame, columns: list[tuple[str, list[str]]], kind: str) -> pd.DataFrame:
    """One side with plain columns: key, the labels and (for the truth) everything else; values checked."""
    source = table.attrs.get("source", "predictions" if kind == "score" else "truth")
    key = names.key_column(table.columns, source)
    values = {}
    for label, found in columns:
        parts = np.stack([table[c].to_numpy(float) for c in found], 1)
        _check_values(table, found, parts, kind)
        with np.errstate(invalid="ignore"):
            values[label] = parts[:, 0] if len(found) == 1 else np.fmax.reduce(parts, axis=1)
    side = pd.DataFrame(values)
    side["key"] = table[key].astype(str).str.strip().to_numpy()
    used = {key, *(c for _, found in columns for c in found)}
    if kind == "truth":
        for column in table.columns:
            if column not in used and column not in side:
                side[column] = table[column].to_numpy()
    side.attrs = {"source": source, "key": key}
    if (blank := side["key"].isin(BLANK)).any():
        raise InputError(f"{source}, row {int(np.flatnonzero(blank)[0]) + 1}: {key} is blank")
    return side


def _check_values(table: pd.DataFrame, found: list[str], parts: np.ndarray, kind: str) -> None:
    bad = ~np.isfinite(parts) if kind == "score" else ~(np.isnan(parts) | np.isin(parts, (1, 0, -1)))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        expected = "a finite score" if kind == "score" else "1, 0, -1 or blank"
        raise InputError(f"{where(table, row)}: {found[column]} is {parts[row, column]:g}; expected {expected}")


def _given_patients(truth: pd.DataFrame, patients) -> Sequence | None:
    if patients is None:
        return None
    if isinstance(patients, str):
        if patients not in truth:
            raise InputError(f"{truth.attrs.get('source', 'truth')}: no column {patients!r} for the patients; "
                             f"found {_few(truth.columns)}")
        return truth[patients].astype(str).to_numpy()
    if len(patients) != len(truth):
        raise InputError(f"patients has {len(patients)} values; expected one per row of the truth, {len(truth)}")
    return np.asarray(patients).astype(str)


def _to_common_unit(scored: pd.DataFrame, known: pd.DataFrame, unit: str | None, views: str,
                    notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    sides = {"scored": scored, "known": known}
    studies = {name: names.KEY_COLUMNS[names.plain(side.attrs["key"])] == "Study" for name, side in sides.items()}
    unit = unit or ("study" if any(studies.values()) else "film")
    if unit == "patient" and known["patient"].notna().all():
        patient = dict(zip(known["key"].map(names_of_labels.key), known["patient"]))
        scored["patient"] = [patient.get(names_of_labels.key(key), key) for key in scored["key"]]
    for name, side in sides.items():
        if unit == "film" and studies[name]:
            raise InputError(f"{side.attrs['source']}: has one row per study, so films cannot be judged; "
                             "use --unit study")
        sides[name] = side = _with_views(side, views, notes) if not studies[name] else side
        _refuse_twice(side)
        side["joined"] = _unit_keys(side, unit, studies[name])
    if not set(sides["scored"]["joined"]) & set(sides["known"]["joined"]):
        _try_from_patient_on(sides, notes)
    return sides["scored"], sides["known"], unit


def _with_views(side: pd.DataFrame, views: str, notes: list[str]) -> pd.DataFrame:
    if views == "both":
        return side
    view = side["Frontal/Lateral"] if "Frontal/Lateral" in side else pd.Series(map(names.view_of, side["key"]))
    if view.isna().all() or not (view == views.capitalize()).any():
        raise InputError(f"{side.attrs['source']}: no {views} films found (column Frontal/Lateral or file names "
                         "ending in _frontal, _lateral)")
    keep = (view == views.capitalize()).to_numpy()
    if not keep.all():
        notes.append(f"{side.attrs['source']}: {(~keep).sum():,} films that are not {views} were left out.")
    kept = side[keep].reset_index(drop=True)
    kept.attrs = side.attrs
    return kept


def _refuse_twice(side: pd.DataFrame) -> None:
    keys = side["key"].map(names_of_labels.key)
    if (again := keys.duplicated()).any():
        row = int(np.flatnonzero(again)[0])
        raise InputError(f"{side.attrs['source']}: {side['key'].iloc[row]} appears {(keys == keys.iloc[row]).sum()} "
                         f"times ({again.sum():,} rows too many); every film or study may have one row")


def _unit_keys(side: pd.DataFrame, unit: str, is_study: bool) -> np.ndarray:
    if unit == "film" or (unit == "study" and is_study):
        return side["key"].map(names_of_labels.key).to_numpy(object)
    if unit == "study":
        studies = side["key"].map(names.study_of)
        if studies.isna().any():
            raise InputError(f"{side.attrs['source']}: cannot tell the study of {side['key'][studies.isna()].iloc[0]}; "
                             "expected a path such as .../patient00001/study1/view1_frontal.jpg")
        return studies.map(names_of_labels.key).to_numpy(object)
    patients = side["patient"] if side["patient"].notna().all() else names.patients_of(side["key"])
    if patients is None:
        raise InputError(f"{side.attrs['source']}: cannot tell the patients from {side.attrs['key']}; "
                         "expected paths with patient00001 or NIH image names")
    return np.asarray(patients, object)


def _try_from_patient_on(sides: dict[str, pd.DataFrame], notes: list[str]) -> None:
    """The test release starts at test/, other files have folders before it: join from the patient's folder on."""
    short = {name: side["joined"].str.extract(r"(patient\d+.*)$", expand=False) for name, side in sides.items()}
    if any(s.isna().any() for s in short.values()) or not set(short["scored"]) & set(short["known"]):
        raise InputError(f"{sides['scored'].attrs['source']} and {sides['known'].attrs['source']} share no key; "
                         f"found {sides['scored']['joined'].iloc[0]} and {sides['known']['joined'].iloc[0]}")
    for name, side in sides.items():
        if side.drop_duplicates("joined").shape[0] != short[name].nunique():
            raise InputError(f"{side.attrs['source']}: different folders hold the same patient and study, so that keys "
                             "of the two files cannot be matched; use the same paths in both")
        side["joined"] = short[name].to_numpy(object)
    notes.append("Keys were joined from the patient's folder on, for the folders before it differ.")


def _settle_truth(known: pd.DataFrame, labels: list[str], counted: np.ndarray, blank: str,
                  notes: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Blank to absent or left out; -1 counted in the rows that are judged, and left in place for the aggregation."""
    values = known[labels].to_numpy(float)
    blanks, uncertain = np.isnan(values), (values[counted] == -1).sum(0)
    if blanks[counted].any():
        notes.append(f"{blanks[counted].sum():,} blank truths count as {'absent' if blank == 'negative' else 'unknown'}"
                     f"{' (--truth-blank ignore leaves them out)' if blank == 'negative' else ' and are left out'}.")
    if uncertain.any():
        counts = ", ".join(f"{label} {count:,}" for label, count in zip(labels, uncertain) if count)
        notes.append(f"Uncertain truths (-1) are left out: {counts}.")
    settled = known.copy()
    settled.attrs = known.attrs
    if blank == "negative":
        settled[labels] = np.where(blanks, 0.0, values)
    return settled, uncertain


def _matched(scored: pd.DataFrame, known: pd.DataFrame, predictions: pd.DataFrame, truth: pd.DataFrame,
             intersect: bool, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    scored, known = scored.set_index("joined", drop=False), known.set_index("joined", drop=False)
    both = known.index[known.index.isin(scored.index)]                # the truth's order
    for side, other, table, name in ((known, scored, predictions, "predictions"), (scored, known, truth, "truth")):
        if len(alone := side.index[~side.index.isin(other.index)]):
            source = table.attrs.get("source", name)
            if not intersect:
                raise InputError(f"{source}: {len(alone):,} of {len(side):,} keys are missing, first "
                                 f"{side.loc[alone[0], 'key']}; give all, or --intersect to judge what both have")
            notes.append(f"{len(alone):,} of {len(side):,} keys are missing in {source} and were dropped "
                         "(--intersect).")
    return scored.loc[both].reset_index(drop=True), known.loc[both].reset_index(drop=True)


def _patient_names(known: pd.DataFrame, notes: list[str]) -> np.ndarray:
    patients = known["patient"].to_numpy(object) if known["patient"].notna().all() else names.patients_of(known["key"])
    if patients is None:
        notes.append("The keys do not tell patients apart: every row counts as its own patient (--patients COLUMN).")
        patients = known["joined"].to_numpy(object)                  # by name, so that row order does not matter
    return patients.astype(str)
