"""Data sets: one checked table of films and raw labels, split by patient; as a command, checks a data set.

Opens no film; `data_checks` does.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError, one_of
from ..labels import key
from . import chestxray14, mimic, readers
from .dataset import Dataset
from .splits import draw_split, limited
from .tables import Problems, read_table, require_columns

READERS: dict[str, Callable[[Path, readers.Options, Problems], readers.Source]] = {
    "chexpert": readers.chexpert,
    "csv": readers.csv,
    "chestxray14": chestxray14.reader,
    "mimic": mimic.reader,
}
VIEWS = ("frontal", "lateral", "both")


def read(data: str | os.PathLike, reader: str = "chexpert", labels: Sequence[str] | None = None,
         views: str = "frontal", limit: int | None = None, seed: int = 0, *, train_file: str = "train.csv",
         split: str = "auto", fractions: tuple[float, float, float] | None = None, allow_outside: bool = False,
         problems: Problems | None = None) -> Dataset:
    """Read a data set with all its splits.

    Args:
        data: its folder (the one that holds train.csv).
        reader: one of READERS.
        labels: which labels; None takes the reader's own. CheXpert's labels may be asked of ChestX-ray14 and back.
        views: "frontal", "lateral" or "both".
        limit: keep at most so many films of each split: whole patients in an order drawn from `seed`, until the next
            one would not fit (the first is always kept). Counted after the choice of views.
        seed: of the limit and of a split drawn here.
        train_file: table of the training films, e.g. "train_visualCheXbert.csv".
        split: "auto": the data set's own where it has one, else drawn by patient; "official": its own; "seeded": drawn;
            "paper": drawn 70/10/20 (CheXNet, section 3).
        fractions: of the patients in train, valid and test, where the split is drawn; None takes the reader's (CSV
            shape 90/10/0, ChestX-ray14 70/10/20 or 87.5/12.5 of the official list).
        allow_outside: paths may leave the data folder.
        problems: gathers what is wrong for a report; None stops at the first.

    Raises:
        InputError: what a user can mend, e.g. a missing folder or column, a cell that is no code, a film listed twice,
            a patient in two splits.
    """
    one_of("reader", reader, READERS)
    one_of("views", views, VIEWS)
    one_of("split", split, ("auto", "official", "seeded", "paper"))
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data takes the folder that the data set unpacked into")
    problems = problems or Problems()
    options = readers.Options(tuple(labels) if labels else None, train_file, split, allow_outside)
    source = READERS[reader](folder, options, problems)
    films = source.films
    undecided = (films["split"] == "").to_numpy()
    if undecided.any():
        fractions = fractions or ((0.7, 0.1, 0.2) if split == "paper" else source.fractions)
        films.loc[undecided, "split"] = draw_split(films.loc[undecided, "patient"], seed, fractions)
    _check_unique(films, problems)
    _check_leak(films, problems)
    if views != "both":
        films = films[films["view"] == views.capitalize()]
    if limit is not None:
        films = limited(films, limit, seed)
    if not len(films):
        raise InputError(f"{folder}: no {views} films; choose other --views")
    return Dataset(folder.resolve().name, source.root, films.reset_index(drop=True), source.labels)


def read_rows(path: str | os.PathLike, *, allow_outside: bool = False) -> list[tuple[Path, str, str]]:
    """Read any CSV with a Path column, labels or none, as a list of films to predict.

    Args:
        path: the CSV; the films are looked for below its folder as `read` does.
        allow_outside: paths may leave the data folder.

    Returns:
        (file, path as written, "Frontal" or "Lateral", "" where nothing says) per row.

    Raises:
        InputError: no column Path, a blank one, or one that leaves the data folder.
    """
    path = Path(path)
    table = read_table(path)
    require_columns(path, table, ("Path",), "Expected a CSV of films.")
    readers.check_paths(path.name, table["Path"].to_numpy(), table.index.to_numpy(),
                        readers.Options(allow_outside=allow_outside), Problems())
    root, files = readers.locate(path.parent, table["Path"])
    stated = table.get("Frontal/Lateral", pd.Series("", index=table.index)).str.strip().str.capitalize()
    written = table["Path"].str.extract(r"(frontal|lateral)[^/]*$", expand=False).str.capitalize().fillna("")
    views = stated.where(stated.isin(["Frontal", "Lateral"]), written)
    return list(zip([root / file for file in files], table["Path"], views))


def read_predictions(path: str | os.PathLike, keys: Sequence[str], labels: Sequence[str]) -> np.ndarray:
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
    values = table[list(labels)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(f"{Path(path).name}, row {table.index[row]}: {labels[column]} is "
                         f"{table[labels[column]].iloc[row]!r}; expected a probability")
    places = {key(name): place for place, name in enumerate(table["Path"])}
    missing = [name for name in keys if name not in places]
    if missing:
        raise InputError(f"{Path(path).name}: no prediction for {missing[0]} ({len(missing)} films); "
                         "predict the training films first")
    return values[[places[name] for name in keys]]


def _check_unique(films: pd.DataFrame, problems: Problems) -> None:
    keys = pd.Series([key(path) for path in films["path"]])
    first = ~keys.duplicated()

    def message(place: int) -> str:
        earlier = films.iloc[int(np.flatnonzero(first & (keys == keys.iloc[place]))[0])]
        film = films.iloc[place]
        how = "is listed twice" if film["path"] == earlier["path"] else 'is another\'s name after the first "/"'
        return (f"{film['table']}, row {film['row']}: {film['path']} {how} (first in {earlier['table']}, "
                f"row {earlier['row']}); expected each film once")

    problems.say("film listed twice", (~first & (keys != "")).to_numpy(), message, readers.REFUSED)


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
