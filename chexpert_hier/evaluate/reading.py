"""Prediction, truth and meta files: read whole, with a key column, numbers that are numbers, and no column twice."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.tables import read_table
from ..errors import InputError
from ..labels import key
from . import names

log = logging.getLogger("chexpert_hier.evaluate")

BLANK = {"", "nan", "NaN", "NA", "N/A", "None", "null", "NULL"}


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a file of scores: a key column (Path or Study) and one column of numbers per label.

    Raises:
        InputError: no such file, no key column, the same column twice, or a score that is not a finite number.
    """
    return _with_numbers(_read(path), "score")


def read_truth(path: str | Path) -> pd.DataFrame:
    """Read a file of truths: a key column and one column per label with 1, 0, -1 (uncertain) or blank.

    Raises:
        InputError: no such file, no key column, or the same column twice.
    """
    return _with_numbers(_read(path), "truth")


def read_meta(path: str | Path) -> pd.DataFrame:
    """Read a file about films, studies or patients: key column Path, Study or Patient, any others (Sex, Age, site).

    Raises:
        InputError: no such file, no key column, or nothing beside it.
    """
    table = _table(path)
    patient = next((c for c in table.columns if names.plain(c) in names.PATIENT_COLUMNS), None)
    films = any(names.plain(c) in names.KEY_COLUMNS for c in table.columns)
    table.attrs["key"] = patient if patient and not films else names.key_column(table.columns, str(path))
    if len(table.columns) < 2:
        raise InputError(f"{path}: only the column {table.columns[0]}; expected others beside it, such as Sex or Age")
    return table.reset_index(drop=True)


def ensemble(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of several files' scores, cell by cell: what an ensemble of their models answers.

    Args:
        tables: from `read_predictions`, of the same films or studies, in any order of rows and columns.

    Returns:
        a table like the first one, of the labels that all have. Where scores leave [0, 1] `attrs["notes"]` says so:
        their mean is one of raw scores, in which the widest range counts most.

    Raises:
        InputError: fewer than two tables, other films in one of them, or no label that all have.

    Source: Pham et al. 2019, section 4.4 (the mean of the models' outputs; deviations E2).
    """
    if len(tables) < 2:
        raise InputError("--ensemble takes the mean of several files of predictions; received one")
    sources = [table.attrs.get("source", f"predictions {place + 1}") for place, table in enumerate(tables)]
    columns = [_score_columns(table, source) for table, source in zip(tables, sources)]
    common = [name for name in columns[0] if all(name in found for found in columns)]
    if not common:
        raise InputError(f"{sources[0]}: no label that all {len(tables)} files of predictions have")
    key_column = names.key_column(tables[0].columns, sources[0])
    keys, total, outside = tables[0][key_column].map(key), np.zeros((len(tables[0]), len(common))), {}
    for table, source, found in zip(tables, sources, columns):
        theirs = table[names.key_column(table.columns, source)].map(key)
        if len(theirs) != len(keys) or set(theirs) != set(keys) or theirs.duplicated().any():
            raise InputError(f"{source}: other films than {sources[0]}, or one of them twice; an ensemble needs the "
                             "same ones in all files")
        scores = table.set_index(theirs)[[found[name] for name in common]].loc[keys].to_numpy(float)
        outside[source] = int(((scores < 0) | (scores > 1)).sum())
        total += scores
    answer = pd.DataFrame(total / len(tables), columns=[columns[0][name] for name in common])
    answer.insert(0, key_column, tables[0][key_column].to_numpy())
    answer.attrs |= {"source": f"ensemble of {len(tables)}", "notes": _not_probabilities(outside, total.size)}
    return answer


def _not_probabilities(outside: Mapping[str, int], cells: int) -> list[str]:
    told = [f"{source} ({count:,} of {cells:,})" for source, count in outside.items() if count]
    return [f"The ensemble is a mean of raw scores, for some leave [0, 1]: {', '.join(told)}. Systems with a wider "
            "range count more in it; give probabilities of all, or leave these out."] if told else []


def _score_columns(table: pd.DataFrame, source: str) -> dict[str, str]:
    return {name: column for name, column in names.label_columns(table.columns, source).items()
            if pd.api.types.is_numeric_dtype(table[column])}


def _table(path: str | Path) -> pd.DataFrame:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected a CSV with a column Path or Study and one column per label")
    table = read_table(path)
    table.attrs["source"] = str(path)
    return table


def _read(path: str | Path) -> pd.DataFrame:
    table = _table(path)
    names.key_column(table.columns, str(path))
    return table


def _with_numbers(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    for column in names.label_columns(table.columns, table.attrs["source"], kind).values():
        if _is_number_like(table[column]):
            table[column] = _numbers(table, column)
    return table.reset_index(drop=True)


def _is_number_like(cells: pd.Series) -> bool:
    """Whether a column holds numbers or blanks at all; a column of words is no label column."""
    filled = cells[~cells.isin(BLANK)]
    return bool(filled.empty or pd.to_numeric(filled, errors="coerce").notna().mean() > 0.5)


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    cells = table[column].str.strip()
    values = pd.to_numeric(cells.where(~cells.isin(BLANK)), errors="coerce").astype(float)
    bad = values.isna() & ~cells.isin(BLANK)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{where(table, row)}: {column} is {cells.iloc[row]!r}; expected a number")
    return values


def where(table: pd.DataFrame, row: int) -> str:
    """A row of a table as a person finds it: file, row as a spreadsheet counts (the header is row 1), key.

    Args:
        table: of `read_predictions` or `read_truth`, or any other with a key column, whose first row then counts as 2.
        row: its place, from 0.
    """
    source = table.attrs.get("source", "table")
    number = table.index[row] if table.index.name == "row" else row + 2
    return f"{source}, row {number} ({table[names.key_column(table.columns, source)].iloc[row]})"
