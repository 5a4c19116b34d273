"""Readers of CheXpert's CSV shape, and what all readers share: a data set's files -> one table of films and raw labels.

A reader takes (folder, Options, Problems) and gives a `Source`; `datasets.read` splits, checks and wraps what it gives.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..hierarchy import HBCE_TREE, hbce_outputs
from ..labels import CHESTXRAY14_LABELS, CHEXPERT_LABELS, key
from .bridge import translate
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
REFUSED = "refused; mend the CSV"
# Leaves the data folder: absolute, with a drive, with a backslash, or upwards.
_OUTSIDE = r"^/|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)"
_PATIENT = r"(?:^|/)(patient[^/]+)/(study[^/]+)/[^/]+$"


@dataclass(frozen=True)
class Options:
    """What a reader may be asked for.

    Attributes:
        labels: the label columns; None takes the data set's own.
        train_file: the table of the training films, e.g. "train_visualCheXbert.csv" or a phantom's "train_truth.csv".
        split: "auto" or "official": the data set's own; "seeded": by patient with `datasets.read`'s fractions.
        allow_outside: paths may leave the data folder.
    """

    labels: tuple[str, ...] | None = None
    train_file: str = "train.csv"
    split: str = "auto"
    allow_outside: bool = False


@dataclass(frozen=True)
class Source:
    """What a reader gives.

    Attributes:
        root: the folder that the films' `file` is relative to.
        films: the table of `datasets.Dataset`; a split "" is to be drawn.
        labels: names of its label columns.
        fractions: of the patients that go to train, valid and test where the split is drawn.
    """

    root: Path
    films: pd.DataFrame
    labels: tuple[str, ...]
    fractions: tuple[float, float, float] = (0.9, 0.1, 0.0)


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
    parts = [_csv_table(folder / name, "" if split == "train" else split, labels, options, problems)
             for split, name in tables.items() if (folder / name).is_file()]
    if options.split in ("seeded", "paper"):
        parts = [part.assign(split="") for part in parts]
    elif (folder / "valid.csv").is_file():  # else valid is drawn from the training patients
        parts[0]["split"] = "train"
    films = pd.concat(parts, ignore_index=True)
    root, files = locate(folder, films["path"])
    films.insert(1, "file", files)
    return Source(root, translated(films, labels, wanted), wanted)


def _require_train(folder: Path, name: str) -> None:
    if (folder / name).is_file():
        return
    inside = [found.parent.name for found in sorted(folder.glob(f"*/{name}"))]
    hint = f"did you mean {folder / inside[0]}?" if inside else "is this the unpacked data set?"
    raise InputError(f"{folder}: no {name} in this folder; {hint}")


def _csv_table(path: Path, split: str, labels: Sequence[str], options: Options, problems: Problems) -> pd.DataFrame:
    table = read_table(path, codes=(*labels, "Sex", "Age", "Frontal/Lateral", "AP/PA"))
    require_columns(path, table, ("Path", *labels), "Is this a CheXpert CSV?")
    paths, rows = table["Path"].to_numpy(), table.index.to_numpy()
    check_paths(path.name, paths, rows, options, problems)
    found = table["Path"].str.extract(_PATIENT)
    patient = _named(table, "Patient", found[0])
    folders = pd.Series([key(name).rpartition("/")[0] for name in paths], index=table.index)
    study = _named(table, "Study", folders.where(found[0].notna(), table["Path"]))
    problems.say("no patient", (patient.isna() | (patient == "")).to_numpy(), lambda place: (
        f"{path.name}, row {rows[place]}: Path is {paths[place]!r}; expected .../patientN/studyN/viewN_frontal.jpg "
        "or a column Patient"), REFUSED)
    lateral = table["Path"].str.contains(r"lateral[^/]*$", case=False)
    named = pd.Series(np.where(lateral, "Lateral", "Frontal"), index=table.index)
    films = pd.DataFrame({
        "path": paths, "patient": patient.fillna("").to_numpy(), "study": study.to_numpy(),
        "view": few(table, "Frontal/Lateral", _VIEWS, path.name, problems, named),
        "projection": few(table, "AP/PA", _PROJECTIONS, path.name, problems, ""),
        "sex": few(table, "Sex", SEXES, path.name, problems, "Unknown"),
        "age": ages(table, "Age", path.name, problems), "split": split, "row": rows, "table": path.name})
    raw = codes(table, path.name, labels, problems)
    return pd.concat([films, pd.DataFrame(raw, columns=list(labels))], axis=1)


_VIEWS = {"frontal": "Frontal", "lateral": "Lateral"}
_PROJECTIONS = {"ap": "AP", "pa": "PA", "ll": "LL", "rl": "RL", "": ""}
SEXES = {"male": "Male", "m": "Male", "female": "Female", "f": "Female", "unknown": "Unknown", "": "Unknown",
          "u": "Unknown", "o": "Unknown", "other": "Unknown"}


def check_paths(name: str, paths: np.ndarray, rows: np.ndarray, options: Options, problems: Problems) -> None:
    """Refuse blank paths and paths that leave the data folder."""
    problems.say("no path", paths == "", lambda place: (
        f"{name}, row {rows[place]}: Path is blank; expected a film's path"), REFUSED)
    leaves = pd.Series(paths).str.contains(_OUTSIDE).to_numpy(bool) & (not options.allow_outside)
    problems.say("path leaves the data folder", leaves, lambda place: (
        f"{name}, row {rows[place]}: Path is {paths[place]!r}, which leaves the data folder; expected a path below it "
        "(--allow-outside if you trust this file)"), REFUSED)


def _named(table: pd.DataFrame, column: str, otherwise: pd.Series) -> pd.Series:
    return table[column].str.strip() if column in table.columns else otherwise


def few(table: pd.DataFrame, column: str, meanings: dict[str, str], name: str, problems: Problems,
         otherwise: object) -> np.ndarray:
    """A column with few values, each with its meaning (lower case -> meaning); `otherwise` where it is missing."""
    if column not in table.columns:
        return np.broadcast_to(np.asarray(otherwise, object), (len(table),))
    texts = table[column].cat.categories
    known = np.array([meanings.get(text.strip().lower()) for text in texts], object)
    places = table[column].cat.codes.to_numpy()
    values = known[places]
    expected = ", ".join(dict.fromkeys(meaning for meaning in meanings.values() if meaning))
    problems.say(f"unknown {column}", values == None, lambda place: (  # noqa: E711
        f"{name}, row {table.index[place]}: {column} is {texts[places[place]]!r}; expected {expected}"), REFUSED)
    return np.where(values == None, "", values)  # noqa: E711


def ages(table: pd.DataFrame, column: str, name: str, problems: Problems) -> np.ndarray:
    """Years, float32; blank is NaN; ChestX-ray14's first edition writes 060Y, 013M and 002D."""
    if column not in table.columns:
        return np.full(len(table), np.nan, np.float32)
    texts = table[column].cat.categories
    years = np.array([_years(text.strip()) for text in texts], np.float32)
    places = table[column].cat.codes.to_numpy()
    problems.say("unknown age", np.isinf(years[places]), lambda place: (
        f"{name}, row {table.index[place]}: {column} is {texts[places[place]]!r}; expected years or blank"), REFUSED)
    return np.where(np.isinf(years), np.nan, years)[places].astype(np.float32)


