"""JSON values against the types of a dataclass: what one of our files holds is checked before anything uses it."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import InputError

Kind = TypeVar("Kind")
WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


def read(kind: type[Kind], fields: object, where: str, extras: bool = False) -> Kind:
    """Build a dataclass from the values that `json.loads` gives; lists become tuples.

    Args:
        kind: the dataclass; its fields' types may be str, bool, int, float, None, unions of these, other dataclasses,
            tuple[X, ...], tuple[X, Y], list[X], dict[str, X] and Any. A field without a default must be there.
        fields: what should be an object with these fields.
        where: what errors begin with, e.g. "run/recipe.json".
        extras: pass over fields that the dataclass does not have, at this level.

    Raises:
        InputError: a field is missing, unknown or not of its type.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f"{where}: expected an object with fields, received {_short(fields)}")
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    unknown = sorted(str(name) for name in set(fields) - set(known))
    if unknown and not extras:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; expected fields: {', '.join(sorted(known))}. Was it "
                         "written by another version?")
    for name, field in known.items():
        if name not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: the field {name!r} is missing. Was it written by another version?")
    hints = typing.get_type_hints(kind)
    return kind(**{name: value(hints[name], fields[name], f"{where}: {name}") for name in known if name in fields})


def value(hint: Any, given: object, where: str) -> Any:
    """One value as its type; see `read`.

    Raises:
        InputError: it is of another type.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return given
    if dataclasses.is_dataclass(hint):
        return read(hint, given, where)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, given, where)
    if origin is tuple:
        return _tuple(inner, given, where)
    if origin is list:
        return list(_tuple((inner[0], ...), given, where))
    if origin is dict:
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise InputError(f"{where}: expected an object, received {_short(given)}")
        return {key: value(inner[1], one, f"{where}.{key}") for key, one in given.items()}
    return _plain(hint, given, where)


def _one_of(kinds: tuple[Any, ...], given: object, where: str) -> Any:
    problem = None
    for kind in kinds:
        try:
            return value(kind, given, where)
        except InputError as error:
            problem = problem or error
    assert problem is not None  # a union has members
    raise problem


def _tuple(inner: tuple[Any, ...], given: object, where: str) -> tuple[Any, ...]:
    many = inner[1:] == (...,)
    if not isinstance(given, list | tuple) or not (many or len(given) == len(inner)):
        raise InputError(f"{where}: expected {'a list' if many else f'{len(inner)} values'}, received {_short(given)}")
    kinds = inner[:1] * len(given) if many else inner
    return tuple(value(kind, one, f"{where}[{k}]") for k, (kind, one) in enumerate(zip(kinds, given)))


def _plain(kind: type, given: object, where: str) -> Any:
    fits = isinstance(given, kind) and not (isinstance(given, bool) and kind is not bool)
    if kind is float and isinstance(given, int | float) and not isinstance(given, bool):
        fits = abs(given) < 1e300 and math.isfinite(given)  # the first for whole numbers that no float holds
        given = float(given) if fits else given
    if not fits:
        raise InputError(f"{where}: expected {WORDS[kind]}, received {_short(given)}")
    return given


def _short(given: object) -> str:
    try:
        text = repr(given)
    except (ValueError, RecursionError):  # more digits than Python prints, or nested too deeply
        text = "something very large"
    return text if len(text) <= 60 else f"{text[:57]}..."
