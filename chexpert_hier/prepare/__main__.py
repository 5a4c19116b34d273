"""Decode, rescale, match and crop every film once.

    python -m chexpert_hier.prepare --data CheXpert-v1.0-small --out crops
"""

import argparse
import sys
from pathlib import Path

import cv2

from .. import commands, recipes
from ..datasets import joint, presence, reading
from . import sources
from .croppers import in_words
from .making import prepare


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.prepare", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("--data", type=Path, action="append", required=True, help="the data set's folder; repeat it for several that "
        "are trained on together")
    add("--out", type=Path, required=True, help="the cache folder")
    add("--recipe", default="pham2019", help=f"the recipe whose crops to make: {', '.join(recipes.RECIPES)} "
        "(default: %(default)s)")
    add("--seed", type=int, help="random seed of the template's films")
    add("--reader", action="append", help=f"layout of --data: {', '.join(reading.READERS)}; once for all, or once "
        "for each")
    add("--labels", help="with --reader csv: label columns, separated by commas")
    add("--views", help="frontal, lateral or both; laterals get a template of their own")
    add("--limit", type=int, help="use about this many training films (whole patients)")
    add("--resize", help="how films are rescaled: auto, bilinear, area")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="any other field of the recipe, e.g. "
        "rescaled_size=364 or crop_size=320")
    add("--resume", action="store_true", help=commands.RESUME)
    add("--skip-bad", action="store_true", help="leave unreadable films black and list them in skipped.csv")
    add("--allow-outside", action="store_true", help="let paths and links lead out of the data folder")
    add("--workers", type=int, help="threads (default: one per core)")
    answer.add_quiet()
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    args.reader = joint.BETWEEN.join(args.reader) if args.reader else None
    commands.hush(args)
    recipe = recipes.change(recipes.named(args.recipe), *args.set,
                            **{name: getattr(args, name) for name in ("seed", "reader", "views", "resize")})
    commands.at_least(1, args, "workers")
    cv2.setNumThreads(1)  # films go to threads of their own
    names = [name.strip() for name in args.labels.split(",")] if args.labels else None
    dataset = sources.read_data(recipe, args.data, names, args.limit, allow_outside=args.allow_outside)
    if not args.allow_outside:
        presence.require_inside(dataset)
    cache = prepare(dataset, recipe, args.out, resume=args.resume, skip_bad=args.skip_bad, workers=args.workers)
    for view, report in cache.search().items():
        print(f"{view.lower()} films: {in_words(report)}")
    mean, std = cache.pixel_statistics
    print(f"{args.out}: {len(cache.crops):,} crops of {cache.crops.shape[1]} pixels, {cache.crops.nbytes / 1e9:.2f} "
          f"GB, {cache.meta['skipped']} skipped; training pixels {mean:.4f} +- {std:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
