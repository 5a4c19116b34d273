"""From films and finished runs to probabilities: crops, test-time views, chain rule, ensemble mean, one row per film.

    python -m chexpert_hier.predict film.dcm --model runs/mine
    python -m chexpert_hier.predict CheXpert-v1.0/valid.csv --model run1 run2 run3 --tta 10 --out predictions.csv
"""

import argparse
import csv
import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from .. import commands, labels
from ..errors import InputError
from ..files import locked, remove_leftovers, remove_leftovers_of, write_text
from ..finished import operating
from ..finished.asked import find_films
from ..finished.members import Saved, Views, open_model
from . import answers
from .predicting import CHUNK, predict_films
from .reading import Caution, Read, open_film

log = logging.getLogger("chexpert_hier.predict")


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
    add("--root", type=Path, metavar="DIR", help="folder that the paths in a CSV start from (default: the CSV's own)")
    add("--allow-outside", action="store_true", help="paths in a CSV and links in a folder may leave it")
    add("--skip-bad", action="store_true", help="films that cannot be used are no failure; they are listed either way")
    add("--accept-damaged", action="store_true", help="answer, with a flag, for JPEGs whose picture data is broken or "
        "short (also in DICOM), instead of leaving them out")
    add("--refuse-odd", action="store_true", help="no probabilities for films that are flagged: not a frontal chest "
        "film, inverted, turned, in colour, damaged")
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
    films = find_films(args.films, root=args.root, allow_outside=args.allow_outside)
    if len(films) == 1:
        open_film(films[0], True, args.accept_damaged)  # a film that cannot be read need not wait for TensorFlow
    members = [open_model(model) for model in args.model]
    ask = {"views": Views(args.tta, args.seed, args.tta_composed, args.tta_original, args.batch_size,
                          args.uncertainty),
           "average": args.average, "caution": Caution(args.accept_damaged, args.refuse_odd),
           "validation": _validation(args, members), "skip_bad": True,
           "seen": _drawer(args, members[0]) if args.heatmaps else None}
    if args.out:
        with locked(args.out.parent / f".{args.out.name}.work"):
            flags, left_out = _to_file(args, members, films, ask)
    else:
        flags, left_out = _to_screen(members, films, ask)
    for name, reason in left_out:
        print(f"{name}: left out, {reason}", file=sys.stderr)
    if said := answers.of_flags(flags, args.refuse_odd):
        print(said, file=sys.stderr)
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
    from ..heatmaps import maps

    if isinstance(member, Saved):
        raise InputError(f"{member.folder}: a SavedModel holds no maps; --heatmaps needs the run folder")
    chosen = [label for label in labels.COMPETITION_LABELS if label in member.labels] or list(member.labels)

    def draw(read: list[Read]) -> None:
        for lateral in (False, True):
            part = [one for one in read if one.film.lateral == lateral]
            for start in range(0, len(part), args.batch_size):
                some = part[start:start + args.batch_size]
                found = maps.film_maps(member, [one.film for one in some], [one.grey for one in some], chosen)
                for film_maps, one in zip(found, some):
                    maps.draw(args.heatmaps, film_maps, one.grey)

    return draw


def _to_screen(members, films, ask) -> tuple[list[str], list[tuple[str, str]]]:
    """Print the answers; gives the films' flags, and the films left out."""
    flags, left_out = [], []
    if ask["validation"]:
        log.info("%s", answers.legend(ask["validation"], ask["views"].draws))
    for table, bad in predict_films(members, films, **ask):
        text = answers.as_text(table, members[0].tree, ask["validation"])
        if text:
            print(text)
        flags += list(table["[flag]"])
        left_out += bad
    return flags, left_out


def _to_file(args, members, films, ask) -> tuple[list[str], list[tuple[str, str]]]:
    """Answer portion by portion into a work folder, and put the finished portions together at the end; gives the films'
    flags, and the films left out."""
    if args.out.exists() and not args.resume:
        raise InputError(f"{args.out}: exists; choose another --out, or --resume to go on with an interrupted run")
    work = args.out.parent / f".{args.out.name}.work"
    asked = json.dumps([[str(m.folder) for m in members], [film.name for film in films], vars(ask["views"]),
                        args.average, str(args.heatmaps), vars(ask["caution"])])
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


def _join(work: Path, out: Path, members, validation) -> tuple[list[str], list[tuple[str, str]]]:
    """The finished portions as one file; gives the films' flags, and the films left out, also listed beside it."""
    whole = {}
    for pattern in ("*.csv", "*.skipped"):
        parts = [file.read_text(encoding="utf-8").splitlines() for file in sorted(work.glob(pattern))]
        whole[pattern] = "\n".join([parts[0][0], *(line for part in parts for line in part[1:])]) + "\n"
    skipped = list(csv.reader(io.StringIO(whole["*.skipped"])))[1:]
    if skipped:
        write_text(out.with_suffix(".skipped.csv"), whole["*.skipped"])
    flags = [row["[flag]"] for row in csv.DictReader(io.StringIO(whole["*.csv"]))]
    if out.suffix.lower() == ".json":
        table = pd.read_csv(io.StringIO(whole["*.csv"]), dtype={"Path": str, "[flag]": str}, keep_default_na=False,
                            na_values={name: [""] for name in whole["*.csv"].split("\n")[0].split(",")
                                       if name not in ("Path", "[flag]")})
        write_text(out, json.dumps(answers.as_json(table, members, validation, skipped), indent=1) + "\n")
    else:
        write_text(out, whole["*.csv"])
    shutil.rmtree(work)
    return flags, [tuple(row) for row in skipped]


def _csv(rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(commands.answer(main))
