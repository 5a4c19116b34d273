"""Does this machine give the right answers? Three films, a small model, every engine that is installed.

    python -m chexpert_hier.selftest
"""

import argparse
import logging
import sys

from .. import commands
from ..errors import InputError


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    return commands.Parser(prog="python -m chexpert_hier.selftest", description=__doc__.splitlines()[0])


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when every installed engine gives the shipped answers."""
    parser().parse_args(argv)
    logging.getLogger("chexpert_hier").setLevel(logging.WARNING)  # its model has no validation films to speak of
    from .checking import TOLERANCE, check

    results = []
    for result in check():
        results.append(result)
        said = result.problem or (f"largest difference {result.difference:.1e}, match {result.match:.1e}, flags "
                                  f"{'the same' if result.flags else 'DIFFER'}")
        print(f"{result.engine:<20} {'good' if result.good else 'skipped' if _skipped(result) else 'WRONG':<8} {said}",
              flush=True)
    wrong = [result.engine for result in results if not result.good and not _skipped(result)]
    if wrong or all(map(_skipped, results)):
        raise InputError(f"selftest: {', '.join(wrong) or 'no engine'} does not give the shipped answers (to "
                         f"{TOLERANCE:g}); do not trust what this installation says, and report it")
    return 0


def _skipped(result) -> bool:
    return result.problem == "not installed"


if __name__ == "__main__":
    sys.exit(commands.answer(main))
