"""From files of films to tables of answers, a bounded number of films at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

from ..errors import InputError
from ..finished.asked import Film
from ..finished.members import Member, Saved, Views
from .engine import AS_IT_IS, NO_CAUTION, Engine
from .reading import Caution, Read, open_film

CHUNK = 256  # films held in memory at once


def predict_films(members: Sequence[Member | Saved], films: list[Film], *, views: Views = AS_IT_IS,
                  average: str = "probabilities", skip_bad: bool = False, validation: dict | None = None,
                  caution: Caution = NO_CAUTION, seen: Callable[[list[Read]], None] | None = None) \
        -> Iterator[tuple[pd.DataFrame, list[tuple[str, str]]]]:
    """Answer for films, CHUNK at a time; each film is decoded and cropped once for all members and views.

    Args:
        members: finished runs with the same labels (in any order).
        films: what to answer for.
        views, average, validation, caution: as for `Engine`.
        skip_bad: list unreadable films instead of stopping.
        seen: given the films of each portion that are answered, e.g. to draw heatmaps.

    Yields:
        Answers.table() of the films, and the films left out, as (name, reason).

    Raises:
        InputError: members do not fit together, or a film cannot be read.

    Source: Pham et al. 2019, section 4.4 (deviations E2-E7).
    """
    engine = Engine(members, views, average, validation, caution)
    for start in range(0, len(films), CHUNK):
        yield answer_files(engine, films[start:start + CHUNK], skip_bad, seen)


def answer_files(engine: Engine, films: Sequence[Film], skip_bad: bool = False,
                 seen: Callable[[list[Read]], None] | None = None) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Answer for as many films as fit in memory: their table, and the films left out; as `predict_films`."""
    def one(film: Film) -> Read | tuple[str, str]:
        try:
            return open_film(film, engine.takes_lateral, engine.caution.accept_damaged)
        except InputError as error:
            if not skip_bad:
                raise
            return film.name, str(error).removeprefix(f"{film.name}: ")

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, films))
    read = [result for result in results if isinstance(result, Read)]
    answered = [one for one in read if not (one.code and engine.caution.refuse_odd)]
    if seen is not None and answered:
        seen(answered)
    return engine.answer(read).table(), [result for result in results if not isinstance(result, Read)]
