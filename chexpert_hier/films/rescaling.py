"""Rescale a film to a square, exactly: the same bytes from OpenCV, from integers and from TensorFlow operations.

The exact value of a rescaled pixel is a fraction of whole numbers. OpenCV's single precision finds most of them; where
it comes near a tie, integers decide.
"""

import threading
from math import gcd
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np

from .grey import Tensor

RESIZES = ("auto", "bilinear", "area")

# Single precision stays within this of the exact rescaled value.
NEAR_TIE = 2e-3


def rescale(grey: np.ndarray, size: int = 256, resize: str = "auto") -> np.ndarray:
    """Rescale a film to a square; its sides' ratio is not kept, which is the paper's text read literally.

    Bilinear (pixel centres, edges repeated: cv2.INTER_LINEAR on float32), or the mean over each new pixel's area: for
    "auto" where either side shrinks by more than two. The exact value is rounded to the nearest level, half to even;
    where float32 comes near a tie, integers decide.

    Args:
        grey: uint8 (h, w).
        size: side of the result in pixels.
        resize: "auto", "bilinear" or "area".

    Returns:
        uint8 (size, size).

    Source: Pham et al. 2019, section 4.2 (the interpolation is not stated; deviations P1).
    """
    height, width = grey.shape
    if (height, width) == (size, size):
        return grey
    area = max(height, width) > 2 * size if resize == "auto" else resize == "area"
    if area and min(height, width) < size:  # OpenCV's area form cannot enlarge
        return rescale_exactly(grey, size, True, in_numpy()).astype(np.uint8)
    method = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    pixels = scratch("film", height * width, np.float32).reshape(height, width)
    np.copyto(pixels, grey)
    value = scratch("rescaled", size * size, np.float32).reshape(size, size)
    cv2.resize(pixels, (size, size), value, interpolation=method)
    rounded = cv2.convertScaleAbs(value)  # to the nearest, half to even
    if not _exact_in_float32(height, width, size, area):
        _settle_ties(rounded, value, grey, area)
    return rounded


def graph_rescale(grey: Tensor, size: int = 256, resize: str = "auto") -> Tensor:
    """`rescale` in TensorFlow operations: uint8 tensor (h, w) -> int64 tensor (size, size)."""
    import tensorflow as tf

    def exactly(area: bool) -> Tensor:
        return rescale_exactly(grey, size, area, in_tensorflow())

    if resize == "auto":
        film = tf.cond(tf.reduce_max(tf.shape(grey)) > 2 * size, lambda: exactly(True), lambda: exactly(False))
    else:
        film = exactly(resize == "area")
    return tf.ensure_shape(film, [size, size])


_held = threading.local()


def scratch(name: str, count: int, dtype: type) -> np.ndarray:
    """This thread's own array (count,), kept between films: new memory costs more here than the arithmetic."""
    held = vars(_held)
    if name not in held or held[name].size < count:
        held[name] = np.empty(count, dtype)
    return held[name][:count]


def _exact_in_float32(height: int, width: int, size: int, area: bool) -> bool:
    """Whether every partial sum fits the 24 binary digits of float32, so that no rounding happens on the way."""
    digits = 8  # a pixel's own
    for length in (height, width):
        denominator = length / gcd(length, size) if area else 2 * size // gcd(length - size, 2 * length, 2 * size)
        if int(denominator) & (int(denominator) - 1):
            return False
        digits += int(denominator).bit_length() - 1
    return digits <= 24


def _settle_ties(rounded: np.ndarray, value: np.ndarray, grey: np.ndarray, area: bool) -> None:
    """Decide, in integers, those pixels of `rounded` whose float32 `value` is nearly half way between two levels."""
    rows, columns = np.nonzero(np.abs(value - np.floor(value) - 0.5) < NEAR_TIE)
    weigh = _area_weights if area else _linear_weights
    row_index, row_weight, row_total = weigh(rows, grey.shape[0], len(value))  # (k, taps), (k, taps), number
    column_index, column_weight, column_total = weigh(columns, grey.shape[1], len(value))
    pixels = grey[row_index[:, :, None], column_index[:, None, :]].astype(np.int64)  # (k, row taps, column taps)
    total = np.einsum("kij,ki,kj->k", pixels, row_weight, column_weight)
    rounded[rows, columns] = half_to_even(total, row_total * column_total, in_numpy())


class _Taps(NamedTuple):
    """The pixels that make up some places along one side, (k, taps) each, and what their integer weights sum to."""

    pixels: np.ndarray
    weights: np.ndarray
    total: int


def _linear_weights(index: np.ndarray, length: int, size: int) -> _Taps:
    """The two neighbours of each place along one side and their integer weights, which sum to 2 size."""
    low, high, share = _neighbours(index, length, size, in_numpy())
    return _Taps(np.stack([low, high], 1), np.stack([2 * size - share, share], 1), 2 * size)


