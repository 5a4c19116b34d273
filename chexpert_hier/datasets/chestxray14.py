"""The reader of ChestX-ray14 (Wang et al. 2017) as it unpacks, and its bounding boxes."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..labels import CHESTXRAY14_LABELS, CHEXPERT_LABELS
from .cells import REFUSED, SEXES, ages, check_paths, few, film_names, listing
from .options import Options, Source
from .readers import translated
from .tables import Problems, read_table, require_columns

INDEX = "nih_index.csv"  # Path, Image Index: films that were renamed, as into CheXpert's folders
TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "nih_labels.csv")
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
_VIEWS = {"pa": "PA", "ap": "AP", "": ""}


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """ChestX-ray14: Data_Entry_2017.csv or its 2020 edition, films in images_*/images/, images/ or the folder itself.

    A label that is not listed is 0: the data set has neither blank nor uncertain labels. All films are frontal. Split
    "official" takes train_val_list.txt and test_list.txt and draws valid from the patients of the former (1 of 8); by
    "seeded" or "paper", or without the lists, all is drawn by patient, 70/10/20 (CheXNet, section 3). A table with a
    column Path, or nih_index.csv beside it (films elsewhere than in those folders), has its split in the path.

    Raises:
        InputError: no table, a missing column, an unknown finding, a patient in both lists.
    """
    path, table = _table(folder)
    wanted = options.labels or CHESTXRAY14_LABELS
    own = tuple(wanted) if set(wanted) <= set(CHESTXRAY14_LABELS) else CHESTXRAY14_LABELS
    if not set(wanted) <= {*CHESTXRAY14_LABELS, *CHEXPERT_LABELS}:
        unknown = [name for name in wanted if name not in {*CHESTXRAY14_LABELS, *CHEXPERT_LABELS}]
        raise InputError(f"label {unknown[0]!r}: expected one of: {', '.join(CHESTXRAY14_LABELS)}")
    images = film_names(table["Image Index"]).to_numpy()
    paths, files = _films(folder, table, images)
    check_paths(path.name, paths, table.index.to_numpy(), options, problems)
    patient = table["Patient ID"].str.strip()
    problems.say("no patient", (patient == "").to_numpy(), lambda place: (
        f"{path.name}, row {table.index[place]}: Patient ID is blank; expected a number"), REFUSED)
    films = pd.DataFrame({
        "path": paths, "file": files, "patient": patient.to_numpy(), "study": images, "view": "Frontal",
        "projection": few(table, "View Position", _VIEWS, path.name, problems, ""),
        "sex": few(table, "Patient Gender", SEXES, path.name, problems, "Unknown"),
        "age": ages(table, "Patient Age", path.name, problems),
        "split": _split(folder, path.name, table, paths, options, problems),
        "row": table.index.to_numpy(), "table": path.name})
    raw = pd.DataFrame(_findings(path.name, table, own, problems), columns=list(own))
    listed = (films["split"] == "test").any()
    return Source(folder, translated(pd.concat([films, raw], axis=1), own, wanted), tuple(wanted),
                  (0.875, 0.125, 0.0) if listed else (0.7, 0.1, 0.2), people="chestxray14")


def _table(folder: Path) -> tuple[Path, pd.DataFrame]:
    """The table of films, with a column Path where they were moved."""
    path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no {' or '.join(TABLES)} in this folder; is this the unpacked ChestX-ray14?")
    table = read_table(path, codes=("Patient Age", "Patient Gender", "View Position", "Finding Labels"))
    require_columns(path, table, COLUMNS, "Is this ChestX-ray14's table?")
    moved = _moved(folder)
    if moved and "Path" not in table.columns and table["Image Index"].isin(list(moved)).all():
        table["Path"] = table["Image Index"].map(moved)
    return path, table


def _moved(folder: Path) -> dict[str, str]:
    """Image Index -> Path from nih_index.csv; empty without it."""
    if not (folder / INDEX).is_file():
        return {}
    table = read_table(folder / INDEX)
    require_columns(folder / INDEX, table, ("Path", "Image Index"), "It tells where renamed films are")
    return dict(zip(table["Image Index"], table["Path"]))


def _films(folder: Path, table: pd.DataFrame, images: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Paths, and where the films lie: found by listing the folders once."""
    if "Path" in table.columns:
        names = film_names(table["Path"]).to_numpy()
        return names, [name.partition("/")[2] or name for name in names]
    places = [folder / "images", *sorted(folder.glob("images_*/images")), *sorted(folder.glob("images_*")), folder]
    found = listing(folder, places)
    return images, [found.get(name, f"images/{name}") for name in images]


