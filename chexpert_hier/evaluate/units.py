"""What one case is: films, studies or patients out of the keys of both sides, and what a meta file says of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import labels as names_of_labels
from ..errors import InputError
from . import names
from .aggregate import JOINED, KEY

PATIENT = "[patient]"
UNITS = {"film": "films", "study": "studies", "patient": "patients"}


class Sides(NamedTuple):
    """Predictions and truth on one unit: columns JOINED (the common key), KEY, PATIENT, the labels, others."""

    scored: pd.DataFrame
    known: pd.DataFrame
    unit: str


def to_common_unit(scored: pd.DataFrame, known: pd.DataFrame, unit: str | None, views: str,
                   notes: list[str]) -> Sides:
    """Give both sides the column JOINED, by which they are joined.

    Args:
        scored, known: columns KEY, PATIENT, the labels and others; attrs source and key.
        unit: "film", "study" or "patient"; None: see `joining.Joining`.
        views: "frontal", "lateral" or "both": which films count.
        notes: gets what was left out.

    Raises:
        InputError: a side that cannot be judged on that unit, a key twice, or no key in common.
    """
    unit = unit or ("study" if _tells_studies(scored) and _tells_studies(known) else
                    "study" if _is_study(scored) or _is_study(known) else "film")
    if unit == "patient" and known[PATIENT].notna().all():
        patient = dict(zip(known[KEY].map(names_of_labels.key), known[PATIENT]))
        scored[PATIENT] = [patient.get(names_of_labels.key(key), key) for key in scored[KEY]]
    sides = []
    for side in (scored, known):
        if unit == "film" and _is_study(side):
            raise InputError(f"{side.attrs['source']}: has one row per study, so films cannot be judged; "
                             "use --unit study")
        side = side if _is_study(side) else _with_views(side, views, notes)
        _refuse_twice(side)
        side[JOINED] = unit_keys(side, unit)
        sides.append(side)
    if not set(sides[0][JOINED]) & set(sides[1][JOINED]):
        _join_from_patient_on(sides, notes)
    return Sides(sides[0], sides[1], unit)


def _is_study(side: pd.DataFrame) -> bool:
    return names.KEY_COLUMNS[names.plain(side.attrs["key"])] == "Study"


def _tells_studies(side: pd.DataFrame) -> bool:
    return _is_study(side) or all(map(names.study_of, side[KEY]))


def _with_views(side: pd.DataFrame, views: str, notes: list[str]) -> pd.DataFrame:
    if views == "both":
        return side
    view = side["Frontal/Lateral"] if "Frontal/Lateral" in side else pd.Series(map(names.view_of, side[KEY]))
    keep = (view == views.capitalize()).to_numpy()
    if not keep.any():
        raise InputError(f"{side.attrs['source']}: no {views} films found (column Frontal/Lateral or file names "
                         "ending in _frontal, _lateral)")
    if not keep.all():
        notes.append(f"{side.attrs['source']}: {(~keep).sum():,} films that are not {views} were left out.")
    kept = side[keep].reset_index(drop=True)
    kept.attrs = side.attrs
    return kept


def _refuse_twice(side: pd.DataFrame) -> None:
    keys = side[KEY].map(names_of_labels.key)
    if (again := keys.duplicated()).any():
        row = int(np.flatnonzero(again)[0])
        raise InputError(f"{side.attrs['source']}: {side[KEY].iloc[row]} appears {(keys == keys.iloc[row]).sum()} "
                         f"times ({again.sum():,} rows too many); every film or study may have one row")


def unit_keys(side: pd.DataFrame, unit: str) -> np.ndarray:
    """The name of the case that each row of a side belongs to, str (rows,).

    Args:
        side: columns KEY and PATIENT (which may be blank); attrs source and key.
        unit: "film", "study" or "patient".

    Raises:
        InputError: a key does not tell its study or patient.
    """
    if unit == "film" or (unit == "study" and _is_study(side)):
        return side[KEY].map(names_of_labels.key).to_numpy(object)
    if unit == "study":
        studies = side[KEY].map(names.study_of)
        if studies.isna().any():
            raise InputError(f"{side.attrs['source']}: cannot tell the study of {side[KEY][studies.isna()].iloc[0]}; "
                             "expected a path such as .../patient00001/study1/view1_frontal.jpg")
        return studies.map(names_of_labels.key).to_numpy(object)
    patients = side[PATIENT] if side[PATIENT].notna().all() else names.patients_of(side[KEY])
    if patients is None:
        raise InputError(f"{side.attrs['source']}: cannot tell the patients from {side.attrs['key']}; "
                         "expected paths with patient00001 or NIH image names")
    return np.asarray(patients, object)


def _join_from_patient_on(sides: Sequence[pd.DataFrame], notes: list[str]) -> None:
    """The test release starts at test/, other files have folders before it: join from the patient's folder on."""
    short = [side[JOINED].astype(str).str.extract(r"(patient\d+.*)$", expand=False) for side in sides]
    if any(s.isna().any() for s in short) or not set(short[0]) & set(short[1]):
        raise InputError(f"{sides[0].attrs['source']} and {sides[1].attrs['source']} share no key; "
                         f"found {sides[0][JOINED].iloc[0]} and {sides[1][JOINED].iloc[0]}")
    for side, part in zip(sides, short):
        if side[JOINED].nunique() != part.nunique():
            raise InputError(f"{side.attrs['source']}: different folders hold the same patient and study, so that keys "
                             "of the two files cannot be matched; use the same paths in both")
        side[JOINED] = part.to_numpy(object)
    notes.append("Keys were joined from the patient's folder on, for the folders before it differ.")


def with_meta(about: pd.DataFrame, meta: pd.DataFrame, joined: pd.Series, who: np.ndarray, unit: str,
              notes: list[str]) -> pd.DataFrame:
    """The cases' other columns, and those of `meta` by film, study or patient; of several rows of a case the first."""
    source, key = meta.attrs["source"], meta.attrs["key"]
    by_patient = names.plain(key) in names.PATIENT_COLUMNS
    side = meta.rename(columns={key: KEY}).assign(**{PATIENT: None})
    side.attrs = {"source": source, "key": key}
    cases = pd.Series(who) if by_patient else joined.reset_index(drop=True)
    side.index = pd.Index(side[KEY] if by_patient else unit_keys(side, unit))
    if not cases.isin(side.index).any():                             # folders before the patient's may differ
        side.index = side.index.astype(str).str.replace(r"^.*?(?=patient\d)", "", regex=True)
        cases = cases.astype(str).str.replace(r"^.*?(?=patient\d)", "", regex=True)
    if missing := int((~cases.isin(side.index)).sum()):
        if missing == len(cases):
            raise InputError(f"{source}: none of its {len(side):,} rows belongs to a judged case; found "
                             f"{side[KEY].iloc[0]}, expected such as {cases.iloc[0]}")
        notes.append(f"{source}: {missing:,} of {len(cases):,} cases are not in it; they are unknown in its columns.")
    new = side[~side.index.duplicated()].drop(columns=[KEY, PATIENT]).reindex(cases)
    if changed := [str(column) for column in new if column in about]:
        notes.append(f"{source}: its {', '.join(changed)} replace the truth file's.")
    return pd.concat([about.drop(columns=changed).reset_index(drop=True), new.reset_index(drop=True)], axis=1)
