"""One worker: it holds the models, takes a block of the list of films, and gives its rows.

While the network answers for one portion of films, threads fetch and decode the next. Imports no Ray: the same code
runs in a test and in an actor.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..films import dicom
from ..finished.asked import Film
from ..finished.members import Views
from ..paths import unescaped
from . import studies
from .apart import Apart
from .places import at

LATERAL = "lateral view; the model knows frontal films only"
MOST_DEATHS = 10
FETCHERS = 8  # threads that fetch and decode; a portion's films are what is held in memory, twice


@dataclass(frozen=True)
class Fetched:
    """A film that was fetched.

    Attributes:
        row: its row in the list of films.
        read: what the engine made of it; None where it has no answer.
        told: columns that say why not (error, skipped), and with studies its study and view.
        seconds: that it took.
    """

    row: dict
    read: Any
    told: dict
    seconds: float


class Worker:
    """Scores blocks.

    Attributes:
        engine: a predict.engine.Engine.
        opening: how it was asked.
        schema: of the rows.
    """

    def __init__(self, engine: Any, opening: "Opening"):
        self.engine, self.opening = engine, opening
        self.schema = _schema(engine, opening.by_study)
        self.pool = ThreadPoolExecutor(FETCHERS)
        self.decode = engine.read

    def score_after(self, deaths: int, block: Any) -> Any:
        """As `score`, for a block that a number of workers had in hand when they died.

        After the first death each film is decoded in a process of its own; after MOST_DEATHS the films are rows with an
        error, for whatever kills the workers is not in a film's decoding, and an archive has to end.
        """
        if not deaths:
            return self.score(block)
        apart = Apart(self.engine.takes_lateral)
        self.decode = apart.read if deaths < MOST_DEATHS else _given_up
        try:
            return self.score(block)
        finally:
            self.decode = self.engine.read
            apart.close()

    def score(self, block: Any) -> Any:
        """The rows of a block of `manifest.Manifest`: one for each of its films, in its order.

        Returns:
            a pyarrow table: id; the columns of `predict`; error (null where there is none),
            model_fingerprint and seconds (fetching and decoding this film, and its share of the answer); with studies
            also study, view and skipped (why it is no film to answer for).
        """
        import pyarrow

        rows = []
        for films in _ahead(self.pool, block.to_pylist(), self.opening.portion, self._fetch):
            rows += self._answer(films)
        columns = [pyarrow.array([row.get(field.name) for row in rows], field.type, from_pandas=True)
                   for field in self.schema]
        return pyarrow.table(columns, schema=self.schema)

    def _fetch(self, row: dict) -> Fetched:
        start = time.perf_counter()
        read, told = None, {}
        try:
            data, view = _bytes(row["path"]), row["view"]
            if self.opening.by_study:
                told, view = self._study(data)
            if not told.get("skipped"):
                read = self.decode(data, Film(Path(row["name"]), row["name"], view))
        except InputError as problem:
            told["error"] = " ".join(str(problem).removeprefix(f"{row['name']}: ").split())
        except MemoryError:
            told["error"] = "too large for this worker's memory"
        return Fetched(row, read, told, time.perf_counter() - start)

    def _study(self, data: bytes) -> tuple[dict, str]:
        """Columns on the study that a file belongs to, and its view."""
        head = studies.header(data)
        view = dicom.view(data) if head.study and not head.other else ""
        lateral = view == "Lateral" and not self.engine.takes_lateral
        other = head.other or (LATERAL if lateral else None)
        return {"study": head.study, "view": view, "skipped": other}, view

    def _answer(self, films: list[Fetched]) -> Iterator[dict]:
        start = time.perf_counter()
        good = [film for film in films if film.read is not None]
        read = [film.read for film in good]
        answers = iter(self.engine.answer(read).table().to_dict("records") if good else ())
        share = (time.perf_counter() - start) / max(len(good), 1)
        for film in films:
            row = {"id": film.row["id"], "Path": film.row["name"], "model_fingerprint": self.opening.fingerprint}
            answer, spent = (next(answers), share) if film.read is not None else ({}, 0.0)
            yield answer | row | film.told | {"seconds": film.seconds + spent}


def _given_up(data: bytes, film: Film) -> None:
    raise InputError(f"{MOST_DEATHS} workers died with its block in hand")


def _bytes(path: str) -> bytes:
    """A film's bytes from wherever it lies.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        return at(unescaped(path)).read()
    except FileNotFoundError:
        raise InputError("no such file") from None
    except IsADirectoryError:
        raise InputError("is a folder; expected a film") from None
    except InputError:
        raise
    except Exception as error:  # each kind of storage has errors of its own
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(f"cannot be read ({reason})") from None


def _schema(engine: Any, by_study: bool) -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float32()
    columns = engine.answer([]).table().columns
    numbers = {"[match]", *(name for name in columns if not name.startswith("[") and name != "Path")}
    answer = [(name, number if name in numbers else text) for name in columns]
    study = [(name, text) for name in ("study", "view", "skipped")] if by_study else []
    end = [("error", text), ("model_fingerprint", text), ("seconds", number)]
    return pyarrow.schema([("id", pyarrow.int64()), *answer, *study, *end])


def _ahead(pool: ThreadPoolExecutor, rows: list[dict], portion: int, fetch: Callable[[dict], Fetched]) \
        -> Iterator[list[Fetched]]:
    """Films in portions, each fetched while the one before is worked on."""
    parts = [rows[start:start + portion] for start in range(0, len(rows), portion)]

    def begin(part: list[dict]) -> list[Future]:
        return [pool.submit(fetch, row) for row in part]

    coming = begin(parts[0]) if parts else []
    for following in [*parts[1:], []]:
        films = [future.result() for future in coming]
        coming = begin(following)
        yield films


@dataclass(frozen=True)
class Opening:
    """How a worker opens the models and asks them; travels to every machine.

    Attributes:
        models: as on the command line, where every machine finds them.
        fingerprint: of the models.
        portion: films answered together.
        engine: what computes run folders, one of finished.members.ENGINES.
        by_study: read each file's study, and skip what is no chest film.
    """

    models: tuple[str, ...]
    fingerprint: str
    portion: int = 32
    engine: str = "auto"
    by_study: bool = False

    def worker(self) -> Worker:
        """Open the models."""
        from ..predict.engine import Engine

        return Worker(Engine.open(self.models, Views(batch_size=self.portion), engine=self.engine), self)
