"""What the cells of a data set's tables mean, and where its films lie: shared by all readers."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths as names_of_films
from ..labels import key
from .options import Options
from .tables import Problems

REFUSED = "refused; mend the CSV"
VIEWS = {"frontal": "Frontal", "lateral": "Lateral"}
PROJECTIONS = {"ap": "AP", "pa": "PA", "ll": "LL", "rl": "RL", "": ""}
SEXES = {"male": "Male", "m": "Male", "female": "Female", "f": "Female", "unknown": "Unknown", "": "Unknown",
          "u": "Unknown", "o": "Unknown", "other": "Unknown"}


def film_names(column: pd.Series) -> pd.Series:
    """A column of paths in their written form (see `paths`)."""
    return column.map(names_of_films.canonical).astype(object)


def check_paths(name: str, paths: np.ndarray, rows: np.ndarray, options: Options, problems: Problems) -> None:
    """Refuse blank paths and paths that leave the data folder."""
    problems.say("no path", paths == "", lambda place: (
        f"{name}, row {rows[place]}: Path is blank; expected a film's path"), REFUSED)
    if options.allow_outside:
        return
    leaves = np.array([names_of_films.leaves(names_of_films.unescaped(path)) for path in paths], bool)
    problems.say("path leaves the data folder", leaves, lambda place: (
        f"{name}, row {rows[place]}: Path is {paths[place]!r}, which leaves the data folder; expected a path below it "
        "(--allow-outside if you trust this file)"), REFUSED)


def few(table: pd.DataFrame, column: str, meanings: Mapping[str, str], name: str, problems: Problems,
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
    """Whether there is a file `name` (as written) below `root`; False for what is no file name."""
    try:
        return bool(name) and (root / names_of_films.unescaped(name)).is_file()
    except (OSError, ValueError):
        return False


def listing(folder: Path, places: Sequence[Path], *, stems: bool = False) -> dict[str, str]:
    """Names of the files in some folders, listed once -> where they lie below `folder`; the first of equals.

    Args:
        folder: the data folder.
        places: it or folders in it; those that are not there are passed over.
        stems: by the names without their suffixes.
    """
    found: dict[str, str] = {}
    for place in places:
        if place.is_dir():
            above = "" if place == folder else f"{place.relative_to(folder).as_posix()}/"
            for entry in os.scandir(place):
                name = names_of_films.escaped(entry.name)
                found.setdefault(name.rpartition(".")[0] if stems else name, above + name)
    return found
