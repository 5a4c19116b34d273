"""CSV files as tables of text with row numbers, and what is wrong with them.

A row's number is the one a spreadsheet shows: the header is row 1, the first film row 2; a quoted line break is not
counted.
"""

import csv
import difflib
import gzip
import io
import logging
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError

LOG = logging.getLogger("chexpert_hier.datasets")
EXAMPLES = 5  # how many of each kind of problem a report shows


@dataclass
class Problems:
    """Where a reader says what is wrong: the first one ends the work (InputError), or all are gathered for a report.

    Attributes:
        stop: raise at the first problem.
        found: kind -> {"kind", "count", "examples", "action", "level"}; what is counted are rows, cells or films; the
            level is "error" (a run refuses it, or should) or "note".
    """

    stop: bool = True
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def say(self, kind: str, where: np.ndarray, message: Callable[[int], str], action: str) -> None:
        """Report the places `where` holds True.

        Args:
            kind: short name of the problem.
            where: bool (n,).
            message: place -> one line: where, expected, received.
            action: what a run does about it, e.g. "refused".
        """
        places = np.flatnonzero(where)
        if not len(places):
            return
        if self.stop:
            raise InputError(message(int(places[0])) + (f" ({len(places)} such)" if len(places) > 1 else ""))
        self.add(kind, len(places), [message(int(place)) for place in places[:EXAMPLES]], action)

    def add(self, kind: str, count: int, examples: Sequence[str], action: str, level: str = "error") -> None:
        """Add to a report without ending the work."""
        entry = self.found.setdefault(kind, {"kind": kind, "count": 0, "examples": [], "action": action,
                                             "level": level})
        entry["count"] += count
        entry["examples"] = [*entry["examples"], *examples][:EXAMPLES]


def read_table(path: str | os.PathLike[str], *, codes: Sequence[str] = (), width: int | None = None,
               keep: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a CSV file (UTF-8 with or without mark, any line ends, .gz too) as text.

    A header without a comma is read with its semicolons or tabs, as spreadsheets in some languages write them.

    Args:
        path: the file.
        codes: columns with few different values, which become categories.
        width: number of columns where the header has another number than the rows (ChestX-ray14's boxes).
        keep: only these columns, where there are such (a table of reports is large).

    Returns:
        one str column per header field (empty cells are ""), the index is the row number (header = 1).

    Raises:
        InputError: no such file, empty, not UTF-8, no rows, a column named twice, or a row of another length.
    """
    path = Path(path)
    text = _text(path)
    first, _, body = text.partition("\n")
    mark = _separator(path, first)
    header, body = _quoted(path, text, mark) if '"' in first else (first.split(mark), body)
    header = _header(path, header, width)
    rows = _row_numbers(path, body, len(header), mark)
    if not len(rows):
        raise InputError(f"{path.name}: no rows below the header; expected one row per film")
    table = _parsed(path, body, header, mark, keep)
    if len(table) != len(rows):
        raise InputError(f"{path.name}: {len(rows)} lines but {len(table)} rows; is a quotation mark left open?")
    table.index = pd.Index(rows, name="row")
    return table.astype({name: "category" for name in table.columns if name in codes})


def _parsed(path: Path, body: str, header: list[str], mark: str, keep: Sequence[str] | None) -> pd.DataFrame:
    kept = [place for place, name in enumerate(header) if keep is None or name in keep] or None
    try:
        return pd.read_csv(io.StringIO(body), header=None, names=header, na_filter=False, index_col=False,
                           dtype=object, sep=mark, usecols=kept)
    except (pd.errors.ParserError, ValueError) as error:
        raise InputError(f"{path.name}: not a readable CSV ({' '.join(str(error).split())})") from None


def _separator(path: Path, header: str) -> str:
    mark = next((mark for mark in (",", ";", "\t") if mark in header), ",")
    if mark != ",":
        LOG.info("%s: read with %s between the cells", path.name, "semicolons" if mark == ";" else "tabs")
    return mark


def plainly_named(table: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The table with columns that are named as expected but for case and blanks ("path", "No finding") so renamed."""
    theirs = {_plain(name): name for name in table.columns}
    return table.rename(columns={theirs[_plain(name)]: name for name in names
                                 if name not in table.columns and _plain(name) in theirs})


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in " _-")


def require_columns(path: str | os.PathLike[str], table: pd.DataFrame, names: Sequence[str], what: str) -> None:
    """Refuse a table that lacks columns, naming all of them.

    Raises:
        InputError: a column is missing.
    """
    missing = [name for name in names if name not in table.columns]
    if missing:
        meant = [near for name in missing for near in difflib.get_close_matches(name, list(table.columns), 1)]
        hint = f" Did you mean {', '.join(meant)}?" if meant else ""
        raise InputError(f"{Path(path).name}: no column {', '.join(missing)}; found {', '.join(table.columns)}.{hint} "
                         f"{what}")


def _bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a CSV file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: the compressed file is damaged; unpack or download it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from None


def _text(path: Path) -> str:
    content = _bytes(path)
    if not content.strip():
        raise InputError(f"{path}: is empty; expected a CSV file with a header")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path.name}, row {line}: not UTF-8; expected a CSV file as plain text (UTF-8)") from None
    if "\0" in text:
        raise InputError(f"{path.name}, row {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds a zero byte; "
                         "expected a CSV file as plain text")
    if "\r" not in text:
        return text
    # A line end between quotation marks belongs to a name; the others may be of any kind.
    return '"'.join(part if place % 2 else part.replace("\r\n", "\n").replace("\r", "\n")
                    for place, part in enumerate(text.split('"')))


def _header(path: Path, header: list[str], width: int | None) -> list[str]:
    names = [name.strip() for name in header][:width]
    names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{path.name}: the header names {', '.join(twice)} twice; expected each column once")
    return names


def _row_numbers(path: Path, body: str, width: int, mark: str) -> np.ndarray:
    """Check that all rows have `width` fields; their numbers, blank lines left out."""
    if '"' in body:
        return _parsed_rows(path, body, width, mark)
    data = np.frombuffer((body if body.endswith("\n") else body + "\n").encode(), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    lengths = np.diff(ends, prepend=-1) - 1
    commas = np.diff(np.searchsorted(np.flatnonzero(data == ord(mark)), ends), prepend=0)
    if ((commas + 1 != width) & (lengths > 0)).any() or width == 1:
        return _parsed_rows(path, body, width, mark)  # slower, finds the row
    return np.flatnonzero(lengths > 0) + 2


def _parsed_rows(path: Path, body: str, width: int, mark: str) -> np.ndarray:
    rows = []
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(body, newline=""), delimiter=mark), 2):
            if len(cells) == width and (width > 1 or cells[0].strip()):
                rows.append(number)
            elif any(cell.strip() for cell in cells) or len(cells) > 1:
                raise InputError(f"{path.name}, row {number}: {len(cells)} fields; expected {width} as in the header. "
                                 "Is the file cut off or edited?")
    except csv.Error as error:
        raise InputError(f"{path.name}: not a readable CSV ({error})") from None
    return np.array(rows, int)


def _quoted(path: Path, text: str, mark: str) -> tuple[list[str], str]:
    """Split off a header with quotation marks; it may span lines."""
    lines = io.StringIO(text, newline="")
    try:
        header = next(csv.reader(lines, delimiter=mark))
    except csv.Error as error:
        raise InputError(f"{path.name}: not a readable CSV ({error})") from None
    return header, lines.read()
