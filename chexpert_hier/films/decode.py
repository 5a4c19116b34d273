"""Read one film file: JPEG, PNG or DICOM of any kind to 8-bit grey, or one line that says why not.

Two forms that give the same pixels: `read_film` (OpenCV, simplejpeg) and `graph_decode` (TensorFlow operations, in the
SavedModel), which refuses what it cannot decode in the same way.
"""

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .grey import (
    MIN_SIDE,
    MOST_BYTES,
    MOST_PIXELS,
    DamagedError,
    FilmError,
    Tensor,
    bands,
    check_size,
    luminance,
    to_8_bits,
)
from .headers import PNG_SIGNATURE, read_header
from .jpeg import decode_jpeg

# EXIF orientations that mirror rows, mirror columns, and exchange rows and columns (first of all).
FLIP_ROWS, FLIP_COLUMNS, TRANSPOSE = (3, 4, 7, 8), (2, 3, 6, 7), (5, 6, 7, 8)


class Decoded(NamedTuple):
    """A film's pixels, uint8 (h, w), and what is wrong with its file, "" where nothing is."""

    grey: np.ndarray
    damage: str


def read_film(source: str | os.PathLike[str] | bytes, name: str | None = None, min_side: int = MIN_SIDE) -> np.ndarray:
    """Read a film as 8-bit grey, upright.

    Known by content, not by name. More than 8 bits are scaled by the smallest bit depth that holds the brightest
    pixel, so that 10 bits stored in 16 do not come out black. Colour JPEGs give their luminance channel, colour PNGs
    the Rec. 601 luminance; transparency is laid on black; EXIF orientation is applied.

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
    if Path(source).is_dir():
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
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape[:2] != (header.height, header.width):
        raise FilmError("damaged: the PNG decoder could not read it; copy the file again")
    return _with_content(_turn(_to_grey(image), header.orientation))


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


def graph_decode(data: Tensor) -> Tensor:
    """Decode one film in TensorFlow operations: the pixels of `read_film`, or an error that says what is expected.

    Reads JPEG (grey or colour, any EXIF orientation) and 8-bit grey PNG.

    Args:
        data: string tensor (), the file's bytes.

    Returns:
        uint8 tensor (h, w).

    Raises:
        tf.errors.InvalidArgumentError: anything else, when the graph runs.
    """
    import tensorflow as tf

    start = tf.strings.substr(data, 0, 8)
    is_jpeg = tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"
    expected = "film bytes: expected JPEG, or PNG with 8-bit grey and no transparency; convert other films first"
    with tf.control_dependencies([tf.debugging.Assert(is_jpeg | (start == PNG_SIGNATURE), [expected])]):
        return tf.cond(is_jpeg, lambda: _graph_jpeg(data), lambda: _graph_png(data, expected))


def _graph_jpeg(data: Tensor) -> Tensor:
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(data)
    colour = tf.debugging.Assert((shape[2] == 1) | (shape[2] == 3), ["JPEG: expected grey or RGB, not CMYK"])
    with tf.control_dependencies([colour, *_graph_check_size(shape[0], shape[1], 2 * tf.maximum(shape[2], 1))]):
        # The integer transform is the one that OpenCV's decoder uses: the same pixels, bit for bit.
        grey = tf.io.decode_jpeg(data, channels=1, dct_method="INTEGER_ACCURATE")[..., 0]
    code = _graph_orientation(tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 65536), tf.uint8), tf.int32))
    flips = (FLIP_ROWS, lambda x: x[::-1]), (FLIP_COLUMNS, lambda x: x[:, ::-1])
    for codes, turn in ((TRANSPOSE, tf.transpose), *flips):
        grey = tf.cond(tf.reduce_any(code == codes), lambda g=grey, t=turn: t(g), lambda g=grey: g)
    return _graph_check_content(grey)


def _graph_png(data: Tensor, expected: str) -> Tensor:
    import tensorflow as tf

    size = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 16, 10), tf.uint8), tf.int64)  # width, height, bits, colour
    weights = tf.constant([2 ** 24, 2 ** 16, 2 ** 8, 1], tf.int64)
    width, height = tf.reduce_sum(size[:4] * weights), tf.reduce_sum(size[4:8] * weights)
    head = tf.strings.split(data, "IDAT")[0]  # what changes the pixels' meaning stands before the pixels
    plain = (size[8] == 8) & (size[9] == 0)
    for chunk in ("tRNS", "eXIf"):
        plain &= tf.shape(tf.strings.split(head, chunk))[0] == 1
    with tf.control_dependencies([tf.debugging.Assert(plain, [expected]), *_graph_check_size(height, width)]):
        return _graph_check_content(tf.io.decode_png(data, channels=1)[..., 0])


def _graph_check_size(height: Tensor, width: Tensor, pixel_bytes: Tensor = 1) -> list[Tensor]:
    """`check_size` in TensorFlow operations: the assertions to hang the decoder on."""
    import tensorflow as tf

    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    most = tf.minimum(tf.constant(MOST_PIXELS, tf.int64), MOST_BYTES // tf.cast(pixel_bytes, tf.int64))
    small, large = tf.minimum(height, width) < MIN_SIDE, height * width > most
    return [tf.debugging.Assert(~small, ["film too small, height and width:", height, width]),
            tf.debugging.Assert(~large, ["film too large, height and width:", height, width])]


def _graph_check_content(grey: Tensor) -> Tensor:
    import tensorflow as tf

    seen = tf.debugging.Assert(tf.reduce_min(grey) < tf.reduce_max(grey), ["film without picture content: one shade"])
    with tf.control_dependencies([seen]):
        return tf.identity(grey)


def _graph_orientation(head: Tensor) -> Tensor:
    """`_orientation` in TensorFlow operations: int32 (bytes,) -> int32 (); 1 when there is no readable tag."""
    import tensorflow as tf

    count = tf.size(head)
    found = tf.ones([tf.maximum(count - 5, 0)], tf.bool)
    for k, byte in enumerate(b"Exif\0\0"):
        found &= head[k:k + tf.size(found)] == byte
    start = tf.reduce_min(tf.where(found, tf.range(tf.size(found)), count)) + 6
    padded = tf.concat([head, tf.zeros([24], tf.int32)], 0)  # so that a cut-off tag reads as no tag

    def number(place: Tensor, length: int) -> Tensor:
        big = tf.reduce_sum(padded[place:place + length] * [256 ** (length - 1 - k) for k in range(length)])
        little = tf.reduce_sum(padded[place:place + length] * [256 ** k for k in range(length)])
        return tf.where(padded[tf.minimum(start, count)] == ord("I"), little, big)

    def read() -> Tensor:
        directory = tf.clip_by_value(start + number(start + 4, 4), 0, count)
        entries = tf.clip_by_value((count - directory - 2) // 12, 0, number(directory, 2))

        def look(code: Tensor, k: Tensor) -> Tensor:
            entry = directory + 2 + 12 * k
            return tf.where(number(entry, 2) == 0x0112, number(entry + 8, 2), code)

        return tf.foldr(look, tf.range(entries), 1)  # from the last, so that the first one wins, as in `_orientation`

    code = tf.cond(start + 8 <= count, read, lambda: tf.constant(1))
    return tf.where((code >= 1) & (code <= 8), code, 1)
