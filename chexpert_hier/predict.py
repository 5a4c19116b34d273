"""From films and finished runs to probabilities: crops, test-time views, chain rule, ensemble mean, one row per film.

    python -m chexpert_hier.predict film.dcm --model runs/mine
    python -m chexpert_hier.predict CheXpert-v1.0/valid.csv --model run1 run2 run3 --tta 10 --out predictions.csv
"""

import argparse
import csv
import glob
import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from . import answers, commands, dicom, hierarchy, labels, operating, plausible, uncertainty
from .errors import InputError
from .files import locked, remove_leftovers, remove_leftovers_of, write_text
from .films import FilmError, read_bytes, read_film
from .members import Member, Saved, Views, open_model, open_run, same_labels
from .template import Cropper

__all__ = ["Film", "Member", "Saved", "Views", "find_films", "open_model", "open_run", "predict_films"]

log = logging.getLogger("chexpert_hier.predict")

CHUNK = 256  # films held in memory at once
FILM_SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")
AS_IT_IS = Views()
FRONTAL_ONLY = "a lateral film; the model was trained on frontal films only"


@dataclass(frozen=True)
class Film:
    """A film to answer for: its file, its name in the output, and the view if known."""

    file: Path
    name: str
    view: str = ""

    @cached_property
    def lateral(self) -> bool:
        """Whether table, DICOM header (once read) or file name say that it is a lateral film."""
        return (self.view or ("lateral" if "lateral" in self.file.stem.lower() else "frontal")).lower() == "lateral"


@dataclass(frozen=True)
class Read:
    """A film that was read.

    Attributes:
        film: with its view, where the file itself says it.
        grey: uint8 (h, w).
        colour: see plausible.colour.
    """

    film: Film
    grey: np.ndarray
    colour: float


# ---------------------------------------------------------------------------------------------------- answers

def predict_films(members: list[Member | Saved], films: list[Film], *, views: Views = AS_IT_IS,
                  average: str = "probabilities", skip_bad: bool = False, validation: dict | None = None,
                  seen: Callable[[list[Read]], None] | None = None) \
        -> Iterator[tuple[pd.DataFrame, list[tuple[str, str]]]]:
    """Answer for films, a bounded number at a time; each film is decoded and cropped once for all members and views.

    Args:
        members: finished runs with the same labels (in any order).
        films: what to answer for.
        views: test-time augmentation.
        average: "probabilities" (mean over members after the chain rule) or "conditional" (before it).
        skip_bad: list unreadable films instead of stopping.
        validation: of operating.validation, for calls and calibrated probabilities.
        seen: given the films of each portion, e.g. to draw heatmaps.

    Yields:
        a table with Path, one column per label, for several members `<label> [sd]`, with `validation` also
        `<label> [calibrated]` and `<label> [call]` (1 present, 0 absent at the operating point), with
        `views.uncertainty` also `<label> [sd]`, `[entropy]` and `[mutual information]` (nats; uncertainty.Uncertainty)
        and for mc `[mc mean]`, `[match]` (score of the template match) and `[flag]` (what is odd about the film, else
        blank); and the films left out, as (name, reason).

    Raises:
        InputError: members do not fit together, or a film cannot be read.

    Source: Pham et al. 2019, section 4.4 (ledger E2-E7).
    """
    names = same_labels(members)
    for member in members:
        if isinstance(member, Saved) and (views.draws or views.uncertainty or average != "probabilities"):
            raise InputError(f"{member.folder}: a SavedModel answers for the film as it is; --tta, --uncertainty and "
                             "--average conditional need the run folders")
    if views.uncertainty == "ensemble" and len(members) < 2:
        raise InputError("--uncertainty ensemble: needs several models; for one with dropout use mc:10")
    for start in range(0, len(films), CHUNK):
        read, bad = _read(members, films[start:start + CHUNK], skip_bad)
        if seen is not None and read:
            seen(read)
        yield _answer(members, names, read, views, average, validation), bad


def _answer(members, names, read, views, average, validation) -> pd.DataFrame:
    tree = members[0].tree
    mean, spread, stack = (_probabilities(members, names, read, views, average) if read else
                           (np.empty((0, len(names))), None, np.empty((1, 0, len(names)))))
    if not read and (len(members) > 1 or _is_ensemble(members[0])):
        spread = mean
    table = pd.DataFrame(mean, columns=list(names))
    table.insert(0, "Path", [one.film.name for one in read])
    if views.uncertainty:
        spread = None  # it is among the uncertainty's columns
    scaled = operating.calibrated(mean, validation, names, tree)
    called = operating.calls(mean, validation, names) if validation else None
    for values, what in ((spread, "sd"), (scaled, "calibrated"), (called, "call")):
        if values is not None:
            table[[f"{name} [{what}]" for name in names]] = values
    if views.uncertainty:
        table = pd.concat([table, pd.DataFrame(_uncertainty(stack, names, bool(views.passes)))], axis=1)
    table[["[match]", "[flag]"]] = pd.DataFrame([_look(one, members[0].croppers) for one in read],
                                                columns=["[match]", "[flag]"], index=table.index)
    return table


