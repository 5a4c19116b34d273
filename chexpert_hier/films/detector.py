"""Whether a picture is an upright frontal chest film: a small network in whole numbers, the same in every form.

It sees the whole film, rescaled to 64 x 64 without regard to its sides' ratio and freed of brightness and contrast, and
gives six scores. All values are integers that float32 holds exactly, so that NumPy, TensorFlow and ONNX find the same
ones in any order of summation. It knows nothing of the data a run was trained on: its weights (`data/detector.npz`,
23 kB) come from experiments/detector/train.py; they were learned from films of NIH ChestX-ray14 (Wang et al. 2017, "The
NIH Clinical Center is the data provider") and from phantoms.
"""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from .grey import Tensor
from .rescaling import graph_rescale, rescale

SIDE = 64
# What it tells apart: "turn 90" is a film that a turn by 90 degrees clockwise sets upright, "other" anything else.
CLASSES = ("frontal", "inverted", "turn 90", "turn 180", "turn 270", "other")
# The input is so many units per standard deviation; activations are cut off at the ends of a byte.
UNITS, LOWEST, HIGHEST = 32, -127, 255
FILE = Path(__file__).parent / "data" / "detector.npz"


class Layer(NamedTuple):
    """max(floor((inputs @ weights + bias) / divisor), 0), at most HIGHEST; the last layer keeps its sign.

    Attributes:
        weights: float32 (inputs, outputs), whole numbers; a convolution's inputs are the nine neighbours of every
            second pixel, row by row, each with all its channels.
        bias: float32 (outputs,), whole numbers.
        divisor: a power of two.
    """

    weights: np.ndarray
    bias: np.ndarray
    divisor: float


@cache
def layers() -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The convolutions and the dense layers, as they are shipped."""
    with np.load(FILE, allow_pickle=False) as file:
        kept = [Layer(file[f"weights{k}"].astype(np.float32), file[f"bias{k}"].astype(np.float32), float(divisor))
                for k, divisor in enumerate(file["divisors"])]
    return tuple(kept[:-2]), tuple(kept[-2:])


def scores(grey: np.ndarray) -> np.ndarray:
    """int32 (classes,) for one film, uint8 (h, w)."""
    small = rescale(grey, SIDE, "area")
    return small_scores(small[None])[0]


def graph_scores(grey: Tensor) -> Tensor:
    """`scores` in TensorFlow operations: uint8 tensor (h, w) -> int32 tensor (classes,)."""
    import tensorflow as tf

    small = graph_rescale(grey, SIDE, "area")
    return tf.cast(_scores(small[None], _in_tensorflow())[0], tf.int32)


def small_scores(small: np.ndarray) -> np.ndarray:
    """int32 (n, classes) for films that are rescaled already, uint8 (n, SIDE, SIDE)."""
    return _scores(small.astype(np.int64), in_numpy()).astype(np.int32)


# The functions below are written once for both forms; `ops` is `in_numpy()` or `_in_tensorflow()`.

def _scores(small: Tensor, ops: SimpleNamespace) -> Tensor:
    """int64 (n, SIDE, SIDE) -> float32 (n, classes), whole numbers."""
    convolutions, dense = layers()
    values = contrast_free(small, ops)[..., None]  # (n, 64, 64, 1)
    for layer in convolutions:
        values = _positive(_weighed(neighbours(values, ops), layer, ops), ops)  # (n, s / 2, s / 2, outputs)
    values = ops.reshape(values, (-1, dense[0].weights.shape[0]))
    return _weighed(_positive(_weighed(values, dense[0], ops), ops), dense[1], ops)


def contrast_free(small: Tensor, ops: SimpleNamespace) -> Tensor:
    """UNITS times (value - mean) / standard deviation, rounded half to even: float32, 0 for a flat picture."""
    count = SIDE ** 2
    total = ops.sum(small)  # (n, 1, 1)
    away = ops.double(count * small - total)  # count times the distance from the mean, exact
    variance = ops.double(count * ops.sum(small * small) - total * total)  # count^2 times the variance, exact
    units = ops.round(UNITS * away / ops.sqrt(ops.maximum(variance, 1.0)))
    return ops.single(ops.maximum(ops.minimum(units, -LOWEST), LOWEST))


def neighbours(values: Tensor, ops: SimpleNamespace) -> Tensor:
    """(n, s, s, c) -> (n, s / 2, s / 2, 9 c): each second pixel with the eight around it, black outside."""
    side = values.shape[1]
    padded = ops.pad(values, [[0, 0], [1, 0], [1, 0], [0, 0]])
    return ops.concatenate([padded[:, row:row + side:2, column:column + side:2]
                            for row in range(3) for column in range(3)], -1)


def _weighed(values: Tensor, layer: Layer, ops: SimpleNamespace) -> Tensor:
    return ops.floor((ops.matmul(values, layer.weights) + layer.bias) / np.float32(layer.divisor))


def _positive(values: Tensor, ops: SimpleNamespace) -> Tensor:
    return ops.minimum(ops.maximum(values, np.float32(0)), np.float32(HIGHEST))


def in_numpy() -> SimpleNamespace:
    return SimpleNamespace(sum=lambda x: x.sum((1, 2), keepdims=True), double=lambda x: x.astype(np.float64),
                           single=lambda x: x.astype(np.float32), sqrt=np.sqrt, round=np.rint, floor=np.floor,
                           maximum=np.maximum, minimum=np.minimum, matmul=np.matmul, reshape=np.reshape, pad=np.pad,
                           concatenate=np.concatenate)


def _in_tensorflow() -> SimpleNamespace:
    import tensorflow as tf

    return SimpleNamespace(sum=lambda x: tf.reduce_sum(x, [1, 2], keepdims=True),
                           double=lambda x: tf.cast(x, tf.float64),
                           single=lambda x: tf.cast(x, tf.float32), sqrt=tf.sqrt, round=tf.round, floor=tf.floor,
                           maximum=tf.maximum, minimum=tf.minimum, matmul=tf.matmul, reshape=tf.reshape, pad=tf.pad,
                           concatenate=tf.concat)
