"""The films of a job: a folder, a Parquet or a CSV file, kept as Parquet parts of blocks with one integer id a film.

Whatever the source, only a portion of the list is in memory at a time, besides eight bytes a film where the source
brings ids of its own. Paths are in their written form (`paths.escaped`).
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..finished.asked import FILM_SUFFIXES
from ..paths import escaped
from .places import Place, at

COLUMNS = ("id", "path", "name", "view")
PATHS, VIEWS = ("Path", "path"), ("Frontal/Lateral", "view")
EXPECTED = "a folder of films, or a .parquet or .csv file with a column Path"
PORTION = 10_000  # rows of a source read at a time
BLOCKS_A_PART = 100  # so that no part's footer grows large: each block is a row group
# Ray's recovery knows files by their beginning, uuid_000000 with six digits: a seventh would make one the beginning of
# another (ray 2.60, checkpoint/util.py, PrefixTrie).
MOST_BLOCKS = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """The list of films that a job keeps.

    Attributes:
        place: the folder with its parts.
        rows: how many films.
        rows_per_block: how many of them are one unit of work and one output file; the last may have fewer.
    """

    place: Place
    rows: int
    rows_per_block: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.rows // self.rows_per_block)

    def rows_in(self, block: int) -> int:
        """How many films a block holds."""
        return min(self.rows_per_block, self.rows - block * self.rows_per_block)

    def block(self, number: int) -> Any:
        """The films of one block as a pyarrow table: id int64, path, name and view as text."""
        from pyarrow import parquet

        with self.place.system.open(self._part(number // BLOCKS_A_PART), "rb") as handle:
            return parquet.ParquetFile(handle).read_row_group(number % BLOCKS_A_PART)

    def ids(self) -> np.ndarray:
        """All ids, int64 (rows,), in the order of the list."""
        from pyarrow import parquet

        parts = []
        for part in range(-(-self.blocks // BLOCKS_A_PART)):
            with self.place.system.open(self._part(part), "rb") as handle:
                parts.append(parquet.read_table(handle, columns=["id"])["id"].to_numpy())
        return np.concatenate(parts)

    def _part(self, number: int) -> str:
        return (self.place / f"{number:06d}.parquet").path


@dataclass(frozen=True)
class Source:
    """Where the films are named.

    Attributes:
        address: as given on the command line.
        every_file: of a folder take every file, whatever its name (a DICOM archive).
    """

    address: str
    every_file: bool = False

    @property
    def kind(self) -> str:
        """"folder", "parquet" or "csv"."""
        ending = os.path.splitext(self.address)[1].lower()
        return ending[1:] if ending in (".parquet", ".csv") else "folder"

    def fingerprint(self) -> str:
        """SHA-256 of a manifest file's bytes; of a folder its address, for its films may come and go.

        Raises:
            InputError: nothing is there.
        """
        place = at(self.address)
        if not place.exists():
            raise InputError(f"{self.address}: no such file or folder; expected {EXPECTED}")
        if self.kind == "folder":
            return hashlib.sha256(str(place).encode("utf-8", "surrogateescape")).hexdigest()
        digest = hashlib.sha256()
        with place.system.open(place.path, "rb") as handle:
            while data := handle.read(1 << 22):
                digest.update(data)
        return digest.hexdigest()


def make(source: Source, out: Place, rows_per_block: int) -> Manifest:
    """List the films of a source into parts below `out`.

    Args:
        source: where the films are named.
        out: folder for the parts; what another attempt left there is overwritten.
        rows_per_block: films in a unit of work.

    Raises:
        InputError: no film there, a blank path, or ids that are no integers, missing or not unique.
    """
    for old in out.files(".parquet"):
        old.remove()
    found = {"folder": _of_folder, "parquet": _of_parquet, "csv": _of_csv}[source.kind](source)
    rows, ids = 0, _Ids(source.address)
    for number, part in enumerate(_regrouped(found, rows_per_block * BLOCKS_A_PART)):
        table = _table(part, rows, ids)
        (out / f"{number:06d}.parquet").write(_as_parquet(table, rows_per_block))
        rows += len(table)
    if not rows:
        raise InputError(f"{source.address}: no film there; expected files ending in {', '.join(FILM_SUFFIXES)}, or a "
                         "manifest with rows")
    ids.check()
    manifest = Manifest(out, rows, rows_per_block)
    if manifest.blocks >= MOST_BLOCKS:
        raise InputError(f"{rows:,} films in files of {rows_per_block:,} rows are {manifest.blocks:,} files; expected "
                         f"fewer than {MOST_BLOCKS:,}; choose a larger --rows-per-file")
    return manifest


# Rows as columns of equal length: own ids (or None), paths as fsspec opens them, names in the output, views.
Rows = tuple[np.ndarray | None, list[str], list[str], list[str]]


class _Ids:
    """Ids that a source brings: unique integers, or none at all."""

    def __init__(self, address: str):
        self.address, self.last, self.rising, self.seen = address, None, True, []

    def add(self, ids: np.ndarray) -> None:
        edges = ids if self.last is None else np.r_[self.last, ids]
        self.rising &= bool((np.diff(edges) > 0).all())
        self.last = ids[-1]
        self.seen.append(ids)

    def check(self) -> None:
        if self.rising:
            return
        together = np.sort(np.concatenate(self.seen))
        twice = together[1:][np.diff(together) == 0]
        if len(twice):
            raise InputError(f"{self.address}: id {twice[0]} occurs more than once ({len(twice)} such); expected each "
                             "film's own id, or no column id")


def _table(part: Rows, start: int, ids: _Ids) -> Any:
    import pyarrow

    own, paths, names, views = part
    if own is not None:
        ids.add(own)
    numbers = np.arange(start, start + len(paths)) if own is None else own
    texts = [pyarrow.array(column, pyarrow.string()) for column in (paths, names, views)]
    return pyarrow.table([pyarrow.array(numbers, pyarrow.int64()), *texts], names=list(COLUMNS))


def _as_parquet(table: Any, rows_per_block: int) -> bytes:
    from pyarrow import parquet

    text = io.BytesIO()
    parquet.write_table(table, text, row_group_size=rows_per_block, compression="zstd")
    return text.getvalue()


def _regrouped(found: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """Portions of any length as portions of `rows` rows."""
    own, texts = [], ([], [], [])
    for ids, *columns in found:
        own.append(ids)
        for kept, column in zip(texts, columns):
            kept += column
        while len(texts[0]) >= rows:
            together = None if own[0] is None else np.concatenate(own)
            yield together if together is None else together[:rows], *(kept[:rows] for kept in texts)
            own = [None if together is None else together[rows:]]
            texts = tuple(kept[rows:] for kept in texts)
    if texts[0]:
        yield None if own[0] is None else np.concatenate(own), *texts


# ------------------------------------------------------------------------------------------------------ sources

def _of_folder(source: Source) -> Iterator[Rows]:
    place = at(source.address)
    if place.system.isfile(place.path):
        raise InputError(f"{source.address}: is a file; expected {EXPECTED}")
    start = len(place.path.rstrip("/")) + 1
    given = source.address.rstrip("/")
    portion = []
    for path in _files_below(place):
        if source.every_file or _looks_like_film(place, path):
            portion.append(path)
        if len(portion) == PORTION:
            yield _named(place, portion, start, given)
            portion = []
    if portion:
        yield _named(place, portion, start, given)


def _named(place: Place, paths: list[str], start: int, given: str) -> Rows:
    """Films of a folder under the names that `predict` gives them: the folder as it was typed, and the path below."""
    full = paths if place.local else [place.system.unstrip_protocol(path) for path in paths]
    names = [escaped(f"{given}/{path[start:]}".removeprefix("./")) for path in paths]
    return None, [escaped(path) for path in full], names, [""] * len(paths)


def _files_below(place: Place) -> Iterator[str]:
    """Every file below a folder, each folder's by name; hidden ones are left out."""
    folders = [place.path]
    while folders:
        folder = folders.pop()
        inner, files = _entries(place, folder)
        yield from files
        folders += reversed(inner)


