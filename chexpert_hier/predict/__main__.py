"""From films and finished runs to probabilities: crops, test-time views, chain rule, ensemble mean, one row per film.

    python -m chexpert_hier.predict film.dcm --model runs/mine
    python -m chexpert_hier.predict CheXpert-v1.0/valid.csv --model run1 run2 run3 --tta 10 --out predictions.csv
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import commands, labels
from ..errors import InputError
from ..files import locked
from ..finished.arguments import add_models, add_reading
from ..finished.asked import Film, find_films
from ..finished.members import Member, Saved, Views
from . import answers, job
from .engine import Engine
from .predicting import LeftOut, Seen, predict_films
from .reading import Caution, Read, open_film

log = logging.getLogger("chexpert_hier.predict")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.predict", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("films", nargs="+", metavar="FILM|FOLDER|GLOB|CSV", help="films (JPEG, PNG, TIFF, WebP or DICOM), "
        "folders of them, or a CSV with a column Path")
    add_models(answer)
    add("--out", type=Path, help=".csv or .json file to write; without it the answer is printed")
    add("--heatmaps", type=Path, metavar="DIR", help="also draw where the (first) run looks, as "
        "chexpert_hier.heatmaps does")
    add("--tta", type=int, default=0, metavar="N", help="average over N random views of each film (the paper: 10)")
    add("--tta-composed", action="store_true", help="apply all four transformations in every draw")
    add("--tta-original", action="store_true", help="count the film as it is as one more view")
    add("--average", default="probabilities", choices=("probabilities", "conditional"),
        help="ensemble mean after (the paper) or before the chain rule")
    add("--uncertainty", default="", metavar="HOW", help="mc:T (T passes with dropout; a run of the recipe hbce) or "
        "ensemble (of the models given): adds entropy and mutual information")
    add("--seed", type=int, default=0, help="random seed of the views and of dropout")
    add("--batch-size", type=int, default=32, help="films through the network at once (default: %(default)s)")
    add("--root", type=Path, metavar="DIR", help="folder that the paths in a CSV start from (default: the CSV's own)")
    add_reading(answer, "exit with 0 even if some films cannot be used; they are listed either way")
    add("--accept-damaged", action="store_true", help="answer, with a flag, for JPEGs whose picture data is broken or "
        "short (also in DICOM), instead of leaving them out")
    add("--refuse-odd", action="store_true", help="give no probabilities for flagged films: not a frontal chest "
        "film, inverted, turned, in colour, damaged")
    add("--resume", action="store_true", help=commands.RESUME)
    answer.add_quiet()
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    _check(args)
    commands.hush(args)
    films = find_films(args.films, root=args.root, allow_outside=args.allow_outside, missing_too=args.skip_bad)
    if len(films) == 1 and not args.skip_bad:
        open_film(films[0], True, args.accept_damaged)  # a film that cannot be read need not wait for the model
    views = Views(args.tta, args.seed, args.tta_composed, args.tta_original, args.batch_size, args.uncertainty)
    engine = _open(args, views)
    if engine.synthetic:
        log.warning("%s: %s", ", ".join(args.model), answers.SYNTHETIC)
    seen = _drawer(args, engine) if args.heatmaps else None
    if args.out:
        asked = job.Job(engine, films, args.out, args.resume, {"heatmaps": args.heatmaps and str(args.heatmaps)}, seen)
        with locked(asked.work):
            flags, left_out = job.run(asked)
    else:
        flags, left_out = _to_screen(engine, films, seen)
    for name, reason in left_out:
        print(commands.printable(f"{name}: left out, {reason}"), file=sys.stderr)
    if said := answers.of_flags(flags, args.refuse_odd):
        print(said, file=sys.stderr)
    if left_out and not args.skip_bad:
        raise InputError(_why_failed(left_out, len(films)))
    return 0


def _open(args: argparse.Namespace, views: Views) -> Engine:
    """The models; Keras' where maps are wanted that model.onnx does not hold."""
    caution = Caution(args.accept_damaged, args.refuse_odd)
    engine = Engine.open(args.model, views, args.average, args.engine, caution)
    if args.heatmaps and args.engine == "auto":
        from ..heatmaps.maps import FEW_CELLS

        first = engine.members[0]
        if isinstance(first, Member) and first.engine == "onnx" and min(first.model.grid) < FEW_CELLS:
            return Engine.open(args.model, views, args.average, "keras", caution)
    return engine


def _check(args: argparse.Namespace) -> None:
    commands.at_least(0, args, "tta")
    commands.at_least(1, args, "batch_size")
    if args.uncertainty and not re.fullmatch(r"ensemble|mc:[1-9]\d{0,3}", args.uncertainty):
        raise InputError(f"--uncertainty is {args.uncertainty!r}; expected ensemble or mc:T, e.g. mc:10")
    if args.out and args.out.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"--out {args.out}: expected a name that ends in .csv or .json")


def _why_failed(left_out: Sequence[LeftOut], count: int) -> str:
    if count == 1:
        return ": ".join(left_out[0])
    rest = f"the other {count - len(left_out)} are answered" if len(left_out) < count else "none is left"
    return f"{len(left_out)} of {count} films left out, see above; {rest}. With --skip-bad this is no failure"


def _to_screen(engine: Engine, films: list[Film], seen: Seen | None) -> tuple[list[str], list[LeftOut]]:
    """Print the answers; gives the films' flags, and the films left out."""
    flags: list[str] = []
    left_out: list[LeftOut] = []
    for table, bad in predict_films(engine, films, skip_bad=True, seen=seen):
        calls = table.filter(regex=r" \[call\]$")
        if engine.validation and len(films) == 1 and calls.notna().any(axis=None):  # only then calls are printed
            log.info("%s", answers.legend(engine.validation, engine.views.draws))
        text = answers.as_text(table, engine.tree, engine.validation)
        if text:
            print(commands.printable(text))
        flags += list(table["[flag]"])
        left_out += bad
    return flags, left_out


def _drawer(args: argparse.Namespace, engine: Engine) -> Seen:
    """Draws the maps of a portion of films, in batches of one view."""
    from ..heatmaps import maps

    member = engine.members[0]
    if isinstance(member, Saved):
        raise InputError(f"{member.folder}: --heatmaps needs the run folder")
    chosen = [label for label in labels.COMPETITION_LABELS if label in member.labels] or list(member.labels)
    log.info("maps of the layer %s; findings called absent get none", maps.resolution(member))
    present = maps.thresholds(member.validation(), chosen)

    def draw(read: list[Read]) -> None:
        for lateral in (False, True):
            part = [one for one in read if one.film.lateral == lateral]
            for start in range(0, len(part), args.batch_size):
                some = part[start:start + args.batch_size]
                found = maps.film_maps(member, [one.film for one in some], [one.grey for one in some], chosen)
                for film_maps, one in zip(found, some):
                    maps.draw(args.heatmaps, film_maps, one.grey, present=present)

    return draw


if __name__ == "__main__":
    sys.exit(commands.answer(main))
