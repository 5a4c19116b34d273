"""Prediction and truth files: read whole, with a key column, numbers that are numbers, and no column twice."""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..labels import key
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


def ensemble(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of several files' scores, cell by cell: what an ensemble of their models answers.

    Args:
        tables: from `read_predictions`, of the same films or studies, in any order of rows and columns.

    Returns:
        a table like the first one, of the labels that all have.

    Raises:
        InputError: fewer than two tables, other films in one of them, or no label that all have.

    Source: Pham et al. 2019, section 4.4 (the mean of the models' outputs; deviations E2).
    """
    if len(tables) < 2:
        raise InputError("--ensemble takes the mean of several files of predictions; received one")
    sources = [table.attrs.get("source", f"predictions {place + 1}") for place, table in enumerate(tables)]
    columns = [{name: column for name, column in names.label_columns(table.columns, source).items()
                if pd.api.types.is_numeric_dtype(table[column])} for table, source in zip(tables, sources)]
    common = [name for name in columns[0] if all(name in found for found in columns)]
    if not common:
        raise InputError(f"{sources[0]}: no label that all {len(tables)} files of predictions have")
    key_column = names.key_column(tables[0].columns, sources[0])
    keys, total = tables[0][key_column].map(key), 0.0
    for table, source, found in zip(tables, sources, columns):
        theirs = table[names.key_column(table.columns, source)].map(key)
        if len(theirs) != len(keys) or set(theirs) != set(keys) or theirs.duplicated().any():
            raise InputError(f"{source}: other films than {sources[0]}, or one of them twice; an ensemble needs the "
                             "same ones in all files")
        total = total + table.set_index(theirs)[[found[name] for name in common]].loc[keys].to_numpy(float)
    answer = pd.DataFrame(total / len(tables), columns=[columns[0][name] for name in common])
    answer.insert(0, key_column, tables[0][key_column].to_numpy())
    answer.attrs["source"] = f"ensemble of {len(tables)}"
    return answer


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
