"""Read one film file: JPEG, PNG, TIFF, WebP or DICOM of any kind to 8-bit grey, or one line that says why not.

`export.decoding` gives the same pixels in TensorFlow operations, for the SavedModel.
"""

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .grey import MIN_SIDE, DamagedError, FilmError, bands, check_size, luminance, to_8_bits
from .headers import Header, read_header
from .jpeg import decode_jpeg
from .quiet import decoded

# EXIF orientations that mirror rows, mirror columns, and exchange rows and columns (first of all).
FLIP_ROWS, FLIP_COLUMNS, TRANSPOSE = (3, 4, 7, 8), (2, 3, 6, 7), (5, 6, 7, 8)


class Decoded(NamedTuple):
    """A film's pixels, uint8 (h, w), and what is wrong with its file, "" where nothing is."""

    grey: np.ndarray
    damage: str


def read_film(source: str | os.PathLike[str] | bytes, name: str | None = None, min_side: int = MIN_SIDE) -> np.ndarray:
    """Read a film as 8-bit grey, upright.

    Known by content, not by name. More than 8 bits are scaled by the smallest bit depth that holds the brightest
    pixel, so that 10 bits stored in 16 do not come out black. Colour JPEGs give their luminance channel, the
    others the Rec. 601 luminance; transparency is laid on black; EXIF orientation is applied.

    Args:
        source: the file, or its bytes.
        name: what the error line calls it; the path when None.
        min_side: the least height and width in pixels.

    Returns:
        uint8 (h, w).

    Raises:
        FilmError: missing, empty, not an image, too small, too large, or one single shade.
        DamagedError: cut off or damaged; see `decode_film`.
    """
    name = name or ("film" if isinstance(source, bytes) else str(source))
    if isinstance(source, bytes):
        return decode_film(source, name, min_side).grey
    try:
        data = _read_bytes(source)
    except OSError as error:
        raise FilmError(f"{name}: {_why_unreadable(source, error)}") from None
    return decode_film(data, name, min_side).grey


def decode_film(data: bytes, name: str, min_side: int = MIN_SIDE, accept_damaged: bool = False) -> Decoded:
    """As `read_film`, from a file's bytes; with `accept_damaged` also what is left of a JPEG.

    Raises:
        FilmError: as `read_film`; the line begins with `name`.
    """
    try:
        try:
            return Decoded(_decode(data, min_side), "")
        except DamagedError as error:
            if not accept_damaged:
                raise
            return Decoded(_decode(data, min_side, whole=False), str(error))
    except FilmError as error:
        raise type(error)(f"{name}: {error}") from None
    except cv2.error:
        raise FilmError(f"{name}: the image decoder failed; is the file damaged?") from None


def _read_bytes(file: str | os.PathLike[str]) -> bytes:
    with open(file, "rb", buffering=0) as handle:
        return handle.read()


def read_bytes(source: str | os.PathLike[str], name: str) -> bytes:
    """A file's bytes.

    Raises:
        FilmError: it is missing or cannot be read; the line begins with `name`.
    """
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise FilmError(f"{name}: {_why_unreadable(source, error)}") from None


def _why_unreadable(source: str | os.PathLike[str], error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if os.path.isdir(source):
        return "is a folder; expected a film"
    return f"cannot be read ({error.strerror})"


def _decode(data: bytes, min_side: int, whole: bool = True) -> np.ndarray:
    from . import dicom

    if dicom.is_dicom(data):
        return _with_content(dicom.read(data, min_side, whole))
    header = read_header(data, whole)
    # A progressive JPEG is held as 16-bit coefficients of all its channels.
    depth = 2 if header.kind == "JPEG" or header.bits > 8 else 1
    check_size(header.height, header.width, min_side, max(header.channels, 1) * depth)
    if header.kind == "JPEG":  # a colour film's luminance is a channel of its own
        return _with_content(_turn(decode_jpeg(data, header, whole), header.orientation))
    return _with_content(_by_opencv(data, header))


def _by_opencv(data: bytes, header: Header) -> np.ndarray:
    """A PNG, TIFF or WebP, upright: uint8 (h, w)."""
    image, kind, shape = decoded(data), header.kind, (header.height, header.width)
    if image is None and not cv2.haveImageWriter(f"film.{kind.lower()}"):
        raise FilmError(f"OpenCV is built without {kind} here; save it as PNG, or install opencv-python-headless")
    turned = kind == "TIFF"  # alone, by OpenCV
    if image is None or image.shape[:2] != (shape[::-1] if turned and header.orientation in TRANSPOSE else shape):
        raise FilmError(f"damaged: the {kind} decoder could not read it; copy the file again")
    grey = _to_grey(image)
    if header.white_is_zero and header.bits > 8:  # which OpenCV sees to for 8 bits alone
        grey = 255 - grey
    return grey if turned else _turn(grey, header.orientation)


def _with_content(grey: np.ndarray) -> np.ndarray:
    least, most, *_ = cv2.minMaxLoc(grey)
    if least == most:
        raise FilmError("no picture content: every pixel has the same value")
    return grey


def _to_grey(image: np.ndarray) -> np.ndarray:
    """(h, w), (h, w, 3) BGR or (h, w, 4) BGRA of uint8 or uint16 -> uint8 (h, w)."""
    if image.dtype == np.uint8 and image.ndim == 2:
        return image
    return to_8_bits(image if image.ndim == 2 else np.concatenate([_colour_to_grey(band) for band in bands(image)]))


def _colour_to_grey(image: np.ndarray) -> np.ndarray:
    grey = luminance(image[..., 2], image[..., 1], image[..., 0])
    if image.shape[2] == 4:  # on black, so that what is hidden under transparent pixels stays hidden
        opaque = np.iinfo(image.dtype).max
        grey = ((grey.astype(np.int64) * image[..., 3] + opaque // 2) // opaque).astype(image.dtype)
    return grey


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Lay an image upright as its EXIF orientation says (1: it is)."""
    if orientation == 1:
        return image
    image = image.T if orientation in TRANSPOSE else image
    image = image[::-1] if orientation in FLIP_ROWS else image
    return np.ascontiguousarray(image[:, ::-1] if orientation in FLIP_COLUMNS else image)
