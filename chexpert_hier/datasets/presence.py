"""Whether the films of a data set are there and inside its folder, without opening them."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import paths
from ..errors import InputError
from ..files import write_text
from .dataset import Dataset

log = logging.getLogger("chexpert_hier.datasets")


class BadFilm(NamedTuple):
    """A film that cannot be used."""

    path: str
    table: str
    row: int
    reason: str


def require_films(dataset: Dataset, *, skip_bad: bool = False,
                  allow_outside: bool = False) -> tuple[Dataset, list[BadFilm]]:
    """Make sure that all films are there, without opening them (seconds for all of CheXpert).

    Args:
        dataset: only the films that are used.
        skip_bad: leave bad films out and list them.
        allow_outside: symbolic links may lead out of the data folder.

    Returns:
        the data set without the bad films, and these.

    Raises:
        InputError: the first film that is missing, empty or outside (not with `skip_bad`), or none is left.
    """
    reasons = film_faults(dataset, allow_outside)
    places = [place for place, reason in enumerate(reasons) if reason]
    bad = [BadFilm(path, table, int(row), reasons[place]) for place, (path, table, row) in zip(
        places, dataset.films.iloc[places][["path", "table", "row"]].itertuples(index=False))]
    if bad and (not skip_bad or len(bad) == len(dataset)):
        first = bad[0]
        raise InputError(f"{first.table}, row {first.row}: {first.path} {first.reason} (under {dataset.root}); "
                         f"{len(bad)} of {len(dataset)} films cannot be used. --skip-bad goes on without them")
    good = np.ones(len(dataset), bool)
    good[places] = False
    return (dataset.select(good) if bad else dataset), bad


def require_inside(dataset: Dataset) -> None:
    """Refuse films that lie outside their data folder, by their paths or behind links.

    Raises:
        InputError: the first such film.
    """
    faults = outside_faults(dataset)
    places = [place for place, why in enumerate(faults) if why]
    if places:
        film = dataset.films.iloc[places[0]]
        raise InputError(f"{film['table']}, row {film['row']}: {film['path']} {faults[places[0]]}; {len(places)} of "
                         f"{len(dataset)} films do. --allow-outside if you trust this data set")


def film_faults(dataset: Dataset, allow_outside: bool = False) -> list[str]:
    """Why each film cannot be used, "" where it is there; see `require_films`."""
    outside = [""] * len(dataset) if allow_outside else outside_faults(dataset)
    return [why or _fault(file) for why, file in zip(outside, dataset.files)]


def outside_faults(dataset: Dataset) -> list[str]:
    """Why each film is not inside its data folder, "" where it is (see `paths.outside`)."""
    files = dataset.films["file"].to_numpy(object)
    result = np.full(len(files), "", object)
    for name, root in (dataset.roots or {dataset.name: dataset.root}).items():
        theirs = dataset.sets == name
        result[theirs] = paths.outside(root, files[theirs].tolist())
    return [str(why) for why in result]


def _fault(path: Path) -> str:
    """Why a film cannot be used, "" if it seems fine."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or 'not a file name'})"
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    return "" if status.st_size else "is empty"


def write_bad(bad: Sequence[BadFilm], path: Path) -> None:
    """List films that were left out: path, table, row, reason."""
    write_text(path, pd.DataFrame(bad, columns=BadFilm._fields).to_csv(index=False))
    log.warning("%d films left out, listed in %s", len(bad), path)
