"""What columns and keys are called: label columns in any spelling, key columns, patients and studies out of paths."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import InputError
from ..labels import CHEXPERT_LABELS, COMPETITION_LABELS

KEY_COLUMNS = {"path": "Path", "image": "Path", "image path": "Path", "filename": "Path", "file": "Path",
               "image index": "Path", "study": "Study", "study path": "Study"}
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

    Args:
        columns: of the file.
        source: the file's name, for the error.
        kind: "score" or "truth": which endings (`Edema_pred`, `Edema_true`) belong to the name and which to the other.

    Raises:
        InputError: two columns have the same plain name.
    """
    other = _ENDINGS["truth" if kind == "score" else "score"]
    found = {}
    for column in columns:
        name = _ENDINGS[kind].sub("", plain(column))
        if name in KEY_COLUMNS or name in NOT_LABELS or "[" in name or other.search(name):
            continue
        if name in found:
            raise InputError(f"{source}: columns {found[name]!r} and {column!r} are the same label; keep one of them")
        found[name] = column
    return found


def paired_labels(predicted: dict[str, str], known: dict[str, str]) -> list[tuple[str, list[str], list[str]]]:
    """Pair the label columns of predictions and truth.

    Args:
        predicted, known: plain name -> column, from `label_columns`.

    Returns:
        (label, prediction columns, truth columns) in CheXpert's order, other labels after it in the truth's order;
        where a side has two columns, their maximum is meant (Lung Lesion = Mass or Nodule).
    """
    pairs = []
    for name in list(known) + [n for n in BRIDGES if n not in known]:
        ours, theirs = _columns(name, predicted), _columns(name, known)
        if ours and theirs and (name in predicted or name in known):
            pairs.append((_spelling(name, theirs, ours), ours, theirs))
    order = {name: place for place, name in enumerate(CHEXPERT_LABELS)}
    pairs = list({label: (label, ours, theirs) for label, ours, theirs in reversed(pairs)}.values())[::-1]
    return sorted(pairs, key=lambda pair: order.get(pair[0], len(order)))


def _spelling(name: str, theirs: list[str], ours: list[str]) -> str:
    """CheXpert's spelling where either side means one of its labels; other labels keep the truth's, without ending."""
    plains = (name, *(_ENDINGS[kind].sub("", plain(side[0])) for kind, side in (("truth", theirs), ("score", ours))))
    ending = _ENDINGS["truth"].search(re.sub(r"[\s_\-]", " ", theirs[0]).lower())
    return next((_SPELLED[n] for n in plains if n in _SPELLED), theirs[0][:ending.start()] if ending else theirs[0])


def _columns(name: str, columns: dict[str, str]) -> list[str]:
    if name in columns:
        return [columns[name]]
    for other, same in ALIASES.items():
        if same == name and other in columns:
            return [columns[other]]
        if other == name and same in columns:
            return [columns[same]]
    if all(part in columns for part in BRIDGES.get(name, ("",))):
        return [columns[part] for part in BRIDGES[name]]
    return []


def patients_of(keys: Sequence[str]) -> np.ndarray | None:
    """The patient of each key: `patient00012` (CheXpert), `p10000032` (MIMIC), `00000013` of an NIH image name.

    Returns:
        str (films,), or None where a key does not tell.
    """
    found = [_patient(str(key)) for key in keys]
    return None if None in found else np.array(found, dtype=object)


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


def mean_labels(labels: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Which labels the mean is taken over, and what it is called."""
    if set(COMPETITION_LABELS) <= set(labels):
        return "mean of five", COMPETITION_LABELS
    return f"mean of {len(labels)}", tuple(labels)
