"""The reader of CheXpert Plus (Chambon et al. 2024): CheXpert's films, with labels that CheXbert made from reports."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths
from ..errors import InputError, one_of
from ..labels import CHEXPERT_LABELS
from .cells import REFUSED, SEXES, ages, check_paths, few, film_names, is_file
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
TABLE = "df_chexpert_plus_240401.csv"
COLUMNS = ("path_to_image", "frontal_lateral", "ap_pa", "age", "sex", "split")
# Which part of the report CheXbert read; one JSON object a line. --train-file names another than the first.
LABEL_FILES = ("report_fixed.json", "impression_fixed.json", "findings_fixed.json")
LABEL_FOLDERS = (".", "chexbert_labels", "labels", "CheXpert_Labels")
# Where the films lie, and how their names end there.
FILM_FOLDERS = (("PNG", ".png"), ("PNG/PNG", ".png"), ("PNGs", ".png"), (".", ".png"), ("DICOM", ".dcm"),
                ("DICOM/Uncompressed", ".dcm"), (".", ".dcm"), (".", ".jpg"))
_VIEWS = {"frontal": "Frontal", "lateral": "Lateral"}
_PROJECTIONS = {"ap": "AP", "pa": "PA", "ll": "LL", "rl": "RL", "": ""}
_SPLITS = {"train": "train", "valid": "valid", "test": "test"}


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """CheXpert Plus: df_chexpert_plus_240401.csv, CheXbert's labels, and films in PNG/ or DICOM/.

    The labels are read from report_fixed.json; `--train-file impression_fixed.json` or findings_fixed.json reads what
    that part of the report gave. Films without an entry there have blank labels. The split is the data set's own
    (train, valid); its patients are CheXpert's.

    Raises:
        InputError: a missing table or file of labels, a missing column, an impossible code.
    """
    path = folder / TABLE
    if not path.is_file():
        raise InputError(f"{folder}: no {TABLE} in this folder; is this CheXpert Plus?")
    table = read_table(path, codes=COLUMNS[1:], keep=COLUMNS)
    require_columns(path, table, COLUMNS, "Is this CheXpert Plus's table?")
    labels = options.labels or CHEXPERT_LABELS
    for label in labels:
        one_of("label", label, CHEXPERT_LABELS)
    name = film_names(table["path_to_image"].str.strip())
    raw = pd.DataFrame(_labels(folder, options.train_file, name, labels), columns=list(labels))
    films = _films(path.name, table, name, options, problems)
    where, suffix = _where(folder, name)
    films["file"] = [f"{where}/{film.rpartition('.')[0]}{suffix}".removeprefix("./") for film in name]
    return Source(folder, pd.concat([films, raw], axis=1), tuple(labels), people="chexpert")


def _films(table_name: str, table: pd.DataFrame, name: pd.Series, options: Options, problems: Problems
           ) -> pd.DataFrame:
    """What is known of the films named `name`, but where they lie."""
    check_paths(table_name, name.to_numpy(), table.index.to_numpy(), options, problems)
    found = name.str.extract(r"(?:^|/)(patient[^/]+)/(study[^/]+)/[^/]+$")
    problems.say("no patient", found[0].isna().to_numpy(), lambda place: (
        f"{table_name}, row {table.index[place]}: path_to_image is {name.iloc[place]!r}; expected "
        ".../patientN/studyN/viewN_frontal.jpg"), REFUSED)
    split = few(table, "split", _SPLITS, table_name, problems, "")
    return pd.DataFrame({
        "path": [f"CheXpert-Plus/{film}" for film in name],
        "patient": found[0].fillna("").to_numpy(), "study": (found[0] + "/" + found[1]).fillna("").to_numpy(),
        "view": few(table, "frontal_lateral", _VIEWS, table_name, problems, "Frontal"),
        "projection": few(table, "ap_pa", {**_PROJECTIONS, "nan": ""}, table_name, problems, ""),
        "sex": few(table, "sex", {**SEXES, "nan": "Unknown"}, table_name, problems, "Unknown"),
        "age": ages(table, "age", table_name, problems),
        "split": "" if options.drawn else split, "row": table.index.to_numpy(), "table": table_name})


def _where(folder: Path, names: pd.Series) -> tuple[str, str]:
    """The folder that the films lie in and their suffix there; the first of FILM_FOLDERS where none is found."""
    sample = names.tolist()[:: max(len(names) // 50, 1)]
    for where, suffix in FILM_FOLDERS:
        if any(is_file(folder / where, name.rpartition(".")[0] + suffix) for name in sample):
            return where, suffix
    return FILM_FOLDERS[0]


def _labels(folder: Path, asked: str, names: pd.Series, labels: tuple[str, ...]) -> np.ndarray:
    """float32 (films, labels): 1, 0, -1 or NaN, from CheXbert's file."""
    name = LABEL_FILES[0] if asked == "train.csv" else Path(asked).name
    one_of("--train-file (CheXbert's labels)", name, LABEL_FILES)
    path = next((folder / place / name for place in LABEL_FOLDERS if (folder / place / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no {name} there or in {', '.join(LABEL_FOLDERS[1:])}; expected CheXbert's labels "
                         "of CheXpert Plus")
    codes: dict[str, list[float]] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                film, values = _entry(path.name, number, line, labels)
                codes[film] = values
    raw = np.array([codes.get(film, [np.nan] * len(labels)) for film in names], np.float32)
    missing = int((~names.isin(list(codes))).sum())
    if missing == len(names):
        raise InputError(f"{path.name}: no labels of any film of {TABLE}; are they of the same release?")
    LOG.info("%s: labels of %d films; %d have none", path.name, len(names) - missing, missing)
    return raw


def _entry(name: str, number: int, line: bytes, labels: tuple[str, ...]) -> tuple[str, list[float]]:
    try:
        entry = json.loads(line)
        values = [np.nan if entry[label] is None else float(entry[label]) for label in labels]
        film = str(entry["path_to_image"]).strip()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise InputError(f"{name}, line {number}: expected one JSON object with path_to_image and CheXpert's labels") \
            from None
    wrong = [value for value in values if value not in (1, 0, -1) and not np.isnan(value)]
    if wrong:
        raise InputError(f"{name}, line {number}: a label is {wrong[0]}; expected 1, 0, -1 or null")
    return paths.canonical(film), values
