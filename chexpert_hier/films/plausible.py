"""Films that are not what they seem: what may be odd about one, as a number and in words. It never changes an answer.

The view is judged by a small detector (`detector`) that does not depend on the data a run was trained on; the same
whole numbers come out in NumPy, in the SavedModel and in ONNX. Thresholds and rates, measured on films of hospitals
that nothing was tuned on: experiments/plausibility.py and its results.
"""

from typing import NamedTuple

import cv2
import numpy as np

from . import detector
from .detector import CLASSES
from .grey import Tensor
from .headers import read_header
from .quiet import decoded
from .tiff import is_tiff
from .webp import is_webp


class Flag(NamedTuple):
    """One thing that may be odd: its bit in a film's code, and what is said."""

    bit: int
    words: str


# A film's code is the sum of the bits of what is odd about it, 0 when nothing is; metadata.json repeats this table.
FLAGS = {
    "not frontal": Flag(1, "does not look like an upright frontal chest film: lateral, another body part, or no film?"),
    "inverted": Flag(2, "its grey scale looks inverted (lungs bright)"),
    "turn 90": Flag(4, "looks turned; 90 degrees clockwise would set it upright"),
    "turn 180": Flag(8, "looks upside down; 180 degrees would set it upright"),
    "turn 270": Flag(16, "looks turned; 270 degrees clockwise would set it upright"),
    "colour": Flag(32, "a colour picture, not a film"),
    "damaged": Flag(64, "the file is damaged, and parts of the picture may be wrong"),
    "region": Flag(128, "its header names another body part than the chest alone"),
}
# A film is odd when its score as a frontal one is not above the best other by so much (64 to a natural logarithm).
LEAST = -64
# Advice ("inverted", "turn 90") is given when its score is above all others by so much; else only "not frontal".
SURE = 64
# Mean difference between a pixel's largest and smallest channel; grey films saved as colour have 0 to 1.
MOST_COLOUR = 3.0


def words(code: int, region: str = "") -> str:
    """What a film's code says, "" for 0; `region` is the body part that its header names, for "region"."""
    said = {name: flag.words for name, flag in FLAGS.items() if int(code) & flag.bit}
    if region and "region" in said:
        said["region"] += f" ({region})"
    return "; ".join(said.values())


def flag(grey: np.ndarray, colour: float = 0.0, frontal: bool = True) -> int:
    """The code of what is odd about a film's picture, 0 when nothing is.

    Args:
        grey: uint8 (h, w).
        colour: of `colour`.
        frontal: whether it should be a frontal film; the view of others is not judged.
    """
    code = int(view_code(detector.scores(grey)[None])[0]) if frontal else 0
    return code | (FLAGS["colour"].bit if colour > MOST_COLOUR else 0)


# What is said when a class has the best score among the odd ones: bits in the order of CLASSES without "frontal".
ADVICE = np.array([FLAGS.get(name, FLAGS["not frontal"]).bit for name in CLASSES[1:]], np.int32)


def view_code(scores: np.ndarray) -> np.ndarray:
    """The view's bit, 0 for an upright frontal film: int32 (n, classes) of the detector -> int32 (n,)."""
    best = scores[:, 1:].argmax(1)  # the first of equals
    top, second = np.sort(scores, axis=1)[:, [-1, -2]].T
    advised = np.where(top - second >= SURE, ADVICE[best], FLAGS["not frontal"].bit)
    return np.where(scores[:, 0] - scores[:, 1:].max(1) >= LEAST, 0, advised).astype(np.int32)


def graph_flag(grey: Tensor) -> Tensor:
    """`flag` of a picture's view in TensorFlow operations: uint8 tensor (h, w) -> int32 tensor ()."""
    import tensorflow as tf

    scores = detector.graph_scores(grey)  # (classes,)
    top = tf.math.top_k(scores, 2).values
    advised = tf.where(top[0] - top[1] >= SURE, tf.gather(ADVICE, tf.argmax(scores[1:])), FLAGS["not frontal"].bit)
    return tf.where(scores[0] - tf.reduce_max(scores[1:]) >= LEAST, 0, advised)


def colour(data: bytes, whole: bool = True) -> float:
    """How coloured a picture is: mean difference of a pixel's largest and smallest channel, 0 to 255.

    Args:
        data: the bytes of a file that `decode.read_film` reads; what is no JPEG, PNG, TIFF or WebP counts as grey.
        whole: whether a JPEG has to be.
    """
    image = None
    if data.startswith(b"\xff\xd8\xff"):
        if read_header(data, whole).channels > 1:
            how = cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    elif data[25] in (2, 3, 6) if data[:4] == b"\x89PNG" else is_tiff(data) or is_webp(data):
        image = decoded(data)
    if image is None or image.ndim == 2:
        return 0.0
    levels = image[..., :3].astype(np.float32) * (255 / np.iinfo(image.dtype).max)
    spread = levels.max(axis=2) - levels.min(axis=2)
    seen = image[..., 3] > 0 if image.shape[2] == 4 else np.ones(spread.shape, bool)  # not what hides in transparency
    return float(spread[seen].mean()) if seen.any() else 0.0
