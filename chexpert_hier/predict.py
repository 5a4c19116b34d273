"""From films and finished runs to probabilities: crops, test-time views, chain rule, ensemble mean, one row per film.

    python -m chexpert_hier.predict film.jpg --model runs/mine
    python -m chexpert_hier.predict CheXpert-v1.0/valid.csv --model run1 run2 run3 --tta 10 --out predictions.csv
"""

import argparse
import csv
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from . import augment, commands, hierarchy, images, labels, recipes
from .errors import InputError
from .files import locked, write_text
from .films import read_film
from .sources import croppers_in
from .template import Cropper

log = logging.getLogger("chexpert_hier.predict")

CHUNK = 256  # films held in memory at once
FILM_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class Member:
    """A finished run, ready to answer.

    Attributes:
        folder: the run folder, or the place of a `.keras` file.
        recipe: how it was trained.
        labels: names of its outputs, in order.
        tree: the hierarchy of the labels.
        croppers: view ("Frontal", "Lateral") -> how its films become crops.
        normalisation: how crops become the network's inputs.
        model: the network.
    """

    folder: Path
    recipe: recipes.Recipe
    labels: tuple[str, ...]
    tree: hierarchy.Tree
    croppers: dict[str, Cropper]
    normalisation: images.Normalisation
    model: object

    def inputs(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (n, c, c) crops -> float32 (n, s, s, 3) network inputs."""
        return images.normalise(crops, self.normalisation, self.recipe.image_size)

    def final(self, conditional: np.ndarray) -> np.ndarray:
        """What the run reports: the chain rule over the outputs where its recipe says so; (n, labels)."""
        return hierarchy.chain_rule(conditional, self.tree) if self.recipe.chain else conditional

    def conditional(self, crops: np.ndarray, keys: np.ndarray, views: "Views") -> np.ndarray:
        """The network's outputs, averaged over test-time views, before the chain rule: float32 (n, labels).

        Source: Pham et al. 2019, section 4.4; mean of a model's views, then the product (ledger E7).
        """
        if not views.draws:
            return self.model.predict(self.inputs(crops), batch_size=views.batch_size, verbose=0)
        total = np.zeros((len(crops), len(self.labels)), np.float64)
        drawn = 0
        for batch in augment.tta_views(crops, keys, views.draws, views.seed, composed=views.composed,
                                      include_original=views.include_original):
            total += self.model.predict(self.inputs(batch), batch_size=views.batch_size, verbose=0)
            drawn += 1
        return (total / drawn).astype(np.float32)


@dataclass(frozen=True)
class Views:
    """Test-time augmentation: `draws` random views per film (0: the crop itself)."""

    draws: int = 0
    seed: int = 0
    composed: bool = False
    include_original: bool = False
    batch_size: int = 32


@dataclass(frozen=True)
class Film:
    """A film to answer for: its file, its name in the output, and the view if known."""

    file: Path
    name: str
    view: str = ""

    @cached_property
    def lateral(self) -> bool:
        """Whether table or file name say that it is a lateral film."""
        return (self.view or ("lateral" if "lateral" in self.file.stem.lower() else "frontal")).lower() == "lateral"


def open_run(folder: str | os.PathLike, precision: str | None = None) -> Member:
    """Load a finished run.

    Args:
        folder: a run folder (with recipe.json, model.keras and template.png), or a `.keras` file inside one.
        precision: unused weights are float32; "mixed_float16" and the like compute faster on some GPUs.

    Raises:
        InputError: it is no finished run, or its network does not fit its recipe.
    """
    from .model import load_model
    from .run import read_facts

    path = Path(folder)
    file = path if path.suffix == ".keras" else path / "model.keras"
    home = file.parent
    facts = read_facts(home)
    if not file.exists():
        raise InputError(f"{file}: is missing; the run is not finished. Go on with it: "
                         f"python -m chexpert_hier.run --out {home} --resume")
    recipe = recipes.from_json(facts["recipe"])
    names = tuple(facts["outputs"])
    model = load_model(file)
    if model.output_shape[1] != len(names):
        raise InputError(f"{file}: has {model.output_shape[1]} outputs, expected {len(names)} as in recipe.json")
    return Member(home, recipe, names, hierarchy.named(facts["tree"], names), croppers_in(home, recipe),
                  images.Normalisation(*map(tuple, facts["normalisation"])), model)


def predict_films(members: list[Member], films: list[Film], *, views: Views = Views(), average: str = "probabilities",
                  skip_bad: bool = False) -> Iterator[tuple[pd.DataFrame, list[tuple[str, str]]]]:
    """Answer for films, a bounded number at a time; each film is decoded and cropped once for all members and views.

    Args:
        members: finished runs with the same labels (in any order).
        films: what to answer for.
        views: test-time augmentation.
        average: "probabilities" (mean over members after the chain rule) or "conditional" (before it).
        skip_bad: list unreadable films instead of stopping.

    Yields:
        a table with Path, one column per label and, for several members, `<label> [sd]`; and the films left out, as
        (name, reason).

    Raises:
        InputError: members do not fit together, or a film cannot be read.

    Source: Pham et al. 2019, section 4.4 (ledger E2-E7).
    """
    names = _same_labels(members)
    for start in range(0, len(films), CHUNK):
        read, bad = _read(members, films[start:start + CHUNK], skip_bad)
        if read:
            yield _answer(members, names, read, views, average), bad
        else:
            yield pd.DataFrame(columns=["Path", *names]), bad


def _answer(members, names, read, views, average) -> pd.DataFrame:
    keys = np.array([labels.key(film.name) for film, _ in read])
    crops, per_member = {}, []
    for member in members:
        conditional = np.empty((len(read), len(member.labels)), np.float32)
        for view, cropper in member.croppers.items():
            both = len(member.croppers) > 1
            rows = [k for k, (film, _) in enumerate(read) if not both or film.lateral == (view == "Lateral")]
            if not rows:
                continue
            seen = (cropper.identity, tuple(rows))
            if seen not in crops:
                crops[seen] = cropper.crop([read[k][1] for k in rows]).crops
            conditional[rows] = member.conditional(crops[seen], keys[rows], views)
        values = conditional if average == "conditional" else member.final(conditional)
        per_member.append(values[:, [member.labels.index(name) for name in names]])
    stack = np.stack(per_member)  # (members, films, labels)
    mean = stack.mean(axis=0)
    if average == "conditional" and members[0].recipe.chain:
        mean = hierarchy.chain_rule(mean, replace(members[0].tree))
    table = pd.DataFrame(mean, columns=list(names))
    table.insert(0, "Path", [film.name for film, _ in read])
    if len(members) > 1:
        table[[f"{name} [sd]" for name in names]] = stack.std(axis=0)
    return table


def _same_labels(members: list[Member]) -> tuple[str, ...]:
    first = members[0]
    for other in members[1:]:
        if set(other.labels) != set(first.labels):
            odd = sorted(set(other.labels) ^ set(first.labels))
            raise InputError(f"{other.folder}: its labels differ from {first.folder}'s ({', '.join(odd[:3])}); an "
                             "ensemble needs members of the same labels")
    return first.labels


def _read(members, films, skip_bad):
    refused = [film for film in films if film.lateral and any("Lateral" not in m.croppers for m in members)]
    bad = [(film.name, "a lateral film; the model was trained on frontal films only") for film in refused]
    if bad and not skip_bad:
        raise InputError(f"{bad[0][0]}: {bad[0][1]}. Leave it out, or use --skip-bad")
    left_out = {film.name for film in refused}

    def one(film):
        try:
            return film, read_film(film.file, film.name)
        except InputError as error:
            if not skip_bad:
                raise
            return film, str(error)

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, [film for film in films if film.name not in left_out]))
    bad += [(film.name, reason) for film, reason in results if isinstance(reason, str)]
    return [(film, grey) for film, grey in results if not isinstance(grey, str)], bad


def find_films(sources: list[str]) -> list[Film]:
    """Films named on the command line: files, folders (searched), CSV files with a Path column.

    Raises:
        InputError: nothing there.
    """
    films = []
    for source in sources:
        path = Path(source)
        if path.suffix.lower() == ".csv":
            films += _from_csv(path)
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in FILM_SUFFIXES)
            if not found:
                raise InputError(f"{path}: no film there; expected files ending in {', '.join(FILM_SUFFIXES)}")
            films += [Film(file, file.as_posix()) for file in found]
        elif path.is_file():
            films.append(Film(path, path.as_posix()))
        else:
            raise InputError(f"{path}: no such file or folder; expected films, a folder of films, or a CSV with a Path "
                             "column")
    return films


def _from_csv(path: Path) -> list[Film]:
    from .datasets import read_rows

    rows = read_rows(path)
    return [Film(file, name, view) for file, name, view in rows]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m chexpert_hier.predict", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("films", nargs="+", metavar="FILM|FOLDER|CSV")
    add("--model", nargs="+", required=True, metavar="RUN", help="finished runs; several are an ensemble")
    add("--out", type=Path, help="predictions.csv to write; without it the answer is printed")
    add("--tta", type=int, default=0, metavar="N", help="average over N random views of each film (the paper: 10)")
    add("--tta-composed", action="store_true", help="apply all four transformations in every draw")
    add("--tta-original", action="store_true", help="count the film as it is as one more view")
    add("--average", default="probabilities", choices=("probabilities", "conditional"),
        help="ensemble mean after (the paper) or before the chain rule")
    add("--seed", type=int, default=0, help="of the random views")
    add("--batch-size", type=int, default=32)
    add("--skip-bad", action="store_true", help="leave out films that cannot be read, listed in <out>.skipped.csv")
    add("--resume", action="store_true", help="go on where an interrupted run with the same --out stopped")
    add("--quiet", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if args.tta < 0 or args.batch_size < 1:
        raise InputError(f"--tta is {args.tta} and --batch-size {args.batch_size}; expected 0 or more, and 1 or more")
    if args.quiet:
        logging.getLogger("chexpert_hier").setLevel(logging.WARNING)
    films = find_films(args.films)
    members = [open_run(run) for run in args.model]
    views = Views(args.tta, args.seed, args.tta_composed, args.tta_original, args.batch_size)
    if not args.out:
        for table, bad in predict_films(members, films, views=views, average=args.average, skip_bad=args.skip_bad):
            _print(table, members[0].tree)
            for name, reason in bad:
                print(f"{name}: left out, {reason}", file=sys.stderr)
        return 0
    with locked(args.out.parent / f".{args.out.name}.work"):
        _to_file(args, members, films, views)
    return 0


def _to_file(args, members, films, views) -> None:
    """Answer film by film into a work folder of finished chunks, and put them together at the end."""
    if args.out.exists() and not args.resume:
        raise InputError(f"{args.out}: exists; choose another --out, or --resume to go on with an interrupted run")
    work = args.out.parent / f".{args.out.name}.work"
    asked = json.dumps([[str(m.folder) for m in members], [film.name for film in films], vars(views), args.average])
    if (work / "asked.json").exists() and (not args.resume or (work / "asked.json").read_text() != asked):
        for old in work.glob("*.csv"):
            old.unlink()
    write_text(work / "asked.json", asked)
    bar = commands.Bar("predict", len(films))
    for start in range(0, len(films), CHUNK):
        done = work / f"{start:09d}.csv"
        part = films[start:start + CHUNK]
        if not done.exists():
            table, bad = next(predict_films(members, part, views=views, average=args.average, skip_bad=args.skip_bad))
            write_text(done.with_suffix(".skipped"), _csv([("Path", "reason"), *bad]))
            write_text(done, table.to_csv(index=False, float_format="%.7g"))
        bar.add(len(part))
    bar.close()
    _join(work, args.out)


def _join(work: Path, out: Path) -> None:
    for pattern, target in (("*.csv", out), ("*.skipped", out.with_suffix(".skipped.csv"))):
        parts = [file.read_text(encoding="utf-8").splitlines() for file in sorted(work.glob(pattern))]
        rows = [line for part in parts for line in part[1:]]
        if rows or target == out:
            write_text(target, "\n".join([parts[0][0], *rows]) + "\n")
    shutil.rmtree(work)


def _csv(rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _print(table: pd.DataFrame, tree: hierarchy.Tree) -> None:
    """One film: its findings as a tree; several: one line each."""
    names = [name for name in table.columns if name != "Path" and not name.endswith("]")]
    if len(table) == 1:
        print(table["Path"].iloc[0])
        for name in names:
            indent = "  " * (1 + int(tree.depth[tree.labels.index(name)]))
            print(f"{indent + name:<34}{table[name].iloc[0]:.3f}")
        return
    print(table[["Path", *names]].round(3).to_string(index=False))


if __name__ == "__main__":
    sys.exit(commands.answer(main))
