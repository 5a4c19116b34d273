"""Which rows count: a file of results counts when its checkpoint is committed and both are whole.

Ray Data writes for each block first a pending checkpoint (`X.pending.parquet`, the ids), then the rows (`X-0.parquet`),
then renames the checkpoint to `X.parquet`; what it finds pending on resuming it removes with its rows
(ray-project/ray#61821). This module closes what that leaves open: a rename in an object store is a copy and a removal,
between which a job may die; a machine without power may lose what was written last; and workers outlive a killed driver
by some seconds, in which they may still write.
"""

import contextlib
import io
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .places import Place

log = logging.getLogger("chexpert_hier.archive")

RESULTS, CHECKPOINT, BEGUN = "results", "checkpoint", "begun"
PENDING, ROWS = ".pending.parquet", "-0.parquet"
READERS = 16  # files looked at at the same time; each is a request where the folder is an object store


@dataclass(frozen=True)
class Counted:
    """A file's rows and how many of them are films with an error."""

    rows: int
    errors: int


class ResultStore:
    """The result files of a job and their checkpoints.

    Attributes:
        out: the job's folder.
    """

    def __init__(self, out: Place):
        self.out = out
        self._counted: dict[str, Counted] = {}

    @property
    def results(self) -> Place:
        """The folder with the rows."""
        return self.out / RESULTS

    @property
    def checkpoint(self) -> Place:
        """The folder with the ids that are done."""
        return self.out / CHECKPOINT

    def committed(self) -> list[str]:
        """Names, without endings, of the blocks that count, by name."""
        files = [file.name for file in self.checkpoint.files(".parquet")]
        return [name.removesuffix(".parquet") for name in files if not name.endswith(PENDING)]

    def rows_file(self, name: str) -> Place:
        """The file with a block's rows."""
        return self.results / f"{name}{ROWS}"

    def repair(self) -> int:
        """Make rows and checkpoints fit together, by removing what does not count; nobody else may be writing.

        Returns:
            how many blocks will be scored again because their files were not whole.
        """
        committed = set(self.committed())
        for file in self.results.files():
            if file.name.removesuffix(ROWS) not in committed:
                file.remove()
        for file in [*self.checkpoint.files(PENDING), *(self.out / BEGUN).files()]:
            file.remove()
        broken = [name for name, whole in zip(committed, _each(self._whole, committed)) if not whole]
        for name in broken:
            (self.checkpoint / f"{name}.parquet").remove()
            self.rows_file(name).remove()
        if broken:
            log.warning("%d finished blocks were not whole on the disk; they are scored again", len(broken))
        return len(broken)

    @contextlib.contextmanager
    def in_hand(self, block: int) -> Iterator[int]:
        """Mark a block, by its first id, as in a worker's hand; gives how many workers died with it since `repair`."""
        mark = self.out / BEGUN / str(block)
        try:
            deaths = int(mark.read())
        except (FileNotFoundError, ValueError):
            deaths = 0
        mark.write(str(deaths + 1).encode())
        try:
            yield deaths
        finally:
            mark.remove()

    def done(self) -> Counted:
        """Films that count, and those of them with an error; each file is looked at once in this object's life."""
        new = [name for name in self.committed() if name not in self._counted]
        self._counted |= {name: counted for name, counted in zip(new, _each(self._count, new)) if counted}
        every = self._counted.values()
        return Counted(sum(one.rows for one in every), sum(one.errors for one in every))

    def forget_failed(self) -> int:
        """Take the films with an error out of what counts, so that the job scores them again.

        A death in between loses at most the block in hand, which is then scored again; no film is ever there twice.

        Returns:
            how many films.
        """
        from pyarrow import compute

        forgotten = 0
        for name in self.committed():
            counted = self._count(name)
            if counted is None or not counted.errors:
                continue
            rows = _table(self.rows_file(name))
            good = rows.filter(compute.is_null(rows["error"]))
            other = f"kept_{uuid.uuid4().hex}_000000"
            if len(good):
                self.rows_file(other).write(_parquet(good))
            (self.checkpoint / f"{name}.parquet").remove()
            if len(good):
                (self.checkpoint / f"{other}.parquet").write(_parquet(good.select(["id"])))
            self.rows_file(name).remove()
            self._counted.pop(name, None)
            forgotten += counted.errors
        return forgotten

    def ids(self) -> np.ndarray:
        """The ids of all rows that count, int64, sorted."""
        found = [table["id"].to_numpy() for table in _each(lambda name: _table(self.rows_file(name), ["id"]),
                                                           self.committed())]
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)

    def tables(self, columns: list[str] | None = None) -> Iterator[Any]:
        """The rows that count, file by file, as pyarrow tables."""
        for name in self.committed():
            yield _table(self.rows_file(name), columns)

    def _whole(self, name: str) -> bool:
        rows, ids = (_rows_of(file) for file in (self.rows_file(name), self.checkpoint / f"{name}.parquet"))
        return rows is not None and rows == ids

    def _count(self, name: str) -> Counted | None:
        footer = _footer(self.rows_file(name))
        if footer is None:
            return None
        place = footer.schema.names.index("error")
        groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
        blank = sum(group.column(place).statistics.null_count for group in groups)
        return Counted(footer.num_rows, footer.num_rows - blank)


def _each(look: Callable[[str], Any], names: Iterable[str]) -> Iterable[Any]:
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(look, list(names))


def _footer(file: Place) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        with file.system.open(file.path, "rb") as handle:
            return parquet.ParquetFile(handle).metadata
    except (OSError, ArrowException):
        return None


def _rows_of(file: Place) -> int | None:
    footer = _footer(file)
    return None if footer is None else footer.num_rows


def _table(file: Place, columns: list[str] | None = None) -> Any:
    from pyarrow import parquet

    with file.system.open(file.path, "rb") as handle:
        return parquet.ParquetFile(handle).read(columns=columns)


def _parquet(table: Any) -> bytes:
    from pyarrow import parquet

    text = io.BytesIO()
    parquet.write_table(table, text, compression="zstd")
    return text.getvalue()
