"""Where a network looks: class activation maps and Grad-CAM on the film's own pixels, as pictures and numbers.

    python -m chexpert_hier.heatmaps film.jpg --model runs/mine --labels Edema "Pleural Effusion" --out maps

A map is float32 (h, w), on the last feature maps' grid; `overlays` lays it onto the film, `localise` scores it there.
Keras is imported inside functions, so that `--help` answers at once.
"""

import argparse
import csv
import io
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import commands
from ..errors import InputError, one_of
from ..files import locked, write_text
from ..finished import fingerprint
from ..finished.arguments import add_reading
from ..finished.asked import Film
from ..finished.members import Member
from ..labels import COMPETITION_LABELS
from .maps import METHODS, PLACES, draw, film_maps, layer_of, map_file, resolution, summary_rows, thresholds
from .overlays import FilmMaps, read_maps

log = logging.getLogger("chexpert_hier.heatmaps")
ASKED = ".asked.json"  # in --out: what the finished maps show


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.heatmaps", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("films", nargs="+", metavar="FILM|FOLDER|CSV", help="films (JPEG, PNG, TIFF, WebP or DICOM), folders of "
        "them, or a CSV with a column Path")
    add("--model", required=True, metavar="RUN", help="a finished run")
    add("--out", type=Path, required=True, help="folder for the overlays (.png), the maps (.npz) and maps.csv")
    add("--labels", nargs="+", metavar="LABEL", help="findings (default: the competition's five, or all where "
        "the run has none of these)")
    add("--method", choices=METHODS, help="default: cam at the last maps where the head "
        "allows it, else grad-cam; layer-cam at an earlier layer")
    add("--layer", default="auto", metavar="NAME", help="whose maps: last, a layer's name, or auto (default): the last "
        "maps, or an earlier layer where they have fewer than 7 x 7 cells")
    add("--all", action="store_true", help="draw findings that are called absent too")
    add("--place", choices=PLACES, default="stretched", help="stretched: lay the map over the whole crop, as the "
        "papers do; centred (ours): put each cell where the centre of what it sees lies")
    add("--threshold", type=float, default=0.0, help="draw only what reaches this share of the largest "
        "value (default: 0)")
    add("--batch-size", type=int, default=16, help="films through the network at once (default: %(default)s)")
    add_reading(answer, "leave out films that cannot be read, and say so")
    add("--resume", action="store_true", help=commands.RESUME)
    answer.add_quiet()
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if not 0 <= args.threshold < 1 or args.batch_size < 1:
        raise InputError(f"--threshold is {args.threshold} and --batch-size {args.batch_size}; expected a share in "
                         "[0, 1), and 1 or more")
    commands.hush(args)
    from ..finished import asked, members

    films = asked.find_films(args.films, allow_outside=args.allow_outside)
    if not args.resume and args.out.exists() and any(args.out.iterdir()):
        raise InputError(f"{args.out}: is not empty; choose another --out, or --resume to go on with it")
    member = members.open_run(args.model)
    labels = tuple(args.labels or [label for label in COMPETITION_LABELS if label in member.labels] or member.labels)
    for label in labels:
        one_of("label (--labels)", label, member.labels)
    layer = "last" if args.method == "cam" else layer_of(member.model, args.layer) or "last"
    log.info("maps of the layer %s", resolution(member, layer))
    with locked(args.out):
        _begin(args, fingerprint.of_model(member.file), films, labels, layer)
        rows, drawn = _draw_all(args, member, films, labels, layer)
    print(f"{drawn} maps of {len({row[0] for row in rows})} films in {args.out}" + (
        "" if drawn == len(rows) else f"; {len(rows) - drawn} findings are called absent and not drawn (--all draws "
        "them)"))
    return 0


def _begin(args: argparse.Namespace, model: dict, films: Sequence[Film], labels: tuple[str, ...], layer: str) -> None:
    """See that the maps that are there are this very job's, and write down what it is."""
    options = {name: getattr(args, name) for name in ("method", "place", "threshold", "all")}
    asked = {"model": model, "films": fingerprint.of_films(films), "labels": labels, "layer": layer, "options": options}
    if not fingerprint.goes_on(args.out / ASKED, asked, args.out):
        if strange := [path.name for path in sorted(args.out.iterdir()) if path.name[0] != "."]:
            raise InputError(f"{args.out}: --resume: holds {strange[0]}, and it cannot be told of which job (no "
                             f"{ASKED}); choose another --out")
        write_text(args.out / ASKED, json.dumps(asked))


def _draw_all(args: argparse.Namespace, member: Member, films: Sequence[Film], labels: tuple[str, ...],
              layer: str) -> tuple[list[tuple], int]:
    present = None if args.all else thresholds(member.validation(), labels)
    rows, bar = [], commands.Bar("heatmaps", len(films))
    waiting: dict[bool, list] = {False: [], True: []}  # per view, each of which has its own template

    def flush(lateral: bool) -> None:
        if waiting[lateral]:
            batch = film_maps(member, *zip(*waiting[lateral]), labels, args.method, args.place, layer)
            for (_, grey), maps in zip(waiting[lateral], batch):
                draw(args.out, maps, grey, args.threshold, present)
                rows.extend(summary_rows(maps))
            waiting[lateral].clear()

    for film in films:
        done = map_file(args.out, film.name, ".npz")
        kept = read_maps(done) if done.exists() else None
        if kept and _finished(args, kept, present):
            rows += summary_rows(kept)
        elif (grey := _read(film, member, args.skip_bad)) is not None:
            waiting[film.lateral].append((film, grey))
            if len(waiting[film.lateral]) == args.batch_size:
                flush(film.lateral)
        bar.add()
    for lateral in waiting:
        flush(lateral)
    bar.close()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("Path", "label", "probability", "row", "column", "value"), *rows])
    write_text(args.out / "maps.csv", text.getvalue())
    return rows, sum(present is None or float(row[2]) >= present[row[1]] for row in rows)


def _finished(args: argparse.Namespace, kept: FilmMaps, present: dict[str, float] | None) -> bool:
    """Whether a film has all its pictures."""
    pictures = [label for label, probability in zip(kept.labels, kept.probabilities)
                if present is None or probability >= present[label]]
    return all(map_file(args.out, kept.path, f" {label}.png").exists() for label in pictures)


def _read(film: Film, member: Member, skip_bad: bool) -> np.ndarray | None:
    from ..films.decode import read_film

    try:
        if film.lateral and "Lateral" not in member.croppers:
            raise InputError(f"{film.name}: a lateral film; the model was trained on frontal films only. Leave it out, "
                             "or use --skip-bad")
        return read_film(film.file, film.name)
    except InputError as error:
        if not skip_bad:
            raise
        log.warning("left out: %s", error)
        return None


if __name__ == "__main__":
    sys.exit(commands.answer(main))
