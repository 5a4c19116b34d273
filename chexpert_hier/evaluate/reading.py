"""Prediction and truth files: read whole, with a key column, numbers that are numbers, and no column twice."""

import logging
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from . import names

log = logging.getLogger("chexpert_hier.evaluate")
def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a file of scores: a key column (Path or Study) and one column of numbers per label.

    Raises:
        InputError: no such file, no key column, the same column twice, or a score that is not a finite number.
    """
    table = _read(path)
    for column in names.label_columns(table.columns, table.attrs["source"]).values():
        if _is_number_like(table[column]):
            table[column] = _numbers(table, column)
    return table


def read_truth(path: str | Path) -> pd.DataFrame:
    """Read a file of truths: a key column and one column per label with 1, 0, -1 (uncertain) or blank.

    Raises:
        InputError: no such file, no key column, or the same column twice.
    """
    table = _read(path)
    for column in names.label_columns(table.columns, table.attrs["source"], "truth").values():
        if _is_number_like(table[column]):
            table[column] = _numbers(table, column)
    return table


def _read(path: str | Path) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV with a column Path or Study and one column per label")
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, encoding="utf-8-sig").iloc[0].tolist()
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, zipfile.BadZipFile, EOFError,
            OSError) as error:
        raise InputError(f"{path}: cannot be read as a CSV ({str(error).splitlines()[0].strip()})") from error
    twice = {str(c) for c in header if header.count(c) > 1 and c == c}
    if twice:
        raise InputError(f"{path}: column {sorted(twice)[0]!r} appears twice; keep one of them")
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    table.attrs["source"] = str(path)
    names.key_column(table.columns, str(path))
    return table


BLANK = {"", "nan", "NaN", "NA", "N/A", "None", "null", "NULL"}


def _is_number_like(cells: pd.Series) -> bool:
    """Whether a column holds numbers or blanks at all; a column of words is no label column."""
    filled = cells[~cells.isin(BLANK)]
    return filled.empty or pd.to_numeric(filled, errors="coerce").notna().mean() > 0.5


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    cells = table[column].str.strip()
    values = pd.to_numeric(cells.where(~cells.isin(BLANK)), errors="coerce").astype(float)
    bad = values.isna() & ~cells.isin(BLANK)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{where(table, row)}: {column} is {cells.iloc[row]!r}; expected a number")
    return values


def where(table: pd.DataFrame, row: int) -> str:
    """A row of a table as a person finds it: file, row below the header counted from 1, key."""
    source = table.attrs.get("source", "table")
    return f"{source}, row {row + 1} ({table[names.key_column(table.columns, source)].iloc[row]})"
