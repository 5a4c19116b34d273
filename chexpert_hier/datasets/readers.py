"""Readers of CheXpert's CSV shape: a data set's files -> one table of films and raw labels.

A reader takes (folder, Options, Problems) and gives a `Source`; `reading.read` splits, checks and wraps what it gives.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..hierarchy import HBCE_TREE, hbce_outputs
from ..labels import CHESTXRAY14_LABELS, CHEXPERT_LABELS, key
from .bridge import Bridged, assembled, translate
from .cells import PROJECTIONS, REFUSED, SEXES, VIEWS, ages, check_paths, codes, few, film_names, locate
from .options import Options, Source
from .tables import Problems, plainly_named, read_table, require_columns

_PATIENT = r"(?:^|/)(patient[^/]+)/(study[^/]+)/[^/]+$"
_FEW = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_COLUMNS = ("Path", "Patient", "Study", *_FEW)


def chexpert(folder: Path, options: Options, problems: Problems) -> Source:
    """CheXpert-v1.0 or -small as it unpacks: train.csv, valid.csv and, where there is one, test.csv.

    The folder may have any name: paths are taken from the part after their first "/". Asked for the labels of
    HBCE_TREE, it builds the 21 outputs from the 14 findings.
    """
    return _csv_shape(folder, options, problems, CHEXPERT_LABELS)


def csv(folder: Path, options: Options, problems: Problems) -> Source:
    """The same CSV shape with the user's own labels; without valid.csv the films are split by patient.

    Columns: Path and the labels; Patient and Study where the path does not hold .../patientN/studyN/...; the others of
    CheXpert if they are there.
    """
    if not options.labels:
        raise InputError("reader csv: no labels given; say --labels A,B,... with the names of the columns")
    return _csv_shape(folder, options, problems, options.labels)


def _csv_shape(folder: Path, options: Options, problems: Problems, own: Sequence[str]) -> Source:
    wanted = options.labels or tuple(own)
    other = set(wanted) <= set(CHESTXRAY14_LABELS) or wanted == HBCE_TREE.labels
    labels = tuple(own) if other and not set(wanted) <= set(own) else wanted
    tables = {"train": options.train_file, "valid": "valid.csv", "test": "test.csv"}
    _require_train(folder, options.train_file)
    parts = [csv_table(folder / name, "" if split == "train" else split, labels, options, problems)
             for split, name in tables.items() if (folder / name).is_file()]
    if options.drawn:
        parts = [part.assign(split="") for part in parts]
    elif (folder / "valid.csv").is_file():  # else valid is drawn from the training patients
        parts[0]["split"] = "train"
    films = pd.concat(parts, ignore_index=True)
    root, files = locate(folder, films["path"])
    films.insert(1, "file", files)
    # Other data sets in CheXpert's shape have patients of their own under the same names.
    people = "chexpert" if films["path"].str.startswith("CheXpert-v1.0").all() else ""
    return Source(root, translated(films, labels, wanted), wanted, people=people)


def _require_train(folder: Path, name: str) -> None:
    if (folder / name).is_file():
        return
    inside = [found.parent.name for found in sorted(folder.glob(f"*/{name}"))]
    hint = f"did you mean {folder / inside[0]}?" if inside else "is this the unpacked data set?"
    raise InputError(f"{folder}: no {name} in this folder; {hint}")


def csv_table(path: Path, split: str, labels: Sequence[str], options: Options, problems: Problems) -> pd.DataFrame:
    """The films of one table in CheXpert's shape, without `file`; Sex, Age, views and positions where it has them."""
    table = plainly_named(read_table(path), (*_COLUMNS, *labels))
    require_columns(path, table, ("Path", *labels), "Is this a CheXpert CSV?")
    table = table.astype({name: "category" for name in table.columns if name in (*labels, *_FEW)})
    names, rows = film_names(table["Path"]), table.index.to_numpy()
    check_paths(path.name, names.to_numpy(), rows, options, problems)
    found = names.str.extract(_PATIENT)
    patient = table["Patient"].str.strip() if "Patient" in table else found[0]
    folders = pd.Series([key(name).rpartition("/")[0] for name in names], index=table.index)
    study = table["Study"].str.strip() if "Study" in table else folders.where(found[0].notna(), names)
    problems.say("no patient", (patient.isna() | (patient == "")).to_numpy(), lambda place: (
        f"{path.name}, row {rows[place]}: Path is {names.iloc[place]!r}; expected "
        ".../patientN/studyN/viewN_frontal.jpg or a column Patient"), REFUSED)
    lateral = names.str.contains(r"lateral[^/]*$", case=False)
    view = pd.Series(np.where(lateral, "Lateral", "Frontal"), index=table.index)
    films = pd.DataFrame({
        "path": names.to_numpy(), "patient": patient.fillna("").to_numpy(), "study": study.to_numpy(),
        "view": few(table, "Frontal/Lateral", VIEWS, path.name, problems, view),
        "projection": few(table, "AP/PA", PROJECTIONS, path.name, problems, ""),
        "sex": few(table, "Sex", SEXES, path.name, problems, "Unknown"),
        "age": ages(table, "Age", path.name, problems), "split": split, "row": rows, "table": path.name})
    raw = codes(table, path.name, labels, problems)
    return pd.concat([films, pd.DataFrame(raw, columns=list(labels))], axis=1)


def translated(films: pd.DataFrame, labels: Sequence[str], wanted: Sequence[str]) -> pd.DataFrame:
    """Replace the label columns by the wanted ones, across data sets where they differ.

    What has no counterpart is unknown, even where the cell that it would come from is blank.
    """
    if tuple(labels) == tuple(wanted):
        return films
    raw = films[list(labels)].to_numpy(np.float32)
    rest = films.drop(columns=list(labels))
    if tuple(wanted) == HBCE_TREE.labels:
        outputs = pd.DataFrame(hbce_outputs(raw, labels), columns=list(wanted), index=rest.index)
        return pd.concat([rest, outputs], axis=1)
    unknown = np.isnan(translate(np.nan_to_num(raw, nan=0.0), labels, wanted))
    return assembled(rest, Bridged(translate(raw, labels, wanted), unknown), wanted)
