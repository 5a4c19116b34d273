"""Check a data set before hours of work.

    python -m chexpert_hier.datasets CheXpert-v1.0-small
"""

import argparse
import json
import os

from .. import commands
from ..files import write_text
from ..labels import BLANKS
from . import reading
from .options import Options


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = commands.Parser(prog="python -m chexpert_hier.datasets", description=(
        "Check a data set before hours of work: tables, patients, splits and films. The header is row 1."))
    result.add_argument("data", metavar="DIR", help="folder that the data set unpacked into")
    result.add_argument("--reader", default="chexpert", choices=reading.READERS,
                        help="layout of DIR (default: %(default)s)")
    result.add_argument("--labels", help="label columns, separated by commas")
    result.add_argument("--train-file", default="train.csv", help="the table of training films, e.g. "
                        "train_visualCheXbert.csv, or which labels where a reader has a choice (docs/datasets.md)")
    result.add_argument("--split", default="auto", choices=("auto", "official"),
                        help="a table without a split of its own counts as training films here")
    result.add_argument("--seed", type=int, default=0, help="random seed of smoothed targets")
    result.add_argument("--allow-outside", action="store_true", help="let paths and links lead out of the data folder")
    result.add_argument("--tables-only", action="store_true", help="open no film (seconds for all of CheXpert)")
    result.add_argument("--counts", action="store_true",
                        help="print rows, cells and target means per policy and reading of conditional training, "
                        "in place of the checks")
    result.add_argument("--tree", default=None, help="for --counts: a known tree or a JSON file {child: [parents]}")
    result.add_argument("--blank", default="negative", choices=BLANKS, help="for --counts: what a blank cell counts as")
    result.add_argument("--closure", action="store_true",
                        help="for --counts: first give every finding's ancestors its certainty")
    result.add_argument("--strict", action="store_true", help="exit with 1 when there is an error in the report")
    result.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that open films")
    result.add_argument("--out", help="write the report (.json) or the counts (.csv or .json) as well")
    return result


def main(argv: list[str] | None = None) -> int:
    """Check a data set, or count its targets; 0, or 1 with --strict and an error in the report."""
    from . import checks

    args = parser().parse_args(argv)
    names = tuple(name.strip() for name in args.labels.split(",")) if args.labels else None
    options = Options(reader=args.reader, labels=names, views="both", train_file=args.train_file, split=args.split,
                      seed=args.seed, allow_outside=args.allow_outside,
                      fractions=(1.0, 0.0, 0.0))  # a table without a split of its own is described as a whole
    if args.counts:
        dataset = reading.read(args.data, options)
        checks.print_counts(dataset, args.tree, args.blank, args.closure, args.seed, args.out)
        return 0
    report = checks.check(args.data, options, open_films=not args.tables_only, workers=args.workers)
    checks.print_report(report)
    if args.out:
        write_text(args.out, json.dumps(report, indent=1) + "\n")
    return int(args.strict and any(entry["level"] == "error" for entry in report["problems"]))


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
