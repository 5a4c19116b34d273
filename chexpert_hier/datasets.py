"""Data sets: one checked table of films and raw labels, split by patient; as a command, checks a data set.

Opens no film; `data_checks` does.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from . import chestxray14, commands, mimic, readers
from .errors import InputError, one_of
from .files import write_text
from .labels import BLANKS, key
from .presence import BadFilm, film_faults, require_films
from .splits import SPLITS, draw_split, frontal_only_fair, limited
from .tables import Problems, read_table, require_columns

__all__ = ["READERS", "SPLITS", "BadFilm", "Dataset", "draw_split", "film_faults", "frontal_only_fair", "read",
           "read_predictions", "read_rows", "require_films"]
READERS: dict[str, Callable[[Path, readers.Options, Problems], readers.Source]] = {
    "chexpert": readers.chexpert,
    "csv": readers.csv,
    "chestxray14": chestxray14.reader,
    "mimic": mimic.reader,
}
VIEWS = ("frontal", "lateral", "both")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Films with what is known about them, in the order of the files.

    Attributes:
        name: of the folder.
        root: the folder that the films lie under.
        films: one row per film: path (as in the CSV), file (relative to root), patient, study, view ("Frontal",
            "Lateral"), projection ("AP", "PA", "LL", "RL", ""), sex ("Male", "Female", "Unknown"), age (years, NaN),
            split ("train", "valid", "test"), row and table (where the film stands; the header is row 1), and per label
            its raw code: 1, 0, -1 or NaN (blank).
        labels: names of the label columns.
    """

    name: str
    root: Path
    films: pd.DataFrame
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.films)

    def split(self, name: str) -> "Dataset":
        """The films of "train", "valid" or "test"."""
        one_of("split", name, SPLITS)
        return self.select(self.films["split"].to_numpy() == name)

    def select(self, mask: np.ndarray) -> "Dataset":
        """The films at a bool mask or at places (which may repeat), in that order."""
        mask = np.asarray(mask)
        places = np.flatnonzero(mask) if mask.dtype == bool else mask
        return replace(self, films=self.films.iloc[places].reset_index(drop=True))

    @cached_property
    def raw(self) -> np.ndarray:
        """float32 (films, labels): 1, 0, -1 or NaN (blank)."""
        return self.films[list(self.labels)].to_numpy(np.float32)

    @cached_property
    def keys(self) -> np.ndarray:
        """str (films,): the paths after their first "/", by which films are joined and drawn."""
        return np.array([key(path) for path in self.films["path"]], object)

    @cached_property
    def files(self) -> list[Path]:
        """Where each film lies."""
        return [self.root / file for file in self.films["file"]]

    def describe(self) -> str:
        """One line: films, studies and patients of each split."""
        parts = []
        for split in SPLITS:
            films = self.films[self.films["split"] == split]
            if len(films):
                parts.append(f"{split} {len(films):,} films of {films['study'].nunique():,} studies and "
                             f"{films['patient'].nunique():,} patients")
        return f"{self.name}: {'; '.join(parts)}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of keys, splits, patients, views, label names and raw labels; the films are not opened."""
        digest = hashlib.sha256("\n".join(self.labels).encode())
        for column in (self.keys, *(self.films[name] for name in ("split", "patient", "view"))):
            digest.update("\n".join(column).encode("utf-8", "surrogatepass") + b"\0")
        digest.update(np.nan_to_num(self.raw, nan=2.0).astype("<f4").tobytes())
        return digest.hexdigest()


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


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="python -m chexpert_hier.datasets", description=(
        "Check a data set before hours of work: tables, patients, splits and films. The header is row 1."))
    result.add_argument("data", metavar="DIR", help="folder that holds train.csv")
    result.add_argument("--reader", default="chexpert", choices=READERS)
    result.add_argument("--labels", help="columns, separated by commas (reader csv)")
    result.add_argument("--train-file", default="train.csv", help="e.g. train_visualCheXbert.csv")
    result.add_argument("--split", default="auto", choices=("auto", "official"),
                        help="a table without a split of its own counts as training films here")
    result.add_argument("--seed", type=int, default=0, help="of smoothed targets")
    result.add_argument("--allow-outside", action="store_true", help="paths and links may leave the data folder")
    result.add_argument("--tables-only", action="store_true", help="open no film (seconds for all of CheXpert)")
    result.add_argument("--counts", action="store_true",
                        help="instead: rows, cells and target means per policy and reading of conditional training")
    result.add_argument("--tree", default=None, help="for --counts: a known tree or a JSON file {child: [parents]}")
    result.add_argument("--blank", default="negative", choices=BLANKS, help="for --counts")
    result.add_argument("--closure", action="store_true", help="for --counts: upward closure of the labels first")
    result.add_argument("--strict", action="store_true", help="exit with 1 when there is an error in the report")
    result.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that open films")
    result.add_argument("--out", help="write the report (.json) or the counts (.csv or .json) as well")
    return result


def main(argv: list[str] | None = None) -> int:
    """Check a data set, or count its targets; 0, or 1 with --strict and an error in the report."""
    from . import data_checks

    args = parser().parse_args(argv)
    names = [name.strip() for name in args.labels.split(",")] if args.labels else None
    options = {"reader": args.reader, "labels": names, "train_file": args.train_file, "split": args.split,
               "seed": args.seed, "allow_outside": args.allow_outside,
               "fractions": (1.0, 0.0, 0.0)}  # a table without a split of its own is described as a whole
    if args.counts:
        dataset = read(args.data, views="both", **options)
        data_checks.print_counts(dataset, args.tree, args.blank, args.closure, args.seed, args.out)
        return 0
    report = data_checks.check(args.data, open_films=not args.tables_only, workers=args.workers, **options)
    data_checks.print_report(report)
    if args.out:
        write_text(args.out, json.dumps(report, indent=1) + "\n")
    return int(args.strict and any(entry["level"] == "error" for entry in report["problems"]))


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
