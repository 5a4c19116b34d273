"""The reader of the RSNA Pneumonia Detection Challenge (Shih et al. 2019): ChestX-ray14's films read anew."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from .bridge import Bridged, Row, assembled, bridged, chosen_labels
from .cells import REFUSED, check_paths, listing
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
TABLE, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
# RSNA's list of which ChestX-ray14 film each of these is; without it nobody knows which films are of one patient.
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
LABELS = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
BRIDGE: dict[str, Row] = {
    "No Finding": Row(("Normal",), True, "the class Normal"),
    "Pneumonia": Row(("Lung Opacity",), True, "Shih et al. 2019: an opacity suspicious of pneumonia; Target 0 was read "
                     "as none. Suspected on the film alone: the clinic was not known"),
    "Lung Opacity": Row(("Lung Opacity",), False, "an opacity, if one suspicious of pneumonia; Not Normal films may "
                        "show other opacities (nodules, edema), so that there it is unknown"),
}  # all others: absent on Normal films, else unknown; Support Devices: unknown


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """RSNA Pneumonia: stage_2_train_labels.csv and stage_2_detailed_class_info.csv, films in stage_2_train_images/.

    With RSNA's mapping to ChestX-ray14 beside the tables the patients are ChestX-ray14's; without it each film counts
    as a patient, and the log says so. The split is drawn by patient: the stage 2 test films have no public labels.

    Raises:
        InputError: a missing table or column, an unknown class, a Target that contradicts the class.
    """
    for name in (TABLE, CLASSES):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name} in this folder; is this the RSNA Pneumonia Detection Challenge?")
    boxes, classes = read_table(folder / TABLE), read_table(folder / CLASSES)
    require_columns(folder / TABLE, boxes, ("patientId", "Target"), "Is this the RSNA challenge's table?")
    require_columns(folder / CLASSES, classes, ("patientId", "class"), "Is this the RSNA challenge's table?")
    films = boxes.drop_duplicates("patientId")
    stated = classes.drop_duplicates("patientId").set_index("patientId")["class"].str.strip()
    kind = films["patientId"].map(stated).fillna("")
    _check(films, kind, problems)
    codes = np.array([[name == label for label in LABELS] for name in kind], np.float32)
    wanted = chosen_labels(options.labels, LABELS)
    found = bridged(codes, LABELS, BRIDGE, wanted, normal=(kind == "Normal").to_numpy())
    table, people = _films(folder, films, options, problems)
    return Source(folder, assembled(table, Bridged(*found), wanted), wanted, people=people)


def _check(films: pd.DataFrame, kind: pd.Series, problems: Problems) -> None:
    rows, target = films.index, films["Target"].str.strip()
    problems.say("unknown class", ~kind.isin(LABELS).to_numpy(), lambda place: (
        f"{CLASSES}: class of {films['patientId'].iloc[place]} is {kind.iloc[place]!r}; expected {', '.join(LABELS)}"),
        REFUSED)
    wrong = (target != np.where(kind == "Lung Opacity", "1", "0")) & kind.isin(LABELS)
    problems.say("Target against class", wrong.to_numpy(), lambda place: (
        f"{TABLE}, row {rows[place]}: Target is {target.iloc[place]!r}, {CLASSES} says {kind.iloc[place]!r}; expected "
        "1 for Lung Opacity and 0 for the others"), REFUSED)


def _films(folder: Path, films: pd.DataFrame, options: Options, problems: Problems) -> tuple[pd.DataFrame, str]:
    image = films["patientId"].str.strip()
    check_paths(TABLE, image.to_numpy(), films.index.to_numpy(), options, problems)
    found = listing(folder, [folder / "stage_2_train_images"], stems=True)
    origin = _origin(folder)
    if not origin:
        LOG.warning("%s: no %s beside the tables, so that films of one patient cannot be told; each counts as a "
                    "patient of its own", folder, MAPPING)
    # ChestX-ray14 writes patient 13 as 13, its films as 00000013_005.png.
    patient = [str(int(origin[name].partition("_")[0])) if name in origin else name for name in image]
    table = pd.DataFrame({
        "path": image.to_numpy(), "file": [found.get(name, f"stage_2_train_images/{name}.dcm") for name in image],
        "patient": patient, "study": image.to_numpy(), "view": "Frontal", "projection": "", "sex": "Unknown",
        "age": np.float32(np.nan), "split": "", "row": films.index.to_numpy(), "table": TABLE})
    return table, "chestxray14" if origin else "rsna"


def _origin(folder: Path) -> dict[str, str]:
    """This data set's film -> ChestX-ray14's, from RSNA's mapping; empty without it.

    Raises:
        InputError: another shape.
    """
    path = folder / MAPPING
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = {entry["subset_img_id"]: entry["img_id"] for entry in entries if entry.get("subset_img_id")}
        for name in found.values():
            int(name.partition("_")[0])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path}: expected RSNA's mapping, a list of entries with subset_img_id and img_id "
                         "(00000013_005.png)") from None
    return found
