"""The one error that a user can mend: shown as a single line, exit code 2, no traceback."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class InputError(ValueError):
    """Input that cannot be used.

    The message is one line that says where, what was expected, what came, and what to do, e.g.
    ``train.csv, row 118: Edema is 2.0; expected 1, 0, -1 or blank. Is this a CheXpert CSV?``
    """


def one_of(what: str, value: object, valid: Iterable[object]) -> None:
    """Refuse `value` unless it is among `valid`, listing the valid ones and naming the nearest.

    Raises:
        InputError: `value` is not in `valid`.
    """
    if value not in valid:
        names = list(map(str, valid))
        raise InputError(f"{what} is {value!r}; expected one of: {', '.join(names)}{did_you_mean(str(value), names)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to end a message with, where a known name is like `name`, in whatever case; else nothing.

    >>> did_you_mean("DenseNet12", ["densenet121", "xception"])
    '. Did you mean densenet121?'
    """
    lowered = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lowered, 1)
    return f". Did you mean {lowered[near[0]]}?" if near else ""


def install(extra: str) -> str:
    """How an extra of this package is installed: out of the checkout where one is worked in, else by its name."""
    here = Path("setup.cfg")
    checkout = here.is_file() and "name = chexpert_hier" in here.read_text(encoding="utf-8", errors="replace")
    return f'pip install "{"." if checkout else "chexpert_hier"}[{extra}]"'
