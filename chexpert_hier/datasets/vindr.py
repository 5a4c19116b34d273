"""The reader of VinDr-CXR (Nguyen et al. 2022): 28 labels by radiologists, as PhysioNet or Kaggle give it.

All labels are asked of every film, so that a label that is not set is absent. Of the three readers of a training film
two decide; the test films have one consensus.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from .bridge import Row, assembled, bridged, chosen_labels
from .cells import REFUSED, check_paths, listing
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
TABLES = {"train": "annotations/image_labels_train.csv", "test": "annotations/image_labels_test.csv"}
KAGGLE = "train.csv"  # one row per box and reader, 14 of the labels, no labels of the test films
# Nguyen et al. 2022, Table 2; Kaggle's competition has the first 14 and "No finding".
LOCAL = ("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
         "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
         "Pulmonary fibrosis")
LABELS = (*LOCAL, "Clavicle fracture", "Edema", "Emphysema", "Enlarged PA", "Lung cavity", "Lung cyst",
          "Mediastinal shift", "Rib fracture", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases",
          "No finding")
SPELLINGS = {"Other disease": "Other diseases", "Pleural_thickening": "Pleural thickening"}  # in the test table
READERS_OF_A_FILM = 3

_LESIONS = ("Nodule/Mass", "Lung tumor", "Lung cavity")
_NAME = "same finding, asked of every film"
BRIDGE: dict[str, Row] = {
    "No Finding": Row(("No finding",), True, "same meaning: none of the other labels"),
    "Enlarged Cardiomediastinum": Row(
        ("Cardiomegaly",), False, "CheXpert's tree: Cardiomegaly. Aortic enlargement and mediastinal shift are not "
        "called a wide mediastinum, so that without cardiomegaly it is unknown"),
    "Cardiomegaly": Row(("Cardiomegaly",), True, _NAME),
    "Lung Opacity": Row(
        ("Lung Opacity", "Infiltration", "Consolidation", "Edema", "Pneumonia", "Atelectasis", *_LESIONS), True,
        "VinDr-CXR, Table 2: any opacity in the lung fields; CheXpert's tree: the five findings below it. ILD, "
        "fibrosis and calcification alone are not counted"),
    "Lung Lesion": Row(_LESIONS, True, "words of CheXpert's labeler: nodule, mass, tumor, cavitary lesion"),
    "Edema": Row(("Edema",), True, _NAME),
    "Consolidation": Row(("Consolidation",), True, _NAME),
    "Pneumonia": Row(("Pneumonia",), True, _NAME),
    "Atelectasis": Row(("Atelectasis",), True, _NAME),
    "Pneumothorax": Row(("Pneumothorax",), True, _NAME),
    "Pleural Effusion": Row(("Pleural effusion",), True, _NAME),
    "Pleural Other": Row(("Pleural thickening",), False, "words of CheXpert's labeler: pleural thickening, but scars "
                         "too, which are not asked: without thickening it is unknown"),
    "Fracture": Row(("Rib fracture", "Clavicle fracture"), False, "two of the bones: without them it is unknown"),
}  # no Support Devices: not asked, so unknown


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """VinDr-CXR: annotations/image_labels_train.csv and _test.csv (PhysioNet), or train.csv (Kaggle).

    Films lie in train/ and test/ (.dicom, or converted). Each film is a patient of its own: the data set does not tell
    them. The training films are split by draw, the test films stay the test.

    Raises:
        InputError: no table, a missing label, a cell that is neither 0 nor 1.
    """
    own: tuple[str, ...]
    if (folder / TABLES["train"]).is_file():
        parts = [_votes(folder, split, problems) for split, name in TABLES.items() if (folder / name).is_file()]
        own = LABELS
    elif (folder / KAGGLE).is_file():
        parts, own = [_boxes(folder, problems)], (*LOCAL, "No finding")
    else:
        raise InputError(f"{folder}: no {TABLES['train']} (PhysioNet) or {KAGGLE} (Kaggle); is this VinDr-CXR?")
    votes = pd.concat(parts, ignore_index=True)
    codes = (votes[list(own)].to_numpy(float) > 0.5).astype(np.float32)
    wanted = chosen_labels(options.labels, own)
    # Kaggle's "No finding" speaks of its own labels only, PhysioNet's of the whole film.
    normal = codes[:, own.index("No finding")] == 1 if own is LABELS else None
    found = bridged(codes, own, _bridge(own), wanted, normal=normal)
    films = _films(folder, votes, options, problems)
    return Source(folder, assembled(films, found, wanted), wanted)


def _bridge(own: tuple[str, ...]) -> dict[str, Row]:
    """The rows that a table's labels allow: where some of a row's are lacking, nothing makes it absent."""
    result = {}
    for label, row in BRIDGE.items():
        left = tuple(name for name in row.own if name in own)
        if left:
            result[label] = row._replace(own=left, absent=row.absent and left == row.own)
    return result


def _votes(folder: Path, split: str, problems: Problems) -> pd.DataFrame:
    """One row per film of a split: image, the share of its readers that set each label, split, table and row."""
    path = folder / TABLES[split]
    table = read_table(path, codes=(*LABELS, *SPELLINGS)).rename(columns=SPELLINGS)
    require_columns(path, table, ("image_id", *LABELS), "Is this VinDr-CXR?")
    values = table[list(LABELS)].apply(pd.to_numeric, errors="coerce")
    wrong = ~values.isin([0, 1]).to_numpy()
    problems.say("impossible code", wrong.ravel(), lambda place: (
        f"{path.name}, row {table.index[place // len(LABELS)]}: {LABELS[place % len(LABELS)]} is "
        f"{table[LABELS[place % len(LABELS)]].iloc[place // len(LABELS)]!r}; expected 0 or 1"), REFUSED)
    image = table["image_id"].str.strip()
    shares: pd.DataFrame = values.fillna(0).groupby(image, sort=False).mean()
    return shares.assign(image=shares.index, split="test" if split == "test" else "", where=split, table=path.name,
                         row=table.index.to_series().groupby(image.to_numpy(), sort=False).first())


def _boxes(folder: Path, problems: Problems) -> pd.DataFrame:
    """The same from Kaggle's table of boxes."""
    path = folder / KAGGLE
    table = read_table(path, codes=("class_name",))
    require_columns(path, table, ("image_id", "class_name", "rad_id"), "Is this Kaggle's VinBigData table?")
    own = (*LOCAL, "No finding")
    name = table["class_name"].astype(str).str.strip()
    problems.say("unknown finding", ~name.isin(own).to_numpy(), lambda place: (
        f"{path.name}, row {table.index[place]}: class_name is {name.iloc[place]!r}; expected one of {', '.join(own)}"),
        REFUSED)
    image = table["image_id"].str.strip()
    votes = pd.DataFrame({"image": image, "name": name, "reader": table["rad_id"]}).drop_duplicates()
    counted: pd.DataFrame = pd.crosstab(votes["image"], votes["name"]).reindex(columns=list(own), fill_value=0)
    shares = counted.loc[image.unique()] / READERS_OF_A_FILM
    return shares.assign(
        image=shares.index, split="", where="train", table=path.name,
        row=table.index.to_series().groupby(image.to_numpy(), sort=False).first())


def _films(folder: Path, votes: pd.DataFrame, options: Options, problems: Problems) -> pd.DataFrame:
    image, where = votes["image"].to_numpy(str), votes["where"].to_numpy(str)
    found = {split: listing(folder, [folder / split], stems=True) for split in ("train", "test")}
    files = [found[split].get(name, f"{split}/{name}.dicom") for split, name in zip(where, image)]
    check_paths(votes["table"].iloc[0], image, votes["row"].to_numpy(), options, problems)
    return pd.DataFrame({
        "path": [f"{split}/{name}" for split, name in zip(where, image)], "file": files, "patient": image,
        "study": image, "view": "Frontal", "projection": "PA", "sex": "Unknown", "age": np.float32(np.nan),
        "split": "" if options.drawn else votes["split"].to_numpy(), "row": votes["row"].to_numpy(),
        "table": votes["table"].to_numpy()})
