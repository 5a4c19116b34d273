"""Predictions beside truth: matched by key and by label name, on one unit, nothing dropped silently.

The bridge between tables and arrays: after `join` there are only float arrays, one row per film, study or patient.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ..errors import InputError, one_of
from . import names
from .aggregate import JOINED, KEY, RULES, aggregate, check_rule
from .names import Pair
from .reading import BLANK, where
from .units import PATIENT, UNITS, to_common_unit, with_meta


@dataclass(frozen=True)
class Joining:
    """How predictions are put beside the truth: which labels and films count, and what one case is.

    Attributes:
        labels: which labels; None takes all that both sides have.
        patients: the name of the truth's column of patients, or one value per row of the truth; None reads them from
            the keys.
        unit: "film", "study" or "patient"; None takes studies where every key of both sides tells its study (as
            CheXpert's paths do), else films.
        rule: how films become studies or patients: max, mean, confident, or {label: rule} with "*" for the others.
        truth_blank: "negative" counts blank truths as absent, "ignore" leaves them out.
        intersect: drop keys that only one side has, instead of an error.
        views: "frontal", "lateral" or "both": which films count.

    Raises:
        InputError: a word that is none of these.
    """

    labels: Sequence[str] | None = None
    patients: str | Sequence[object] | None = None
    unit: str | None = None
    rule: str | Mapping[str, str] = "max"
    truth_blank: str = "negative"
    intersect: bool = False
    views: str = "both"

    def __post_init__(self) -> None:
        one_of("--truth-blank", self.truth_blank, ("negative", "ignore"))
        one_of("--views", self.views, ("both", "frontal", "lateral"))
        if self.unit is not None:
            one_of("--unit", self.unit, UNITS)
        check_rule(self.rule)

    def elsewhere(self, labels: Sequence[str]) -> "Joining":
        """The same for other films and given labels; a list of patients belongs to the first truth only."""
        return replace(self, labels=labels, patients=self.patients if isinstance(self.patients, str) else None)


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

    @property
    def decisions(self) -> bool:
        """Whether every score is 0 or 1: someone's decisions, which have no order to judge."""
        return bool(np.isin(self.scores, (0.0, 1.0)).all())

    @property
    def in_words(self) -> str:
        """What was judged: "500 studies of 480 patients"."""
        count = len(self.keys)
        cases = f"{count:,} {self.unit if count == 1 else UNITS[self.unit]}"
        total = self.total_patients
        return cases if self.unit == "patient" else f"{cases} of {total:,} patient{'s' * (total != 1)}"


def join(predictions: pd.DataFrame, truth: pd.DataFrame, joining: Joining | None = None,
         meta: pd.DataFrame | None = None) -> Cases:
    """Put predictions beside the truth, by key and by label name.

    Args:
        predictions: key column and scores, as `read_predictions` gives them.
        truth: key column and truths, as `read_truth` gives them.
        joining: how; None: the defaults.
        meta: further columns about the films, studies or patients (`read_meta`), for subgroups.

    Raises:
        InputError: anything that does not fit, in one line.
    """
    joining = joining or Joining()
    notes: list[str] = list(predictions.attrs.get("notes", []))
    pairs = _chosen_labels(predictions, truth, joining.labels, notes)
    chosen = [pair.label for pair in pairs]
    scored = _side(predictions, {pair.label: pair.predicted for pair in pairs}, "score")
    known = _side(truth, {pair.label: pair.known for pair in pairs}, "truth")
    _tell_spelling(pairs, notes)
    scored[PATIENT] = None
    known[PATIENT] = _given_patients(truth, joining.patients)
    scored, known, unit = to_common_unit(scored, known, joining.unit, joining.views, notes)
    counted = known[JOINED].isin(scored[JOINED]).to_numpy()
    uncertain = _count_unknown(known[chosen].to_numpy(float)[counted], chosen, joining.truth_blank, notes)
    if joining.truth_blank == "negative":
        known[chosen] = known[chosen].fillna(0.0)
    films = scored[JOINED]
    scored = aggregate(scored, unit, joining.rule, chosen, "score")
    known = aggregate(known, unit, "max", chosen, "truth")
    scored, known = _matched(scored, known, joining.intersect, notes)
    judged = int(films.isin(scored[JOINED]).sum())
    if unit != "film" and judged > len(scored):
        notes.append(f"{judged:,} films were joined into {len(scored):,} {UNITS[unit]} by {_rule_in_words(joining)}.")
    who = _patient_names(known, notes)
    about = known.drop(columns=[*chosen, KEY, PATIENT, JOINED])
    if meta is not None:
        about = with_meta(about, meta, known[JOINED], who, unit, notes)
    return Cases(tuple(chosen), known[KEY].to_numpy(object), np.unique(who, return_inverse=True)[1], who,
                 scored[chosen].to_numpy(float), known[chosen].to_numpy(float), about, unit, uncertain, notes)


def _rule_in_words(joining: Joining) -> str:
    return RULES[joining.rule] if isinstance(joining.rule, str) else "one rule per label"


def _chosen_labels(predictions: pd.DataFrame, truth: pd.DataFrame, labels: Sequence[str] | None,
                   notes: list[str]) -> list[Pair]:
    sources = [table.attrs.get("source", name) for table, name in ((predictions, "predictions"), (truth, "truth"))]
    predicted, known = ({name: column for name, column in names.label_columns(table.columns, source, kind).items()
                         if pd.api.types.is_numeric_dtype(table[column])}
                        for table, source, kind in zip((predictions, truth), sources, ("score", "truth")))
    pairs = names.paired_labels(predicted, known)
    if labels is not None:
        by_name = {names.plain(pair.label): pair for pair in pairs}
        missing = [label for label in labels if names.plain(label) not in by_name]
        if missing:
            raise InputError(f"label {missing[0]!r} is not in both {sources[0]} and {sources[1]}; both have: "
                             f"{', '.join(pair.label for pair in pairs) or 'none'}")
        return [by_name[names.plain(label)] for label in dict.fromkeys(labels)]
    if not pairs:
        raise InputError(f"{sources[0]} and {sources[1]} have no label in common; found {_few(predicted.values())} "
                         f"and {_few(known.values())}")
    _tell_unused(predicted, [c for pair in pairs for c in pair.predicted], "predictions have", notes)
    _tell_unused(known, [c for pair in pairs for c in pair.known], "truth has", notes)
    return pairs


def _tell_unused(columns: Mapping[str, str], used: Sequence[str], side: str, notes: list[str]) -> None:
    if alone := [column for column in columns.values() if column not in used]:
        notes.append(f"Not judged, for only the {side} {'it' if len(alone) == 1 else 'them'}: {', '.join(alone)}.")


def _few(items: Iterable[object], most: int = 5) -> str:
    found = list(map(str, items))
    return ", ".join(found[:most]) + (", ..." if len(found) > most else "") if found else "none"


def _tell_spelling(pairs: Sequence[Pair], notes: list[str]) -> None:
    endings: dict[str, None] = {}
    changed = []
    for pair in pairs:
        for side, columns in (("predictions", pair.predicted), ("truth", pair.known)):
            if len(columns) == 1 and columns[0] != pair.label and columns[0].startswith(pair.label):
                endings[columns[0][len(pair.label):]] = None
            elif columns != (pair.label,):
                changed.append(f"{' or '.join(columns)} ({side}) as {pair.label}")
    if endings:
        notes.append(f"Columns read without their endings: {', '.join(endings)}.")
    if changed:
        notes.append(f"Columns read under another name: {'; '.join(changed)}.")


def _side(table: pd.DataFrame, columns: Mapping[str, tuple[str, ...]], kind: str) -> pd.DataFrame:
    """One side with plain columns: key, the labels and (for the truth) everything else; values checked."""
    source = table.attrs.get("source", "predictions" if kind == "score" else "truth")
    key = names.key_column(table.columns, source)
    values = {}
    for label, found in columns.items():
        parts = np.stack([table[c].to_numpy(float) for c in found], 1)
        _check_values(table, found, parts, kind)
        values[label] = parts[:, 0] if len(found) == 1 else np.fmax.reduce(parts, axis=1)
    used = {key, KEY, PATIENT, JOINED, *values, *(c for found in columns.values() for c in found)}
    others = {column: table[column].to_numpy() for column in table.columns if kind == "truth" and column not in used}
    side = pd.DataFrame({**values, **others, KEY: table[key].astype(str).str.strip().to_numpy()})
    side.attrs = {"source": source, "key": key}
    if (blank := side[KEY].isin(BLANK)).any():
        raise InputError(f"{where(table, int(np.flatnonzero(blank)[0]))}: {key} is blank; expected a path or study")
    return side


def _check_values(table: pd.DataFrame, found: Sequence[str], parts: np.ndarray, kind: str) -> None:
    bad = ~np.isfinite(parts) if kind == "score" else ~(np.isnan(parts) | np.isin(parts, (1, 0, -1)))
    if bad.any():
        row, column = map(int, np.argwhere(bad)[0])
        expected = "a finite score" if kind == "score" else "1, 0, -1 or blank"
        raise InputError(f"{where(table, row)}: {found[column]} is {parts[row, column]:g}; expected {expected}")


def _given_patients(truth: pd.DataFrame, patients: str | Sequence[object] | None) -> np.ndarray | None:
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


def _count_unknown(values: np.ndarray, labels: Sequence[str], blank: str, notes: list[str]) -> np.ndarray:
    """How many -1 there are per label, int (labels,), among the rows that are judged; says so, and of blanks too."""
    blanks = int(np.isnan(values).sum())
    uncertain: np.ndarray = (values == -1).sum(0)
    if blanks:
        notes.append(f"{blanks:,} blank truths count as absent (--truth-blank ignore leaves them out)."
                     if blank == "negative" else f"{blanks:,} blank truths count as unknown and are left out.")
    if uncertain.any():
        counts = ", ".join(f"{label} {count:,}" for label, count in zip(labels, uncertain) if count)
        notes.append(f"Uncertain truths (-1) are left out: {counts}.")
    return uncertain


def _matched(scored: pd.DataFrame, known: pd.DataFrame, intersect: bool,
             notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that both have, in the truth's order."""
    sources = scored.attrs["source"], known.attrs["source"]
    scored, known = scored.set_index(JOINED, drop=False), known.set_index(JOINED, drop=False)
    both = known.index[known.index.isin(scored.index)]
    for side, other, source in ((known, scored, sources[0]), (scored, known, sources[1])):
        if len(alone := side.index[~side.index.isin(other.index)]):
            if not intersect:
                raise InputError(f"{source}: {len(alone):,} of {len(side):,} keys are missing, first "
                                 f"{side.loc[alone[0], KEY]}; give all, or --intersect to judge what both have")
            notes.append(f"{len(alone):,} of {len(side):,} keys are missing in {source} and were dropped "
                         "(--intersect).")
    return scored.loc[both].reset_index(drop=True), known.loc[both].reset_index(drop=True)


def _patient_names(known: pd.DataFrame, notes: list[str]) -> np.ndarray:
    given = known[PATIENT].to_numpy(object)
    patients = given if known[PATIENT].notna().all() else names.patients_of(known[KEY])
    if patients is None:
        notes.append("The keys do not tell patients apart: every row counts as its own patient (--patients COLUMN).")
        patients = known[JOINED].to_numpy(object)                  # by name, so that row order does not matter
    who: np.ndarray = patients.astype(str)
    return who
