"""What columns and keys are called: label columns in any spelling, key columns, patients and studies out of paths."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..labels import CHEXPERT_LABELS, COMPETITION_LABELS

KEY_COLUMNS = {"path": "Path", "image": "Path", "image path": "Path", "filename": "Path", "file": "Path",
               "image index": "Path", "study": "Study", "study path": "Study"}
PATIENT_COLUMNS = ("patient", "patient id", "subject id")
NOT_LABELS = {"sex", "age", "frontal/lateral", "ap/pa", "patient", "patient id", "study id", "view", "projection",
              "split", "follow up #", "patient age", "patient gender", "view position", "finding labels", "unnamed: 0",
              "gender", "subject id", "dicom id", "index", "weight", "fold"}
# The same finding under another project's name (Stanford's own code says Airspace Opacity, NIH says Effusion).
ALIASES = {"airspace opacity": "lung opacity", "effusion": "pleural effusion", "infiltrate": "infiltration",
           "enlarged cardiom.": "enlarged cardiomediastinum",
           "enlarged cardio mediastinum": "enlarged cardiomediastinum",
           "normal": "no finding", "no findings": "no finding", "medical devices": "support devices"}
# Findings of ChestX-ray14 that together or roughly make one of CheXpert (docs/datasets.md).
BRIDGES = {"lung lesion": ("mass", "nodule"), "pleural other": ("pleural thickening",)}
# One file may hold scores and truth side by side, told apart by their endings.
_ENDINGS = {kind: re.compile(rf"[ (\[]+({words})[)\]]?$") for kind, words in (
    ("score", "pred|preds|prediction|predictions|predicted|prob|probs|probability|score"),
    ("truth", "true|truth|gt|ground truth|groundtruth|label|target|actual"))}
_SPELLED = {name.lower(): name for name in CHEXPERT_LABELS}
_PATIENT = (re.compile(r"patient\d+"), re.compile(r"(?<![A-Za-z0-9])p\d{8}(?!\d)"),
            re.compile(r"^(\d{8})_\d{3}(?:\.\w+)?$"))


def plain(column: str) -> str:
    """A column's name without case, underscores, hyphens and prefixes such as `prob_`."""
    name = re.sub(r"[\s_\-]+", " ", str(column)).strip().lower()
    return re.sub(r"^(prob|probability|pred|prediction|score|p|label) ", "", name)


def key_column(columns: Iterable[str], source: str) -> str:
    """The column that names the film or the study.

    Raises:
        InputError: there is none, or there are both kinds.
    """
    found = {KEY_COLUMNS[plain(c)]: c for c in reversed(list(columns)) if plain(c) in KEY_COLUMNS}
    if not found:
        raise InputError(f"{source}: no column Path or Study (found: {', '.join(map(str, list(columns)[:6]))}, ...); "
                         "name the column that holds the films' paths Path")
    return found.get("Path") or found["Study"]


def label_columns(columns: Iterable[str], source: str, kind: str = "score") -> dict[str, str]:
    """Map plain names to the columns that may hold a label; `<label> [sd]` and known other columns are left out.

    Where a file holds scores and truths side by side (`Edema_Pred`, `Edema_GT`), only the columns with the ending of
    the kind are labels: what else it holds about them (`Edema_AE`, an absolute error) is neither.

    Args:
        columns: of the file.
        source: the file's name, for the error.
        kind: "score" or "truth": which endings belong to the name and which to the other.

    Raises:
        InputError: two columns have the same plain name.
    """
    plains = {column: plain(column) for column in columns}
    own, other = _ENDINGS[kind], _ENDINGS["truth" if kind == "score" else "score"]
    side_by_side = any(map(own.search, plains.values())) and any(map(other.search, plains.values()))
    found: dict[str, str] = {}
    for column, full in plains.items():
        name = own.sub("", full)
        if name in KEY_COLUMNS or name in NOT_LABELS or "[" in name or other.search(name) or not name:
            continue
        if side_by_side and name == full:
            continue
        if name in found:
            raise InputError(f"{source}: columns {found[name]!r} and {column!r} are the same label; keep one of them")
        found[name] = column
    return found


class Pair(NamedTuple):
    """A label and its columns on both sides; of two columns the maximum is meant (Lung Lesion = Mass or Nodule)."""

    label: str
    predicted: tuple[str, ...]
    known: tuple[str, ...]


def paired_labels(predicted: Mapping[str, str], known: Mapping[str, str]) -> list[Pair]:
    """Pair the label columns of predictions and truth.

    Args:
        predicted, known: plain name -> column, from `label_columns`.

    Returns:
        pairs in CheXpert's order, other labels after it in the truth's order.
    """
    pairs: dict[str, Pair] = {}
    for name in list(known) + [n for n in BRIDGES if n not in known]:
        ours, theirs = _columns(name, predicted), _columns(name, known)
        if ours and theirs and (name in predicted or name in known):
            label = _spelling(name, theirs, ours)
            pairs.setdefault(label, Pair(label, ours, theirs))
    order = {name: place for place, name in enumerate(CHEXPERT_LABELS)}
    return sorted(pairs.values(), key=lambda pair: order.get(pair.label, len(order)))


def _spelling(name: str, theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    """CheXpert's spelling where either side means one of its labels; other labels keep the truth's, without ending."""
    plains = (name, *(_ENDINGS[kind].sub("", plain(side[0])) for kind, side in (("truth", theirs), ("score", ours))))
    ending = _ENDINGS["truth"].search(re.sub(r"[\s_\-]", " ", theirs[0]).lower())
    return next((_SPELLED[n] for n in plains if n in _SPELLED), theirs[0][:ending.start()] if ending else theirs[0])


def _columns(name: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    if name in columns:
        return (columns[name],)
    for other, same in ALIASES.items():
        if same == name and other in columns:
            return (columns[other],)
        if other == name and same in columns:
            return (columns[same],)
    parts = BRIDGES.get(name, ())
    return tuple(columns[part] for part in parts) if parts and all(part in columns for part in parts) else ()


def patients_of(keys: Iterable[str]) -> np.ndarray | None:
    """The patient of each key: `patient00012` (CheXpert), `p10000032` (MIMIC), `00000013` of an NIH image name.

    Returns:
        str (films,), or None where a key does not tell.
    """
    found = [_patient(str(key)) for key in keys]
    return None if None in found else np.array(found, object)


def _patient(key: str) -> str | None:
    for pattern, text in zip(_PATIENT, (key, key, key.rsplit("/", 1)[-1])):
        if match := pattern.search(text):
            return match.group(match.lastindex or 0)
    return None


def study_of(path: str) -> str | None:
    """The study a film's path lies in, e.g. CheXpert-v1.0/test/patient64741/study1; None where there is no folder."""
    folder, slash, _ = str(path).rpartition("/")
    return folder if slash and re.search(r"(?:study|/s)\d+$", folder) else None


def view_of(path: str) -> str | None:
    """"Frontal" or "Lateral" where the file's name says so, else None."""
    match = re.search(r"_(frontal|lateral)\b", str(path))
    return match.group(1).capitalize() if match else None


class MeanOver(NamedTuple):
    """What the mean over labels is called, and which labels it is over."""

    name: str
    labels: tuple[str, ...]


def mean_labels(labels: Iterable[str]) -> MeanOver:
    """The competition's five where all are there, else all."""
    found = tuple(labels)
    if set(COMPETITION_LABELS) <= set(found):
        return MeanOver("mean of five", tuple(COMPETITION_LABELS))
    return MeanOver(f"mean of {len(found)}", found)