def _uncertainty(samples: np.ndarray, names, passes: bool) -> dict[str, np.ndarray]:
    """Columns from the samples (samples, films, labels), and the mean of those drawn by dropout."""
    found = uncertainty.decompose(samples)
    parts = {"sd": found.sd, "entropy": found.total, "mutual information": found.mutual}
    parts |= {"mc mean": found.mean} if passes else {}
    return {f"{name} [{what}]": values[:, k] for what, values in parts.items() for k, name in enumerate(names)}


def _is_ensemble(member) -> bool:
    return isinstance(member, Saved) and "spread" in member.metadata["outputs"]


def _probabilities(members, names, read, views, average) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """float (films, labels): the mean over members and, for several, their standard deviation.

    Third what the uncertainty is measured on, (samples, films, labels): the members' answers, or with dropout those of
    every drawn network, always after the chain rule.
    """
    keys = np.array([labels.key(one.film.name) for one in read])
    crops, per_member, spread, drawn = {}, [], None, []
    for member in members:
        if isinstance(member, Saved):
            values, spread = member.answer([one.grey for one in read])
        else:
            conditional = _conditional(member, read, keys, views, crops)
            values = conditional if average == "conditional" else member.final(conditional)
            order = [member.labels.index(name) for name in names]
            drawn += [member.final(sample)[:, order] for sample in _samples(member, read, views, crops)]
        per_member.append(values[:, [member.labels.index(name) for name in names]])
    stack = np.stack(per_member)  # (members, films, labels)
    mean = stack.mean(axis=0)
    if average == "conditional" and members[0].recipe.chain:
        mean = hierarchy.chain_rule(mean, members[0].tree)
    return mean, stack.std(axis=0) if len(members) > 1 else spread, np.stack(drawn) if drawn else stack


def _samples(member: Member, read: list[Read], views: Views, crops: dict) -> np.ndarray:
    """Outputs with dropout, float32 (passes, films, labels); `crops` as `_conditional` left it."""
    out = np.empty((views.passes, len(read), len(member.labels)), np.float32)
    if views.passes:
        for cropper, rows in _by_view(member, read):
            out[:, rows] = member.samples(crops[cropper.identity, tuple(rows)], views)
    return out


def _conditional(member: Member, read: list[Read], keys: np.ndarray, views: Views, crops: dict) -> np.ndarray:
    """The network's outputs, every film by its view's cropper; `crops` keeps what members share."""
    conditional = np.empty((len(read), len(member.labels)), np.float32)
    for cropper, rows in _by_view(member, read):
        seen = (cropper.identity, tuple(rows))
        if seen not in crops:
            crops[seen] = cropper.crop([read[k].grey for k in rows]).crops
        conditional[rows] = member.conditional(crops[seen], keys[rows], views)
    return conditional


def _by_view(member: Member, read: list[Read]) -> Iterator[tuple[Cropper, list[int]]]:
    """The member's croppers with the places of the films that each is for."""
    both = len(member.croppers) > 1
    for view, cropper in member.croppers.items():
        rows = [k for k, one in enumerate(read) if not both or one.film.lateral == (view == "Lateral")]
        if rows:
            yield cropper, rows


def _look(one: Read, croppers: dict) -> tuple[float, str]:
    """Template match and what is odd about a film."""
    cropper = croppers.get("Lateral" if one.film.lateral else "Frontal") or next(iter(croppers.values()))
    match = float(cropper.crop([one.grey]).scores[0])
    return round(match, 4), plausible.flag(one.grey, cropper, match, one.colour)


# ---------------------------------------------------------------------------------------------------- films

def _read(members, films, skip_bad) -> tuple[list[Read], list[tuple[str, str]]]:
    takes_lateral = all("Lateral" in member.croppers for member in members)

    def one(film: Film) -> Read | tuple[str, str]:
        try:
            return _open(film, takes_lateral)
        except InputError as error:
            if not skip_bad:
                raise
            return film.name, str(error).removeprefix(f"{film.name}: ")

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, films))
    return [r for r in results if isinstance(r, Read)], [r for r in results if not isinstance(r, Read)]


