"""The whole run on one page: report.html, which needs no network and no other file.

    python -m chexpert_hier.report runs/mine

Takes a finished run folder; the films are read where recipe.json says they lie, and left out where they are gone.
"""

import argparse
import sys
from pathlib import Path

from .. import commands
from .page import write


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.report", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("run", type=Path, metavar="RUN", help="a finished run folder")
    add("--out", type=Path, metavar="PAGE", help="the page to write (default: report.html in the run folder)")
    add("--data", type=Path, action="append", metavar="DIR", help="the folder of the run's films, where they have "
        "moved or the run does not say (repeat it where there were several)")
    add("--replicates", type=int, default=1000, help="bootstrap resamples of patients (default: 1000)")
    add("--no-films", action="store_true", help="leave out the examples on films; the network is not loaded")
    answer.add_quiet()
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    commands.at_least(0, args, "replicates")
    commands.hush(args)
    print(f"report: {write(args.run, args.out, replicates=args.replicates, films=not args.no_films, data=args.data)}")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
