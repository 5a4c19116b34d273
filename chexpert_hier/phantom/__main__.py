"""Draw a synthetic CheXpert.

    python -m chexpert_hier.phantom --out phantom-data
"""

import argparse
import time

from .. import commands
from ..errors import InputError
from .making import make, read_marker
from .settings import Settings


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    words = commands.Parser("python -m chexpert_hier.phantom", description="Draw a synthetic CheXpert: films, "
                                    "report labels, clean truth and finding masks. No real patient is shown.")
    words.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    words.add_argument("--patients", type=int, default=Settings.patients, help="training patients (default: "
                       "%(default)s), with several films each; those for validation and test come on top")
    words.add_argument("--valid-patients", type=int, default=Settings.valid_patients,
                       help="validation patients, one study each (default: %(default)s)")
    words.add_argument("--test-patients", type=int, help="test patients, one study each (default: as many as "
                       "for validation)")
    words.add_argument("--seed", type=int, default=Settings.seed, help="same seed, same bytes (default: %(default)s)")
    words.add_argument("--report-noise", type=float, default=Settings.report_noise,
                       help="how wrong and how vague the training reports are: 1 as CheXpert, 0 clean "
                       "(default: %(default)s)")
    words.add_argument("--no-laterals", action="store_true", help="frontal views only")
    words.add_argument("--most-studies", type=int, default=Settings.most_studies,
                       help="at most this many studies per training patient (default: %(default)s)")
    words.add_argument("--processes", type=int, default=None, help="processes that draw (default: one per core)")
    return words


def main(argv: list[str] | None = None) -> int:
    """Draw a phantom data set and say where it lies."""
    given = parser().parse_args(argv)
    if read_marker(given.out):
        raise InputError(f"{given.out}: a phantom is there already; remove it or choose another --out")
    test = given.valid_patients if given.test_patients is None else given.test_patients
    print(f"drawing {_listed(given.patients, given.valid_patients, test)} patients", flush=True)
    start = time.monotonic()
    out = make(given.out, processes=given.processes, patients=given.patients, valid_patients=given.valid_patients,
               test_patients=test, seed=given.seed, report_noise=given.report_noise,
               laterals=not given.no_laterals, most_studies=given.most_studies)
    films = read_marker(out)["films"]
    seconds = time.monotonic() - start
    print(f"{out}: {_listed(*films.values())} films, synthetic (no real patient), "
          f"{sum(films.values()) / seconds:.0f} films a second")
    return 0


def _listed(*numbers: int) -> str:
    """1,200 training, 300 validation and 300 test, of these that there are."""
    words = [f"{number:,} {name}" for number, name in zip(numbers, ("training", "validation", "test")) if number]
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
