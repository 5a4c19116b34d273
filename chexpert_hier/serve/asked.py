"""What a request asks for, whichever protocol it came by, and the named outputs that every protocol answers with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .model import Reading, ServedModel

VIEWS = ("", "frontal", "lateral")


@dataclass(frozen=True)
class Film:
    """One film of a request: a file's bytes, or pixels, uint8 (h, w), that were decoded already."""

    data: bytes = b""
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        films: in order.
        view: of all of them: "frontal", "lateral", or "" where the files themselves may say it.
        skip_bad: answer for the other films where some cannot be used; else the request fails.
        maps: whether maps are wanted.
    """

    films: tuple[Film, ...]
    view: str = ""
    skip_bad: bool = False
    maps: bool = False

    def __post_init__(self):
        if self.view not in VIEWS:
            raise InputError("view: expected frontal, lateral, or nothing where the films may say it themselves")
        if not isinstance(self.skip_bad, bool):
            raise InputError("skip_bad: expected true or false")


@dataclass(frozen=True)
class BadFilm:
    """A film that cannot be used, and why."""

    reason: str


def outputs(answers: Sequence[Reading | BadFilm], model: ServedModel) -> dict[str, np.ndarray]:
    """Named arrays, (films, ...), with NaN (false, "") in the rows of films that cannot be used.

    Names and meaning are those of the SavedModel (`export`): probabilities, conditional, spread, calibrated, float32
    (films, labels); present, bool (films, labels); match, float32 (films,); and ours: entropy, mutual_information,
    float32 (films, labels); flag and error, str (films,); maps, float32 (films, labels, h, w), with map_place, float32
    (films, 6): first row, first column and side of the crop in the rescaled film, the rescaled film's side, and the
    first cell's centre and the step of the map's cells as shares of the crop's side.
    """
    nothing = np.full(len(model.labels), np.nan)
    found = {name: [one.value(name) if isinstance(one, Reading) else nothing for one in answers]
             for name in ("probabilities", *model.outputs)}
    found["match"] = [getattr(one, "match", np.nan) for one in answers]
    first = next((one.maps for one in answers if isinstance(one, Reading) and one.maps is not None), None)
    if first is not None:
        found |= _maps(answers, first)
    out = {name: np.array(values, np.float32) for name, values in found.items()}
    if "present" in out:
        out["present"] = out["present"] == 1
    out["flag"] = np.array([getattr(one, "flag", "") for one in answers], object)
    out["error"] = np.array([getattr(one, "reason", "") for one in answers], object)
    return out


def _maps(answers, first) -> dict[str, list]:
    empty = np.full(first.heat.shape, np.nan)
    return {"maps": [one.maps.heat if isinstance(one, Reading) else empty for one in answers],
            "map_place": [[*one.maps.place, one.maps.crop, one.maps.rescaled, *one.maps.cells]
                          if isinstance(one, Reading) else [np.nan] * 6 for one in answers]}
