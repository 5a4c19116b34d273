"""From files of films to tables of answers, a bounded number of films at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pandas as pd

from ..errors import InputError
from ..finished.asked import Film
from ..finished.members import Member, Saved
from .engine import Engine
from .reading import Read, open_film

CHUNK = 256  # films held in memory at once


class LeftOut(NamedTuple):
    """A film without an answer."""

    name: str
    reason: str


class Portion(NamedTuple):
    """The answers for some films, as Answers.table() gives them, and the films left out."""

    table: pd.DataFrame
    left_out: list[LeftOut]


Seen = Callable[[list[Read]], None]


def predict_films(engine: Engine | Sequence[Member | Saved], films: Sequence[Film], skip_bad: bool = False,
                  seen: Seen | None = None) -> Iterator[Portion]:
    """Answer for films, CHUNK at a time; each film is decoded and cropped once for all members and views.

    Args:
        engine: what answers; open models alone are asked as `Engine(members)` asks them.
        films: what to answer for.
        skip_bad: list unreadable films instead of stopping.
        seen: given the films of each portion that are answered, e.g. to draw heatmaps.

    Raises:
        InputError: members do not fit together, or a film cannot be read.

    Source: Pham et al. 2019, section 4.4 (deviations E2-E7).
    """
    engine = engine if isinstance(engine, Engine) else Engine(engine)
    for start in range(0, len(films), CHUNK):
        yield answer_files(engine, films[start:start + CHUNK], skip_bad, seen)


def answer_files(engine: Engine, films: Sequence[Film], skip_bad: bool = False,
                 seen: Seen | None = None) -> Portion:
    """Answer for as many films as fit in memory; as `predict_films`."""
    def one(film: Film) -> Read | LeftOut:
        try:
            return open_film(film, engine.takes_lateral, engine.caution.accept_damaged)
        except InputError as error:
            if not skip_bad:
                raise
            return LeftOut(film.name, str(error).removeprefix(f"{film.name}: "))

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, films))
    read = [result for result in results if isinstance(result, Read)]
    answered = [one for one in read if not (one.code and engine.caution.refuse_odd)]
    if seen is not None and answered:
        seen(answered)
    left_out = [result for result in results if isinstance(result, LeftOut)]
    return Portion(engine.answer(read).table(), left_out)