def _entries(place: Place, folder: str) -> tuple[list[str], list[str]]:
    if place.local:  # names only: a flat folder may hold millions
        with os.scandir(folder) as entries:
            both = [(entry.path, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    else:
        both = [(entry["name"], entry["type"] == "directory") for entry in place.system.ls(folder, detail=True)
                if entry["name"].rstrip("/") != folder.rstrip("/")]
        both = [(path, inner) for path, inner in both if not os.path.basename(path).startswith(".")]
    both.sort()
    return [path for path, inner in both if inner], [path for path, inner in both if not inner]


def _looks_like_film(place: Place, path: str) -> bool:
    """By its ending; without any, as archives write DICOM, by its mark; as `predict` does in a folder."""
    ending = os.path.splitext(path)[1]
    if ending:
        return ending.lower() in FILM_SUFFIXES
    try:
        return place.system.cat_file(path, start=128, end=132) == b"DICM"
    except OSError:
        return False


def _of_parquet(source: Source) -> Iterator[Rows]:
    from pyarrow import ArrowException, parquet

    place = at(source.address)
    try:
        with place.system.open(place.path, "rb") as handle:
            file = parquet.ParquetFile(handle)
            columns = _columns(source.address, file.schema_arrow.names)
            for batch in file.iter_batches(PORTION, columns=[name for name in columns if name]):
                yield _of_batch(source.address, place, batch, columns)
    except ArrowException as error:
        raise InputError(f"{source.address}: cannot be read as Parquet ({_line(error)})") from None


def _of_csv(source: Source) -> Iterator[Rows]:
    from pyarrow import ArrowException, csv, string

    place = at(source.address)
    try:
        with place.system.open(place.path, "rb") as handle:
            header = csv.open_csv(handle).schema.names
        columns = _columns(source.address, header)
        used = [name for name in columns if name]
        options = csv.ConvertOptions(include_columns=used, strings_can_be_null=False,
                                     column_types={name: string() for name in used})
        with place.system.open(place.path, "rb") as handle:
            for batch in csv.open_csv(handle, convert_options=options):
                yield _of_batch(source.address, place, batch, columns)
    except ArrowException as error:
        raise InputError(f"{source.address}: cannot be read as CSV ({_line(error)})") from None


class _Columns(NamedTuple):
    """The columns with path, id and view; "" for the last two where there is none."""

    path: str
    own: str
    view: str


def _columns(address: str, names: list[str]) -> _Columns:
    path, view = (next((name for name in known if name in names), "") for known in (PATHS, VIEWS))
    if not path:
        raise InputError(f"{address}: has no column Path ({', '.join(names[:6])}); expected a manifest of films")
    return _Columns(path, "id" if "id" in names else "", view)


def _of_batch(address: str, place: Place, batch: Any, columns: _Columns) -> Rows:
    path, own, view = columns
    names = batch.column(path).to_pylist()
    if not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{address}: a Path is blank; expected each film's path")
    views = [_view(text) for text in batch.column(view).to_pylist()] if view else [""] * len(names)
    ids = _integers(address, batch.column(own)) if own else None
    return ids, _opened(address, place, names), [escaped(name) for name in names], views


def _integers(address: str, column: Any) -> np.ndarray:
    import pyarrow

    try:
        if column.null_count:
            raise pyarrow.ArrowInvalid("one is missing")
        return column.cast(pyarrow.int64()).to_numpy()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{address}: the column id is no column of integers ({_line(error)}); expected one integer a "
                         "film, or no column id") from None


def _view(text: str | None) -> str:
    view = (text or "").strip().capitalize()
    return view if view in ("Frontal", "Lateral") else ""


def _opened(address: str, place: Place, names: list[str]) -> list[str]:
    """Paths of a manifest as fsspec opens them: addresses and absolute ones as they are, others below its folder.

    CheXpert's own tables name their folder first; where the films lie below the table's folder without it, it goes.
    """
    folder = at(os.path.dirname(place.path) if place.local else str(place).rsplit("/", 1)[0])
    whole = [name for name in names[:: max(len(names) // 20, 1)] if not _absolute(name)]
    above = at(os.path.dirname(folder.path)) if place.local else folder
    roots = [(folder, False), (folder, True), (above, False)]
    base, cut = next(((root, cut) for root, cut in roots if any((root / _cut(name, cut)).exists() for name in whole)),
                     roots[0])
    start = str(base)
    return [escaped(name if _absolute(name) else f"{start}/{_cut(name, cut)}") for name in names]


def _cut(name: str, cut: bool) -> str:
    return name.split("/", 1)[-1] if cut else name


def _absolute(name: str) -> bool:
    return "://" in name or name.startswith("/")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