def _open(film: Film, takes_lateral: bool) -> Read:
    refused = FilmError(f"{film.name}: {FRONTAL_ONLY}")
    if film.lateral and not takes_lateral:
        raise refused
    data = read_bytes(film.file, film.name)
    if dicom.is_dicom(data):
        grey = read_film(data, film.name)  # first, for it says best what is wrong
        film = replace(film, view=film.view or dicom.view(data))
        if film.lateral and not takes_lateral:
            raise refused
        return Read(film, grey, 0.0)
    return Read(film, read_film(data, film.name), plausible.colour(data))


def find_films(sources: list[str]) -> list[Film]:
    """Films named on the command line: files, folders (searched), globs, CSV files with a Path column.

    Raises:
        InputError: nothing there.
    """
    films = []
    for source in sources:
        path = Path(source)
        if path.suffix.lower() == ".csv" and path.is_file():
            films += _from_csv(path)
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if _looks_like_film(file))
            if not found:
                raise InputError(f"{path}: no film there; expected files ending in {', '.join(FILM_SUFFIXES)}")
            films += [Film(file, file.as_posix()) for file in found]
        elif path.is_file():
            films.append(Film(path, path.as_posix()))
        elif found := sorted(glob.glob(source, recursive=True)):
            films += find_films(found)
        else:
            raise InputError(f"{path}: no such file or folder; expected films, a folder of films, or a CSV with a Path "
                             "column")
    return films