def _area_weights(index: np.ndarray, length: int, size: int) -> _Taps:
    """The pixels under each place along one side and their overlaps in 1/size pixel, which sum to `length`."""
    pixel = (index * length // size)[:, None] + np.arange(length // size + 2)  # (k, taps)
    start, stop = index[:, None] * length, (index[:, None] + 1) * length
    overlap = np.minimum(stop, (pixel + 1) * size) - np.maximum(start, pixel * size)
    return _Taps(np.minimum(pixel, length - 1), np.maximum(overlap, 0), length)


# The functions below are written once for both forms; `ops` is `in_numpy()` or `in_tensorflow()`.

def in_numpy() -> SimpleNamespace:
    """The operations of arrays."""
    return SimpleNamespace(take=np.take, cumsum=np.cumsum, minimum=np.minimum, maximum=np.maximum, arange=np.arange,
                           integer=lambda x: np.asarray(x).astype(np.int64), where=np.where,
                           zero_first=lambda x, axis: np.insert(x, 0, 0, axis))


def in_tensorflow() -> SimpleNamespace:
    """The operations of TensorFlow's tensors."""
    import tensorflow as tf

    def zero_first(x: Tensor, axis: int) -> Tensor:
        return tf.pad(x, [[int(k == axis), 0] for k in range(len(x.shape))])

    return SimpleNamespace(take=lambda x, index, axis: tf.gather(x, index, axis=axis),
                           cumsum=lambda x, axis: tf.cumsum(x, axis), minimum=tf.minimum, maximum=tf.maximum,
                           arange=lambda n: tf.range(n, dtype=tf.int64), where=tf.where,
                           integer=lambda x: tf.cast(x, tf.int64), zero_first=zero_first)


def rescale_exactly(grey: Tensor, size: int, area: bool, ops: SimpleNamespace) -> Tensor:
    """The rescaled film in integers all the way: (h, w) -> int64 (size, size)."""
    total, denominator = ops.integer(grey), 1
    for axis in (0, 1):
        length = ops.integer(grey.shape[axis] if isinstance(grey, np.ndarray) else _tensor_shape(grey)[axis])
        along = _average_along if area else _interpolate_along
        total, parts = along(total, axis, length, size, ops)
        denominator = denominator * parts
    return half_to_even(total, denominator, ops)


def _tensor_shape(tensor: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.shape(tensor, out_type=tf.int64)


def _interpolate_along(values: Tensor, axis: int, length: Tensor, size: int,
                       ops: SimpleNamespace) -> tuple[Tensor, int]:
    """2 size times the linear interpolation of `values` along `axis`, and that factor."""
    low, high, share = _neighbours(ops.arange(size), length, size, ops)
    share = share[:, None] if axis == 0 else share[None, :]
    return ops.take(values, low, axis) * (2 * size - share) + ops.take(values, high, axis) * share, 2 * size


def _average_along(values: Tensor, axis: int, length: Tensor, size: int,
                   ops: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """`length` times the mean of `values` over each of `size` equal parts of `axis`, and that factor."""
    edge = ops.arange(size + 1) * length  # in 1/size pixel
    whole, part = edge // size, edge % size
    part = part[:, None] if axis == 0 else part[None, :]
    below = ops.take(ops.zero_first(ops.cumsum(values, axis), axis), whole, axis)  # sum of the pixels before the edge
    below = below * size + ops.take(values, ops.minimum(whole, length - 1), axis) * part
    upper, lower = (below[1:], below[:-1]) if axis == 0 else (below[:, 1:], below[:, :-1])
    return upper - lower, length


class _Neighbours(NamedTuple):
    """The two pixels around each place, and the second one's share in 1/(2 size) pixel."""

    low: Tensor
    high: Tensor
    share: Tensor


def _neighbours(index: Tensor, length: Tensor, size: int, ops: SimpleNamespace) -> _Neighbours:
    """The two pixels around each place and the second one's share in 1/(2 size) pixel, edges repeated."""
    position = (2 * index + 1) * length - size  # from the first pixel's centre, in 1/(2 size) pixel
    low = position // (2 * size)
    inside = ops.integer((low >= 0) & (low < length - 1))
    share = position % (2 * size) * inside
    low = ops.minimum(ops.maximum(low, ops.integer(0)), length - 1)
    return _Neighbours(low, ops.minimum(low + 1, length - 1), share)


def half_to_even(total: Tensor, denominator: Tensor, ops: SimpleNamespace) -> Tensor:
    """round(total / denominator) of integers that are not negative, half to even."""
    level = total // denominator
    above = 2 * (total - level * denominator) - denominator  # over the half way point
    return level + ops.integer((above > 0) | ((above == 0) & (level % 2 == 1)))
