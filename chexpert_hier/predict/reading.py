"""A film on its way to an answer: its pixels, its view, and what was odd about its file."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..films import dicom, plausible
from ..films.decode import decode_film, read_bytes
from ..films.grey import MIN_SIDE, FilmError, check_size
from ..finished.asked import Film
from ..phantom.films import is_drawn

FRONTAL_ONLY = "a lateral film; the model was trained on frontal films only"


@dataclass(frozen=True)
class Caution:
    """What is done about odd films.

    Attributes:
        accept_damaged: answer for JPEGs whose picture data is broken or short, with a flag, instead of refusing them.
        refuse_odd: give flagged films no probabilities.
    """

    accept_damaged: bool = False
    refuse_odd: bool = False


@dataclass(frozen=True)
class Read:
    """A film that was read.

    Attributes:
        film: with its view, where the file itself says it.
        grey: uint8 (h, w).
        code: what is odd about it, the sum of bits of plausible.FLAGS; 0 for nothing.
        region: the body part that its header names, where that is not the chest alone.
        drawn: whether the file says that it is a phantom's.
    """

    film: Film
    grey: np.ndarray
    code: int = 0
    region: str = ""
    drawn: bool = False

    @property
    def flag(self) -> str:
        """What is odd about it in words, "" for nothing."""
        return plausible.words(self.code, self.region)


def open_film(film: Film, takes_lateral: bool, accept_damaged: bool = False) -> Read:
    """Read a film from its file.

    Args:
        film: which one.
        takes_lateral: whether lateral films are answered at all.
        accept_damaged: see `Caution`.

    Raises:
        FilmError: it cannot be used; the line begins with the film's name.
    """
    _check_view(film, takes_lateral)
    return read_data(read_bytes(film.file, film.name), film, takes_lateral, accept_damaged)


def read_data(data: bytes, film: Film | str, takes_lateral: bool, accept_damaged: bool = False) -> Read:
    """Read a film from bytes: JPEG, PNG, TIFF, WebP or DICOM.

    Args:
        data: the file's content.
        film: which one, or only its name.
        takes_lateral: whether lateral films are answered at all.
        accept_damaged: see `Caution`.

    Raises:
        FilmError: it cannot be used; the line begins with the film's name.
    """
    film = Film(Path(film), film) if isinstance(film, str) else film
    grey, damage = decode_film(data, film.name, accept_damaged=accept_damaged)  # first: it says best what is wrong
    region, colour = "", 0.0
    if dicom.is_dicom(data):
        view, region = dicom.said(data)
        film = replace(film, view=film.view or view)
    else:
        colour = plausible.colour(data, whole=not damage)
    _check_view(film, takes_lateral)
    code = plausible.flag(grey, colour, frontal=not film.lateral)
    code |= plausible.FLAGS["damaged"].bit * bool(damage) | plausible.FLAGS["region"].bit * bool(region)
    return Read(film, grey, code, region, is_drawn(data))


def take(grey: np.ndarray, film: Film | str, takes_lateral: bool) -> Read:
    """Pixels that were decoded elsewhere, uint8 (h, w), bone bright; checked as a file's are.

    Raises:
        FilmError: they are no film; the line begins with the film's name.
    """
    film = Film(Path(film), film) if isinstance(film, str) else film
    _check_view(film, takes_lateral)
    try:
        if grey.dtype != np.uint8 or grey.ndim != 2:
            raise FilmError(f"expected uint8 (h, w), received {grey.dtype} {grey.shape}")
        check_size(*grey.shape, MIN_SIDE)
        if grey.min() == grey.max():
            raise FilmError("no picture content: every pixel has the same value")
    except FilmError as error:
        raise FilmError(f"{film.name}: {error}") from None
    return Read(film, grey, plausible.flag(grey, frontal=not film.lateral))


def _check_view(film: Film, takes_lateral: bool) -> None:
    if film.lateral and not takes_lateral:
        raise FilmError(f"{film.name}: {FRONTAL_ONLY}")
