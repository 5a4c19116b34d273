"""Several data sets as one table: keys do not collide, no patient is in two splits, what a set lacks stays unknown.

Pham et al. 2019, section 5, name training on CheXpert together with MIMIC-CXR as what comes next.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError, one_of
from ..labels import key
from . import reading
from .dataset import UNKNOWN, Dataset
from .options import Options, Source
from .splits import draw_split
from .tables import Problems

BETWEEN = "+"  # readers of several data sets in one name, e.g. "chexpert+mimic"


def read_all(data: Sequence[str | os.PathLike[str]], options: Options, *, problems: Problems | None = None) -> Dataset:
    """Read one data set, or several as one.

    The labels are those asked for, else the first set's own; all other sets give them as far as they can. A film's key
    begins with its set's name, a patient's with whose patient it is, so that data sets that share patients (CheXpert
    and CheXpert Plus; ChestX-ray14 and the RSNA challenge) keep each of them in one split.

    Args:
        data: the folders.
        options: `reader` names one for all, or one for each joined by "+". The limit is of all training films.
        problems: gathers what is wrong; None stops at the first.

    Raises:
        InputError: see `reading.read`; readers for another number of folders, one folder twice, labels that one of the
            sets has no word for.
    """
    folders = [Path(folder) for folder in data]
    names = readers_of(options.reader, len(folders))
    if len(folders) == 1:
        return reading.read(folders[0], replace(options, reader=names[0]), problems=problems)
    twice = [folder for place, folder in enumerate(folders)
             if folder.resolve() in [other.resolve() for other in folders[:place]]]
    if twice:
        raise InputError(f"{twice[0]}: given twice; expected each data set once")
    problems, sets, parts, roots = problems or Problems(), set_names(folders), [], {}
    labels = options.labels
    for name, folder, reader in zip(sets, folders, names):
        own = reading.with_fields(options, {"reader": reader, "labels": labels})
        source = reading.gathered(folder, own, problems)
        labels, roots[name] = source.labels, source.root
        parts.append((_marked(name, source), own.fractions or _fractions(own, source)))
    films = pd.concat([part for part, _ in parts], ignore_index=True)
    films[UNKNOWN] = films[UNKNOWN].fillna("")
    films["split"] = _splits(films, dict(zip(sets, (fractions for _, fractions in parts))), options.seed)
    films = reading.settled(films, options, (0.9, 0.1, 0.0), problems)
    return Dataset(" + ".join(sets), next(iter(roots.values())), films, tuple(labels or ()), roots)


def readers_of(text: str, count: int | None = None) -> list[str]:
    """The readers of so many data sets (None: as many as are named) from one name, or several joined by "+".

    Raises:
        InputError: an unknown reader, or another number of them.
    """
    names = text.split(BETWEEN)
    for name in names:
        one_of("--reader", name, tuple(reading.READERS))
    if count is not None and len(names) not in (1, count):
        raise InputError(f"--reader: {len(names)} readers for {count} data sets; expected one for all, or one for each "
                         "in the order of --data")
    return names * (count or 1) if len(names) == 1 else names


def set_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with a number where several have it."""
    names = [folder.resolve().name or "data" for folder in folders]
    return [name if names.count(name) == 1 else f"{name}-{names[:place + 1].count(name)}"
            for place, name in enumerate(names)]


def _marked(name: str, source: Source) -> pd.DataFrame:
    """A set's films with names that no other set's have."""
    films = source.films
    return films.assign(**{
        "set": name, "path": [f"joint/{name}/{key(path)}" for path in films["path"]],
        "patient": f"{source.people or name}:" + films["patient"].astype(str),
        "study": f"{name}/" + films["study"].astype(str), "table": f"{name}/" + films["table"].astype(str),
        UNKNOWN: films[UNKNOWN] if UNKNOWN in films else ""})


def _fractions(options: Options, source: Source) -> tuple[float, float, float]:
    return (0.7, 0.1, 0.2) if options.split == "paper" else source.fractions


def _splits(films: pd.DataFrame, fractions: dict[str, tuple[float, float, float]], seed: int) -> np.ndarray:
    """The split of every film: the set's own, that of the same patient in another set, else drawn by patient."""
    split, patient = films["split"].to_numpy(object).copy(), films["patient"].to_numpy(object)
    home = films["set"].to_numpy(object)
    for name, shares in fractions.items():
        decided = dict(zip(patient[split != ""], split[split != ""]))
        theirs = (home == name) & (split == "")
        split[theirs] = [decided.get(person, "") for person in patient[theirs]]
        open_ones = theirs & (split == "")
        if open_ones.any():
            split[open_ones] = draw_split(patient[open_ones].tolist(), seed, shares)
    return split
