"""A data set's folder -> one checked table of films and raw labels, split by patient. Opens no film."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .. import paths
from ..errors import InputError, one_of
from ..labels import key
from . import brax, chestxray14, chexlocalize, chexpertplus, mimic, openi, padchest, readers, rsna, vindr
from .cells import REFUSED, check_paths, film_names, locate
from .dataset import Dataset
from .options import Options, Source
from .splits import draw_split, limited
from .tables import Problems, plainly_named, read_table, require_columns


class Reader(NamedTuple):
    """A layout that can be read.

    Attributes:
        read: (folder, Options, Problems) -> Source.
        films: how many films its description counts, both views; None: the user's own.
        patients: the same of patients.
        source: where these numbers stand.
    """

    read: Callable[[Path, Options, Problems], Source]
    films: int | None = None
    patients: int | None = None
    source: str = ""


READERS: dict[str, Reader] = {
    "chexpert": Reader(readers.chexpert, 223_648, 64_740, "Irvin et al. 2019: train 223,414 films, valid 234"),
    "csv": Reader(readers.csv),
    "chestxray14": Reader(chestxray14.reader, 112_120, 30_805, "Wang et al. 2017"),
    "mimic": Reader(mimic.reader, 377_110, 65_379, "Johnson et al. 2019, all views"),
    "padchest": Reader(padchest.reader, 160_868, 67_625, "Bustos et al. 2020, all projections"),
    "vindr": Reader(vindr.reader, 18_000, None, "Nguyen et al. 2022; patients are not told"),
    "brax": Reader(brax.reader, 40_967, 19_351, "Reis et al. 2022, all views"),
    "openi": Reader(openi.reader, 7_470, 3_851, "Demner-Fushman et al. 2016; reports with films for patients"),
    "rsna": Reader(rsna.reader, 26_684, None, "Shih et al. 2019, films with public labels"),
    "chexpertplus": Reader(chexpertplus.reader, 223_462, 64_925, "Chambon et al. 2024: train 223,228 films, valid 234"),
    "chexlocalize": Reader(chexlocalize.reader, 902, 700, "Saporta et al. 2022: valid 234 films, test 668"),
}
VIEWS = ("frontal", "lateral", "both")
SPLIT_RULES = ("auto", "official", "seeded", "paper")


def read(data: str | os.PathLike[str], options: Options | None = None, *, problems: Problems | None = None,
         **fields: Any) -> Dataset:
    """Read a data set with all its splits.

    Args:
        data: its folder (CheXpert's is the one that holds train.csv).
        options: see `options.Options`.
        problems: gathers what is wrong for a report; None stops at the first.
        fields: of Options, written out: read("NIH", reader="chestxray14", views="both").

    Raises:
        InputError: what a user can mend, e.g. a missing folder or column, a cell that is no code, a film listed twice,
            a patient in two splits.
    """
    options, problems = with_fields(options, fields), problems or Problems()
    source = gathered(Path(data), options, problems)
    films = settled(source.films, options, source.fractions, problems)
    return Dataset(Path(data).resolve().name, source.root, films, source.labels)


def with_fields(options: Options | None, fields: dict[str, Any]) -> Options:
    """Options with some fields set, checked as far as no data set is needed.

    Raises:
        InputError: an unknown reader, choice of views or rule of the split.
    """
    if fields.get("labels") is not None:
        fields = {**fields, "labels": tuple(fields["labels"])}
    options = replace(options or Options(), **fields)
    one_of("reader", options.reader, READERS)
    one_of("views", options.views, VIEWS)
    one_of("split", options.split, SPLIT_RULES)
    return options


def gathered(folder: Path, options: Options, problems: Problems) -> Source:
    """What the reader finds in a folder, before splits are drawn.

    Raises:
        InputError: no such folder, or what the reader refuses.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; --data takes the folder that the data set unpacked into")
    return READERS[options.reader].read(folder, options, problems)


def settled(films: pd.DataFrame, options: Options, fractions: tuple[float, float, float],
            problems: Problems) -> pd.DataFrame:
    """The films with every split decided, checked, of the wanted views, within the limit.

    Raises:
        InputError: too few patients to split, a film listed twice, a patient in two splits, no film of these views.
    """
    undecided = (films["split"] == "").to_numpy()
    if undecided.any():
        fractions = options.fractions or ((0.7, 0.1, 0.2) if options.split == "paper" else fractions)
        split = films["split"].to_numpy(object).copy()
        split[undecided] = draw_split(films["patient"].to_numpy()[undecided].tolist(), options.seed, fractions)
        films = films.assign(split=split)
    _check_unique(films, problems)
    _check_leak(films, problems)
    if options.views != "both":
        films = films[films["view"] == options.views.capitalize()]
    if options.limit is not None:
        films = limited(films, options.limit, options.seed)
    if not len(films):
        raise InputError(f"no {options.views} films there; choose other --views")
    return films.reset_index(drop=True)


class FilmRow(NamedTuple):
    """A film of a table without labels.

    Attributes:
        file: where it lies.
        path: as in the table, in the written form of `paths`.
        view: "Frontal", "Lateral", or "" where nothing says.
    """

    file: Path
    path: str
    view: str


def read_rows(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None,
              allow_outside: bool = False) -> list[FilmRow]:
    """Read any CSV with a Path column, labels or none, as a list of films to predict.

    Args:
        path: the CSV; a column File tells where the films lie, else their paths are looked for as `read` does.
        root: the folder of the films; None: the CSV's own.
        allow_outside: paths and links may leave the data folder.

    Raises:
        InputError: no column Path, a blank one, or one that leaves the data folder.
    """
    path = Path(path)
    table = plainly_named(read_table(path), ("Path", "File", "Frontal/Lateral"))
    require_columns(path, table, ("Path",), "Expected a CSV of films.")
    names, rows = film_names(table["Path"]), table.index.to_numpy()
    check_paths(path.name, names.to_numpy(), rows, Options(allow_outside=allow_outside), Problems())
    root = Path(root or path.parent)
    root, files = (root, film_names(table["File"]).tolist()) if "File" in table else locate(root, names)
    for row, name, why in zip(rows, names, [""] * len(files) if allow_outside else paths.outside(root, files)):
        if why:
            raise InputError(f"{path.name}, row {row}: {name} {why} (--allow-outside if you trust this file)")
    stated = table.get("Frontal/Lateral", pd.Series("", index=table.index)).str.strip().str.capitalize()
    written = names.str.extract(r"(frontal|lateral)[^/]*$", expand=False).str.capitalize().fillna("")
    views = stated.where(stated.isin(["Frontal", "Lateral"]), written)
    return [FilmRow(root / paths.unescaped(file), name, view) for file, name, view in zip(files, names, views)]


def read_predictions(path: str | os.PathLike[str], keys: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Read a finished run's probabilities for U-SelfTrained, joined on `labels.key`.

    Args:
        path: a CSV with Path and one column per label.
        keys: the films' keys.
        labels: the columns in order.

    Returns:
        float32 (films, labels) in [0, 1].

    Raises:
        InputError: a column or film is missing, or a cell is no probability.
    """
    table = read_table(path)
    require_columns(path, table, ("Path", *labels), "Expected a run's predictions of the training films.")
    values: np.ndarray = table[list(labels)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(f"{Path(path).name}, row {table.index[row]}: {labels[column]} is "
                         f"{table[labels[column]].iloc[row]!r}; expected a probability")
    places = {key(name): place for place, name in enumerate(film_names(table["Path"]))}
    missing = [name for name in keys if name not in places]
    if missing:
        raise InputError(f"{Path(path).name}: no prediction for {missing[0]} ({len(missing)} films); "
                         "predict the training films first")
    found: np.ndarray = values[np.array([places[name] for name in keys], int)]
    return found


def _check_unique(films: pd.DataFrame, problems: Problems) -> None:
    keys = pd.Series([key(path) for path in films["path"]])
    first = ~keys.duplicated()

    def message(place: int) -> str:
        earlier = films.iloc[int(np.flatnonzero(first & (keys == keys.iloc[place]))[0])]
        film = films.iloc[place]
        how = "is listed twice" if film["path"] == earlier["path"] else 'is another\'s name after the first "/"'
        return (f"{film['table']}, row {film['row']}: {film['path']} {how} (first in {earlier['table']}, "
                f"row {earlier['row']}); expected each film once")

    problems.say("film listed twice", (~first & (keys != "")).to_numpy(), message, REFUSED)


def _check_leak(films: pd.DataFrame, problems: Problems) -> None:
    patient = films["patient"]
    first = films.drop_duplicates("patient").set_index("patient")
    leak = ((patient.map(first["split"]) != films["split"]) & (patient != "")).to_numpy()

    def message(place: int) -> str:
        film, other = films.iloc[place], first.loc[films["patient"].iloc[place]]
        return (f"{film['table']}, row {film['row']}: {film['patient']} is in {film['split']} and in {other['split']} "
                f"({other['table']}, row {other['row']}); expected a patient in one split only")

    problems.say("patient in two splits", leak & ~films.duplicated(["patient", "split"]).to_numpy(), message,
                 "refused; take one of the two out")
