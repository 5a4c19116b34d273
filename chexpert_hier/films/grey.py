"""What every film must be before anything looks at it: limits on its size, and 8 bits of grey.

The leaf of the films' area: errors and arithmetic, no file formats.
"""

from typing import Any

import numpy as np

from ..errors import InputError

# A film at 10 pixels/mm over 43 cm has 18 million pixels; what is far above is a mistake or an attack.
MOST_PIXELS = 200_000_000
# What a decoder may have to hold for one film; reading any file takes less than four times as much.
MOST_BYTES = 2 ** 28
# An array, or a tensor of TensorFlow or Keras, which have no types to speak of.
Tensor = Any
BAND = 2 ** 22  # pixels that are converted at a time
MIN_SIDE = 32


class FilmError(InputError):
    """A film that cannot be used; the line names the file (with its row in a CSV, where it has one) and the reason."""


class DamagedError(FilmError):
    """A film whose picture data is broken or short; what is left of it can be decoded on request."""


def check_size(height: int, width: int, min_side: int, pixel_bytes: int = 1) -> None:
    """Refuse what no film is.

    Args:
        height, width: pixels, as the header says.
        min_side: the least of both.
        pixel_bytes: what a decoder holds per pixel.

    Raises:
        FilmError: more than MOST_PIXELS pixels or MOST_BYTES, or a side below `min_side` (the reason without the file's
            name).
    """
    most = min(MOST_PIXELS, MOST_BYTES // max(pixel_bytes, 1))
    if height * width > most:
        raise FilmError(f"too large: {width}x{height} pixels; expected at most {most:,} in all")
    if min(height, width) < min_side:
        raise FilmError(f"too small: {width}x{height} pixels; expected at least {min_side} a side")


def bands(image: np.ndarray) -> list[np.ndarray]:
    """The image's rows, some at a time: arithmetic in 64 bits on all of a large film would take gigabytes."""
    rows = max(1, BAND // image.shape[1])
    return [image[k:k + rows] for k in range(0, len(image), rows)]


def luminance(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Rec. 601 luminance (0.299, 0.587, 0.114) in 16-bit fixed point; the same dtype back."""
    total = 19595 * red.astype(np.int64) + 38470 * green.astype(np.int64) + 7471 * blue.astype(np.int64)
    return ((total + 32768) >> 16).astype(red.dtype)


def to_8_bits(grey: np.ndarray) -> np.ndarray:
    """Scale non-negative integers to uint8 by the smallest bit depth, at least 8, that holds the largest value."""
    if grey.dtype == np.uint8:
        return grey
    full = (1 << max(8, int(grey.max()).bit_length())) - 1
    return np.concatenate([((band.astype(np.int64) * 510 + full) // (2 * full)).astype(np.uint8)  # rounded, half up
                           for band in bands(grey)])
