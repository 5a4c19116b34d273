"""Films that are not what they seem: a cheap look that flags them and never changes an answer.

The match with the mean chest (`template.Cropper`) is known anyway; only where it is rather low, the negative and the
turned film are matched too, to say why. Thresholds are measured on real films:
experiments/plausibility.py and its results.
"""

import cv2
import numpy as np

from .decode import read_header
from .template import Cropper

# Of 121 real films that the template was not learned from, 1 lies below; of their negatives and turned copies all lie
# below (experiments/results/plausibility.md).
LEAST_MATCH = 0.5
# Below this the negative and the turned film are matched as well, and named where one is better by this margin: a film
# both inverted and on its head matches with up to 0.61.
SUSPECT, MARGIN = 0.65, 0.1
# Mean difference between a pixel's largest and smallest channel; grey films saved as colour have 0 to 1.
MOST_COLOUR = 3.0


def flag(grey: np.ndarray, cropper: Cropper, match: float, colour: float = 0.0) -> str:
    """Say what is odd about a film, "" when nothing is.

    Args:
        grey: uint8 (h, w).
        cropper: how it was cropped; without a template (`mode` other than "template") only colour is judged.
        match: the film's score from `cropper.crop`, NaN without a template.
        colour: of `colour`.
    """
    odd = []
    if match < SUSPECT and (why := _why(cropper.rescale(grey), cropper, match)):
        odd.append(why)
    if colour > MOST_COLOUR:
        odd.append("a colour picture, not a film")
    return "; ".join(odd)


def _why(film: np.ndarray, cropper: Cropper, match: float) -> str:
    """Which version of the film would match better, if any; `film` uint8 (rescaled, rescaled)."""
    words = f"does not look like a frontal chest film (match {match:.2f}, expected {LEAST_MATCH} or more): lateral, " \
            "another body part, or a poor film?" if match < LEAST_MATCH else ""
    best = max(LEAST_MATCH, match + MARGIN)
    for quarters in range(4):
        turned = np.ascontiguousarray(np.rot90(film, -quarters))
        for inverted in (False, True):
            score = cropper.find(255 - turned if inverted else turned)[2]
            if score >= best and (quarters or inverted):
                what = [*["its grey scale looks inverted (lungs bright)"] * inverted,
                        *[f"looks turned; {90 * quarters} degrees clockwise would set it upright"] * bool(quarters)]
                best, words = score, " and ".join(what)
    return words


def colour(data: bytes) -> float:
    """How coloured a JPEG or PNG is: mean difference of a pixel's largest and smallest channel, 0 to 255.

    Args:
        data: the bytes of a file that `films.read_film` reads; what is no JPEG or PNG counts as grey.
    """
    if data.startswith(b"\xff\xd8\xff"):
        grey, flags = read_header(data).channels == 1, cv2.IMREAD_REDUCED_COLOR_4
    else:
        grey, flags = data[:4] != b"\x89PNG" or data[25] not in (2, 3, 6), cv2.IMREAD_UNCHANGED
    if grey:
        return 0.0
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.ndim == 2:
        return 0.0
    levels = image[..., :3].astype(np.float32) * (255 / np.iinfo(image.dtype).max)
    spread = levels.max(axis=2) - levels.min(axis=2)
    seen = image[..., 3] > 0 if image.shape[2] == 4 else np.ones(spread.shape, bool)  # not what hides in transparency
    return float(spread[seen].mean()) if seen.any() else 0.0
