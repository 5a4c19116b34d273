"""The one error that a user can mend: shown as a single line, exit code 2, no traceback."""

from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used.

    The message is one line that says where, what was expected, what came, and what to do, e.g.
    ``train.csv, row 118: Edema is 2.0; expected 1, 0, -1 or blank. Is this a CheXpert CSV?``
    """


def one_of(what: str, value: object, valid: Iterable[object]) -> None:
    """Refuse `value` unless it is among `valid`, listing the valid ones.

    Raises:
        InputError: `value` is not in `valid`.
    """
    if value not in valid:
        raise InputError(f"{what} is {value!r}; expected one of: {', '.join(map(str, valid))}")
