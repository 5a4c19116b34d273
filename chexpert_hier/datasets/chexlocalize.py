"""The reader of CheXlocalize (Saporta et al. 2022): CheXpert's validation and test films with radiologists' masks."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError, one_of
from ..labels import CHEXPERT_LABELS
from .options import Options, Source
from .readers import csv_table
from .tables import Problems

# Split -> the table's names and the folders of films, below the data folder or its CheXpert/.
TABLES = {"valid": ("val_labels.csv", "valid.csv", "valid_labels.csv"), "test": ("test_labels.csv", "test.csv")}
FILMS = {"valid": ("val", "valid"), "test": ("test",)}
PARTS = (".", "CheXpert", "CheXpert-v1.0")
# The ten findings that are outlined (Saporta et al. 2022, Methods).
OUTLINED = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Lung Lesion",
            "Lung Opacity", "Pleural Effusion", "Pneumothorax", "Support Devices")
AIRSPACE = {"Airspace Opacity": "Lung Opacity"}  # the name in some of its files


class Mask(NamedTuple):
    """What radiologists outlined in one film.

    Attributes:
        film: as in the data set's file, e.g. patient64741_study1_view1_frontal.
        label: CheXpert's name.
        mask: bool (h, w), of the film as it is stored.
    """

    film: str
    label: str
    mask: np.ndarray


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """CheXlocalize: the labels of CheXpert's validation (234 films) and test set (668), read by radiologists.

    There are no training films: it is for judging, alone or beside others' training films.

    Raises:
        InputError: no table, a missing column, an impossible code.
    """
    labels = options.labels or CHEXPERT_LABELS
    for name in labels:
        one_of("label", name, CHEXPERT_LABELS)
    parts = []
    for split, names in TABLES.items():
        path = next((folder / part / name for part in PARTS for name in names if (folder / part / name).is_file()),
                    None)
        if path is not None:
            films = csv_table(path, split, labels, options, problems)
            films.insert(1, "file", _files(folder, path.parent, split, films["path"]))
            parts.append(films)
    if not parts:
        raise InputError(f"{folder}: no {' or '.join(name for names in TABLES.values() for name in names)} there or in "
                         f"{', '.join(PARTS[1:])}; is this CheXlocalize?")
    return Source(folder, pd.concat(parts, ignore_index=True), tuple(labels), people="chexpert")


def _files(folder: Path, beside: Path, split: str, names: pd.Series) -> list[str]:
    """Where the films lie, from the patient's folder on, whatever their table calls the folder above."""
    part = beside.relative_to(folder).as_posix()
    tails = names.str.extract(r"(patient[^/]+/.*)$", expand=False).fillna(names)
    sample = tails.tolist()[:50]
    for where in FILMS[split]:
        if any((beside / where / tail).is_file() for tail in sample):
            return [f"{part}/{where}/{tail}".removeprefix("./") for tail in tails]
    return [f"{part}/{FILMS[split][0]}/{tail}".removeprefix("./") for tail in tails]


def read_masks(path: str | os.PathLike[str]) -> list[Mask]:
    """Read gt_segmentations_val.json or _test.json: {film: {label: {"size": [h, w], "counts": COCO's run lengths}}}.

    Empty masks (labels that are absent in that film) are left out.

    Raises:
        InputError: another shape.
    """
    path = Path(path)
    try:
        films = json.loads(path.read_text(encoding="utf-8"))
        return [Mask(film, AIRSPACE.get(label, label), mask) for film, found in films.items()
                for label, coded in found.items() if (mask := decoded(coded["counts"], *coded["size"])).any()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected CheXlocalize's masks") from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: expected CheXlocalize's masks, {{film: {{label: {{size, counts}}}}}} "
                         f"({type(error).__name__}: {error})") from None


def decoded(counts: str, height: int, width: int) -> np.ndarray:
    """A mask from COCO's compressed run lengths: bool (h, w).

    The runs of 0 and 1 in turn, down the columns; each number is written in groups of 5 bits as characters from "0" on,
    the sixth bit says that more follow, and from the third run on it is the difference to the run two before (COCO's
    maskApi, rleFrString).

    >>> decoded("11", 1, 2)
    array([[False,  True]])

    Raises:
        ValueError: the runs do not fill the mask.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts.encode("ascii"):
        group = character - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (1 << shift) if group & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(f"runs of {sum(runs)} pixels for a mask of {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T
