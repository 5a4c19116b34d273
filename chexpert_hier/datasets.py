"""Data sets: one checked table of films and raw labels, split by patient; as a command, checks a data set.

Opens no film; `data_checks` does.
"""

import argparse
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from . import chestxray14, commands, mimic, readers
from .errors import InputError, one_of
from .files import write_text
from .labels import BLANKS, key, uniform_draws
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
READERS: dict[str, Callable[[Path, readers.Options, Problems], readers.Source]] = {
    "chexpert": readers.chexpert,
    "csv": readers.csv,
    "chestxray14": chestxray14.reader,
    "mimic": mimic.reader,
}
VIEWS = ("frontal", "lateral", "both")
SPLITS = ("train", "valid", "test")


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
        films = _limited(films, limit, seed)
    if not len(films):
        raise InputError(f"{folder}: no {views} films; choose other --views")
    return Dataset(folder.resolve().name, source.root, films.reset_index(drop=True), source.labels)


def draw_split(patients: Sequence[str], seed: int, fractions: tuple[float, float, float]) -> np.ndarray:
    """Draw a split by patient: a patient's films stay together, whatever else is in the table.

    Args:
        patients: one name per film.
        seed: of the order of patients.
        fractions: of the patients in train, valid, test; sum 1. A fraction above 0 gets at least one patient.

    Returns:
        str (films,), "train", "valid" or "test".

    Raises:
        InputError: fractions that are no fractions, or too few patients.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {fractions}; expected train, valid, test from 0 to 1 with sum 1")
    names, place = np.unique(np.asarray(patients, str), return_inverse=True)
    sizes = [0 if fraction == 0 else max(round(fraction * len(names)), 1) for fraction in fractions[1:]]
    if len(names) - sum(sizes) < (fractions[0] > 0):
        raise InputError(f"only {len(names)} patients; too few to split them into {fractions} (train, valid, test)")
    order = np.argsort(uniform_draws(names, ("split",), seed)[:, 0], kind="stable")
    chosen = np.full(len(names), "train", object)
    chosen[order[: sizes[0]]] = "valid"
    chosen[order[sizes[0]: sum(sizes)]] = "test"
    return chosen[place]


def frontal_only_fair(both: Dataset, seed: int = 0) -> Dataset:
    """As many frontal films as `both` has films of either view, from the same patients.

    Each lateral film is replaced by a frontal one of the same patient, drawn with replacement, so films may repeat. A
    patient without a frontal (6 in CheXpert) has none to give: one of another patient with laterals stands in.

    Source: CheXpertNet's frontal-only comparison (ledger section 5).
    """
    lateral = (both.films["view"] == "Lateral").to_numpy()
    patient = both.films["patient"].to_numpy()
    frontals: dict[str, list[int]] = {}
    for place in np.flatnonzero(~lateral):
        frontals.setdefault(patient[place], []).append(int(place))
    pool = [place for name in dict.fromkeys(patient[lateral]) for place in frontals.get(name, ())]
    if lateral.any() and not pool:
        raise InputError(f"{both.name}: no patient has both views; a fair frontal-only draw needs them")
    places = np.arange(len(both))
    draws = uniform_draws(both.keys[lateral], ("frontal",), seed)[:, 0]
    for place, draw in zip(np.flatnonzero(lateral), draws):
        own = frontals.get(patient[place], pool)
        places[place] = own[int(draw * len(own))]
    return both.select(places)


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


def film_faults(dataset: Dataset, allow_outside: bool = False) -> list[str]:
    """Why each film cannot be used, "" where it is there; see `require_films`."""
    root = os.path.realpath(dataset.root)
    files = dataset.films["file"].tolist()
    outside = frozenset() if allow_outside else _links_outside(root, {os.path.dirname(file) for file in files})
    return [_fault(root, file, outside, allow_outside) for file in files]


def _fault(root: str, file: str, outside: frozenset[str], allow_outside: bool) -> str:
    """Why a film cannot be used, "" if it seems fine."""
    path = f"{root}/{file}"
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if not allow_outside and not _inside(root, path):
                return "is a link that leaves the data folder"
            status = os.stat(path)
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or 'not a file name'})"
    if os.path.dirname(file) in outside:
        return "lies behind a link that leaves the data folder"
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    return "" if status.st_size else "is empty"


def _links_outside(root: str, folders: set[str]) -> frozenset[str]:
    """Which of the folders below `root` lie behind a symbolic link that leaves it."""
    verdict: dict[str, bool] = {"": False}

    def leaves(folder: str) -> bool:
        if folder not in verdict:
            path = f"{root}/{folder}"
            verdict[folder] = leaves(os.path.dirname(folder)) or (os.path.islink(path) and not _inside(root, path))
        return verdict[folder]

    return frozenset(folder for folder in folders if leaves(folder))


def _inside(root: str, path: str) -> bool:
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip("/") + "/")


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
        return (f"{film['table']}, row {film['row']}: {film['path']} is listed twice (first in {earlier['table']}, "
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


def _limited(films: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    if limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 film")
    kept = np.zeros(len(films), bool)
    for split in SPLITS:
        places = np.flatnonzero((films["split"] == split).to_numpy())
        if not len(places):
            continue
        names, patient, counts = np.unique(films["patient"].to_numpy(str)[places], return_inverse=True,
                                           return_counts=True)
        order = np.argsort(uniform_draws(names, ("limit",), seed)[:, 0], kind="stable")
        fit = max(int(np.searchsorted(np.cumsum(counts[order]), limit, side="right")), 1)
        kept[places] = np.isin(patient, order[:fit])
    return films[kept]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="python -m chexpert_hier.datasets", description=(
        "Check a data set before hours of work: tables, patients, splits and films. The header is row 1."))
    result.add_argument("data", metavar="DIR", help="folder that holds train.csv")
    result.add_argument("--reader", default="chexpert", choices=READERS)
    result.add_argument("--labels", help="columns, separated by commas (reader csv)")
    result.add_argument("--train-file", default="train.csv", help="e.g. train_visualCheXbert.csv")
    result.add_argument("--split", default="auto", choices=("auto", "official", "seeded", "paper"))
    result.add_argument("--seed", type=int, default=0, help="of a drawn split and of smoothed targets")
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
               "seed": args.seed, "allow_outside": args.allow_outside}
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
