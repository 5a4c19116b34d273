"""The luminance of a JPEG, with a look at damage that most decoders pass over in silence.

Two looks. libjpeg's own warnings (a code that does not exist, data that ends too soon or goes on
too long) are errors in simplejpeg's strict mode, whose pixels are OpenCV's bit for bit. Other damage
decodes without any warning: a block's brightness is stored as the difference to the one before, so
a wrong bit there shifts all blocks after it. That is seen in the picture, as a step that runs along
the upper edge of a row of blocks from some column to the right end, and along the next row's from the
left end to that column; edges in a film do not run like that.
"""

import cv2
import numpy as np
import simplejpeg

from .grey import DamagedError, FilmError
from .headers import Header

# Grey levels that both parts of such a step must rise above all beside it. Whole films stay below 5; of the broken ones
# that decode without a warning and are off by 10 levels on average, four in five lie above
# (experiments/results/damaged.md).
STEP = 6.0
# One pixel's jump counts up to this, so that a bright wire does not outweigh the rest.
MOST_JUMP = 16
FEWEST = 4  # blocks side by side, and rows of them, below which nothing can be said


def decode_jpeg(data: bytes, header: Header, whole: bool) -> np.ndarray:
    """The luminance of a JPEG, as it is stored.

    Args:
        data: the file's bytes.
        header: what `headers.read_header` made of them.
        whole: whether its picture data has to be.

    Returns:
        uint8 (h, w).

    Raises:
        DamagedError: it is not whole (the reason without the file's name).
        FilmError: it cannot be decoded at all.
    """
    try:
        grey = simplejpeg.decode_jpeg(data, "GRAY", strict=whole)[..., 0]
    except ValueError as error:
        kind = DamagedError if whole else FilmError
        raise kind(f"damaged: its picture data is broken or short ({error}); copy the file again") from None
    if grey.shape != (header.height, header.width):
        raise FilmError("damaged: the picture is not as large as its header says; copy the file again")
    if whole and step(grey, header.piece) > STEP:
        raise DamagedError("damaged: the brightness jumps in the middle of the picture data; copy the file again")
    return grey


def step(grey: np.ndarray, piece: tuple[int, int] = (8, 8)) -> float:
    """How far the brightness jumps from one piece of the picture data to all that follow.

    Args:
        grey: uint8 (h, w).
        piece: height and width in pixels of what is stored as one.

    Returns:
        the largest jump, in grey levels: of its right part in one row of pieces and its left part in the next the
        smaller one, less the larger of what stands beside it. 0 for pictures of few pieces.
    """
    height, width = piece
    rows, columns = (grey.shape[0] - 2) // height, grey.shape[1] // width
    if min(rows, columns) < FEWEST:
        return 0.0
    sums = np.cumsum(_jumps(grey, height, width, rows, columns), axis=1)
    left = np.arange(2, columns - 1, dtype=np.float32)  # pieces to the left of the break
    before, after = sums[:, 1:-2] / left, (sums[:, -1:] - sums[:, 1:-2]) / (columns - left)
    here, next_row = after[:-1], before[1:]
    # The smaller one where both go the same way; not above zero where they do not.
    jump = np.maximum(np.minimum(here, next_row), -np.maximum(here, next_row))
    return float(np.max(jump - np.maximum(np.abs(before[:-1]), np.abs(after[1:]))))


def _jumps(grey: np.ndarray, height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Mean jump across the upper edge of each piece but the first row's, beyond the slope on both sides of the edge:
    float32 (rows, columns)."""
    last = (rows - 1) * height + 1
    above, before, after, below = (grey[place:place + last:height, :columns * width].astype(np.float32)
                                   for place in range(height - 2, height + 2))
    twice = 3 * (after - before) - (below - above)  # 2 jump - slope above - slope below
    np.clip(twice, -2 * MOST_JUMP, 2 * MOST_JUMP, out=twice)
    return cv2.resize(twice, (columns, rows), interpolation=cv2.INTER_AREA) / 2