def _looks_like_film(file: Path) -> bool:
    """By its ending; without any, as archives write DICOM, by its mark."""
    if file.suffix:
        return file.suffix.lower() in FILM_SUFFIXES and file.is_file()
    if not file.is_file():
        return False
    with open(file, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _from_csv(path: Path) -> list[Film]:
    from .datasets import read_rows

    return [Film(file, name, view) for file, name, view in read_rows(path)]


# ---------------------------------------------------------------------------------------------------- the command

def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m chexpert_hier.predict", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("films", nargs="+", metavar="FILM|FOLDER|GLOB|CSV", help="JPEG, PNG or DICOM files, and where they lie")
    add("--model", nargs="+", required=True, metavar="MODEL", help="finished runs, .keras files inside runs, or "
        "SavedModels; several are an ensemble")
    add("--out", type=Path, help=".csv or .json file to write; without it the answer is printed")
    add("--heatmaps", type=Path, metavar="DIR", help="also draw where the (first) run looks, as chexpert_hier.heatmaps")
    add("--tta", type=int, default=0, metavar="N", help="average over N random views of each film (the paper: 10)")
    add("--tta-composed", action="store_true", help="apply all four transformations in every draw")
    add("--tta-original", action="store_true", help="count the film as it is as one more view")
    add("--average", default="probabilities", choices=("probabilities", "conditional"),
        help="ensemble mean after (the paper) or before the chain rule")
    add("--uncertainty", default="", metavar="HOW", help="mc:T (T passes with dropout; a run of the recipe hbce) or "
        "ensemble (of the models given): adds entropy and mutual information")
    add("--seed", type=int, default=0, help="of the random views and of dropout")
    add("--batch-size", type=int, default=32)
    add("--skip-bad", action="store_true", help="films that cannot be used are no failure; they are listed either way")
    add("--resume", action="store_true", help="go on where an interrupted run with the same --out stopped")
    add("--quiet", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if args.tta < 0 or args.batch_size < 1:
        raise InputError(f"--tta is {args.tta} and --batch-size {args.batch_size}; expected 0 or more, and 1 or more")
    if args.uncertainty and not re.fullmatch(r"ensemble|mc:[1-9]\d{0,3}", args.uncertainty):
        raise InputError(f"--uncertainty is {args.uncertainty!r}; expected ensemble or mc:T, e.g. mc:10")
    if args.out and args.out.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"--out {args.out}: expected a name that ends in .csv or .json")
    if args.quiet:
        logging.getLogger("chexpert_hier").setLevel(logging.WARNING)
    films = find_films(args.films)
    if len(films) == 1:
        _open(films[0], takes_lateral=True)  # a film that cannot be read need not wait for TensorFlow
    members = [open_model(model) for model in args.model]
    ask = {"views": Views(args.tta, args.seed, args.tta_composed, args.tta_original, args.batch_size,
                          args.uncertainty),
           "average": args.average, "validation": _validation(args, members), "skip_bad": True,
           "seen": _drawer(args, members[0]) if args.heatmaps else None}
    if args.out:
        with locked(args.out.parent / f".{args.out.name}.work"):
            left_out = _to_file(args, members, films, ask)
    else:
        left_out = _to_screen(members, films, ask)
    for name, reason in left_out:
        print(f"{name}: left out, {reason}", file=sys.stderr)
    if left_out and not args.skip_bad:
        rest = f"the other {len(films) - len(left_out)} are answered" if len(left_out) < len(films) else "none is left"
        raise InputError(f"{left_out[0][0]}: {left_out[0][1]}" if len(films) == 1 else
                         f"{len(left_out)} of {len(films)} films left out, see above; {rest}. With --skip-bad this is "
                         "no failure")
    return 0


def _validation(args, members) -> dict | None:
    """Operating points of the model or ensemble, where its validation films tell them."""
    if len(members) == 1:
        return members[0].validation()
    if args.average != "probabilities" or any(isinstance(member, Saved) for member in members):
        return None
    return operating.validation([member.folder for member in members], members[0].labels)


def _drawer(args, member) -> Callable[[list[Read]], None]:
    from . import heatmaps

    if isinstance(member, Saved):
        raise InputError(f"{member.folder}: a SavedModel holds no maps; --heatmaps needs the run folder")
    chosen = [label for label in labels.COMPETITION_LABELS if label in member.labels] or list(member.labels)

    def draw(read: list[Read]) -> None:
        for lateral in (False, True):
            part = [one for one in read if one.film.lateral == lateral]
            for start in range(0, len(part), args.batch_size):
                some = part[start:start + args.batch_size]
                maps = heatmaps.film_maps(member, [one.film for one in some], [one.grey for one in some], chosen)
                for film_maps, one in zip(maps, some):
                    heatmaps.draw(args.heatmaps, film_maps, one.grey)

    return draw


def _to_screen(members, films, ask) -> list[tuple[str, str]]:
    left_out = []
    if ask["validation"]:
        log.info("%s", answers.legend(ask["validation"], ask["views"].draws))
    for table, bad in predict_films(members, films, **ask):
        text = answers.as_text(table, members[0].tree, ask["validation"])
        if text:
            print(text)
        left_out += bad
    return left_out


def _to_file(args, members, films, ask) -> list[tuple[str, str]]:
    """Answer portion by portion into a work folder, and put the finished portions together at the end."""
    if args.out.exists() and not args.resume:
        raise InputError(f"{args.out}: exists; choose another --out, or --resume to go on with an interrupted run")
    work = args.out.parent / f".{args.out.name}.work"
    asked = json.dumps([[str(m.folder) for m in members], [film.name for film in films], vars(ask["views"]),
                        args.average, str(args.heatmaps)])
    remove_leftovers(work)
    for path in (args.out, args.out.with_suffix(".skipped.csv")):
        remove_leftovers_of(path)
    known = args.resume and (work / "asked.json").exists() and (work / "asked.json").read_text() == asked
    if not known:
        for old in work.glob("*.csv"):
            old.unlink()
    write_text(work / "asked.json", asked)
    bar = commands.Bar("predict", len(films))
    for start in range(0, len(films), CHUNK):
        done = work / f"{start:09d}.csv"
        part = films[start:start + CHUNK]
        if not done.exists() or not done.with_suffix(".skipped").exists():
            table, bad = next(predict_films(members, part, **ask))
            write_text(done.with_suffix(".skipped"), _csv([("Path", "reason"), *bad]))
            write_text(done, table.to_csv(index=False, float_format="%.7g"))
        bar.add(len(part))
    bar.close()
    return _join(work, args.out, members, ask["validation"])


def _join(work: Path, out: Path, members, validation) -> list[tuple[str, str]]:
    """The finished portions as one file; gives the films left out, which are also listed beside it."""
    whole = {}
    for pattern in ("*.csv", "*.skipped"):
        parts = [file.read_text(encoding="utf-8").splitlines() for file in sorted(work.glob(pattern))]
        whole[pattern] = "\n".join([parts[0][0], *(line for part in parts for line in part[1:])]) + "\n"
    skipped = list(csv.reader(io.StringIO(whole["*.skipped"])))[1:]
    if skipped:
        write_text(out.with_suffix(".skipped.csv"), whole["*.skipped"])
    if out.suffix.lower() == ".json":
        table = pd.read_csv(io.StringIO(whole["*.csv"]), dtype={"Path": str, "[flag]": str}, keep_default_na=False,
                            na_values={name: [""] for name in whole["*.csv"].split("\n")[0].split(",")
                                       if name not in ("Path", "[flag]")})
        write_text(out, json.dumps(answers.as_json(table, members, validation, skipped), indent=1) + "\n")
    else:
        write_text(out, whole["*.csv"])
    shutil.rmtree(work)
    return [tuple(row) for row in skipped]


def _csv(rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(commands.answer(main))