def _findings(name: str, table: pd.DataFrame, labels: tuple[str, ...], problems: Problems) -> np.ndarray:
    """float32 (films, labels): 1 where listed, else 0."""
    combinations = [[part.strip() for part in text.split("|")] for text in table["Finding Labels"].cat.categories]
    known = {*CHESTXRAY14_LABELS, "No Finding"}
    unknown = np.array([not set(parts) <= known for parts in combinations], bool)
    places = table["Finding Labels"].cat.codes.to_numpy()
    problems.say("unknown finding", unknown[places], lambda place: (
        f"{name}, row {table.index[place]}: Finding Labels is {table['Finding Labels'].iloc[place]!r}; expected "
        f"No Finding or, joined by |, some of {', '.join(CHESTXRAY14_LABELS)}"), REFUSED)
    present = np.array([[label in parts for label in labels] for parts in combinations], np.float32)
    return present.reshape(-1, len(labels))[places]


def _split(folder: Path, name: str, table: pd.DataFrame, paths: np.ndarray, options: Options,
           problems: Problems) -> np.ndarray:
    """"train", "valid", "test" where it is known, "" where it shall be drawn."""
    if options.drawn:
        return np.full(len(table), "", object)
    if "Path" in table.columns:
        inside = pd.Series(paths).str.extract(r"(?:^|/)(train|valid|test)/", expand=False)
        return inside.fillna("").to_numpy(object)
    lists = [folder / "train_val_list.txt", folder / "test_list.txt"]
    if not all(path.is_file() for path in lists):
        if options.split == "official":
            raise InputError(f"{folder}: no train_val_list.txt and test_list.txt; the official split needs them "
                             "(--split seeded or paper draws one)")
        return np.full(len(table), "", object)
    train, test = (table["Image Index"].isin(path.read_text(encoding="utf-8-sig").split()).to_numpy() for path in lists)
    problems.say("not in one list", train == test, lambda place: (
        f"{name}, row {table.index[place]}: {table['Image Index'].iloc[place]} is in "
        f"{'both' if test[place] else 'none'} of train_val_list.txt and test_list.txt"), REFUSED)
    return np.where(test, "test", "").astype(object)


def read_boxes(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read BBox_List_2017.csv, or a table with columns Path, Finding, x, y, w, h.

    Returns:
        one row per box: path (Image Index, or Path where nih_index.csv beside it tells one), label (ChestX-ray14's
        names: Infiltrate is Infiltration), x, y, w, h (float, pixels of the file; x, y is the top left corner).

    Raises:
        InputError: another shape, or a cell that is no number.
    """
    table = read_table(path, width=6)  # NIH's header has nine fields (commas inside brackets), its rows six
    table.columns = ["path", "label", "x", "y", "w", "h"]
    boxes: pd.DataFrame = table[["x", "y", "w", "h"]].apply(pd.to_numeric, errors="coerce")
    wrong = ~(np.isfinite(boxes.to_numpy(float)).all(axis=1) & (boxes[["w", "h"]] > 0).all(axis=1).to_numpy())
    if wrong.any():
        raise InputError(f"{Path(path).name}, row {table.index[int(np.argmax(wrong))]}: expected a box as four numbers "
                         "x, y, w, h with w and h above 0")
    table["path"] = table["path"].replace(_moved(Path(path).parent))
    names = table["label"].str.strip().replace("Infiltrate", "Infiltration")
    return pd.concat([film_names(table["path"]), names, boxes], axis=1)