def _years(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([YMWD]?)", text, re.ASCII)
    if not match or len(match[1]) > 12:
        return np.nan if text.lower() in ("", "nan") else np.inf
    return float(match[1]) / {"": 1, "Y": 1, "M": 12, "W": 52.18, "D": 365.25}[match[2]]


def codes(table: pd.DataFrame, name: str, labels: Sequence[str], problems: Problems) -> np.ndarray:
    """float32 (rows, labels): 1, 0, -1 or NaN (blank)."""
    raw = np.empty((len(table), len(labels)), np.float32)
    for column, label in enumerate(labels):
        values = np.array([_code(text) for text in table[label].cat.categories], np.float32)
        raw[:, column] = values[table[label].cat.codes.to_numpy()]
    wrong = np.isinf(raw)
    width = max(len(labels), 1)
    problems.say("impossible code", wrong.ravel(), lambda place: (  # row by row, so that the first row comes first
        f"{name}, row {table.index[place // width]}: {labels[place % width]} is "
        f"{table[labels[place % width]].iloc[place // width]}; expected 1, 0, -1 or blank. Is this a CheXpert CSV?"),
        REFUSED)
    return np.where(wrong, np.float32(np.nan), raw)


def _code(text: str) -> float:
    text = text.strip()
    if text.lower() in ("", "nan"):
        return np.nan
    try:
        value = float(text)
    except ValueError:
        return np.inf
    return value if value in (1.0, 0.0, -1.0) else np.inf


def locate(folder: Path, paths: pd.Series) -> tuple[Path, list[str]]:
    """Where the films lie: paths without their first part below `folder`, or whole below its parent or `folder`."""
    names = paths.tolist()
    whole = (folder.resolve().parent, folder)
    sample = names[:: max(len(names) // 50, 1)]
    if not any(is_file(folder, key(name)) for name in sample):
        for root in whole:
            if any(is_file(root, name) for name in sample):
                return root, names
    return folder, [key(name) for name in names]


def is_file(root: Path, name: str) -> bool:
    """Whether there is a file `name` below `root`; False for what is no file name."""
    try:
        return bool(name) and (root / name).is_file()
    except (OSError, ValueError):
        return False


def translated(films: pd.DataFrame, labels: Sequence[str], wanted: Sequence[str]) -> pd.DataFrame:
    """Replace the label columns by the wanted ones, across data sets where they differ."""
    if tuple(labels) == tuple(wanted):
        return films
    raw = films[list(labels)].to_numpy(np.float32)
    raw = hbce_outputs(raw, labels) if tuple(wanted) == HBCE_TREE.labels else translate(raw, labels, wanted)
    rest = films.drop(columns=list(labels))
    return pd.concat([rest, pd.DataFrame(raw, columns=list(wanted), index=rest.index)], axis=1)
