"""Changed views of crops: training augmentation and the ten test-time views. Same seed, same film, same view.

All work on uint8 crops, before normalisation, and draw from a hash of (seed, film, what is drawn), so that neither the
order of films nor the batch they come in moves a view.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import InputError, one_of
from ..labels import uniform_draws
from .grey import Tensor

# ---------------------------------------------------------------------------------------------------- training

def hflip(crops: np.ndarray, draws: np.ndarray, parameter: float) -> np.ndarray:
    """Mirror left and right every other film (all recipes but Pham's; deviations P6)."""
    out = crops.copy()
    chosen = draws[:, 0] < 0.5
    out[chosen] = crops[chosen][:, :, ::-1]
    return out


def vflip(crops: np.ndarray, draws: np.ndarray, parameter: float) -> np.ndarray:
    """Mirror top and bottom every other film (HBCE's published code; no recipe's default: chests stand upright)."""
    out = crops.copy()
    chosen = draws[:, 0] < 0.5
    out[chosen] = crops[chosen][:, ::-1]
    return out


def random_crop(crops: np.ndarray, draws: np.ndarray, parameter: float) -> np.ndarray:
    """Cut a square of `parameter` pixels at a random place (CheXpertNet: 320 out of 364)."""
    return _cut(crops, int(parameter), draws)


def centre_crop(crops: np.ndarray, draws: np.ndarray, parameter: float) -> np.ndarray:
    """Cut the central square of `parameter` pixels; draws nothing, for evaluation."""
    return _cut(crops, int(parameter), np.full_like(draws, 0.5))


def brightness(crops: np.ndarray, draws: np.ndarray, parameter: float) -> np.ndarray:
    """Add up to +-`parameter` of the full range (HBCE: 0.1)."""
    shift = (2 * draws[:, 0] - 1) * parameter * 255
    return _to_bytes(crops + shift[:, None, None].astype(np.float32))


def contrast(crops: np.ndarray, draws: np.ndarray, parameter: float) -> np.ndarray:
    """Stretch around the film's mean by up to 1 +- `parameter` (HBCE: 0.9 to 1.1)."""
    factor = (1 + (2 * draws[:, 0] - 1) * parameter).astype(np.float32)[:, None, None]
    mean = crops.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return _to_bytes((crops - mean) * factor + mean)


# name -> (uint8 (n, c, c), uniform draws (n, 2), parameter) -> uint8 (n, s, s), and the parameter's default
AUGMENTATIONS: dict[str, tuple[Callable[..., np.ndarray], float | None]] = {
    "hflip": (hflip, None),
    "vflip": (vflip, None),
    "random_crop": (random_crop, 320),
    "centre_crop": (centre_crop, 320),
    "brightness": (brightness, 0.1),
    "contrast": (contrast, 0.1),
}


class Augmentation(NamedTuple):
    """One row of AUGMENTATIONS with its parameter."""

    function: Callable[..., np.ndarray]
    name: str
    parameter: float | None


def read_augmentation(text: str) -> Augmentation:
    """`"random_crop:320"` -> the function, its name and its parameter.

    Raises:
        InputError: unknown name, or a parameter that is no positive number.
    """
    name, colon, value = text.partition(":")
    one_of("augmentation", name, AUGMENTATIONS)
    function, parameter = AUGMENTATIONS[name]
    if colon:
        try:
            parameter = float(value)
        except ValueError:
            parameter = -1.0
        if AUGMENTATIONS[name][1] is None or not 0 < parameter < 10000:
            raise InputError(f"augmentation {text!r}: expected NAME or NAME:NUMBER, e.g. hflip or random_crop:320")
    return Augmentation(function, name, parameter)


def augmented(crops: np.ndarray, keys: Sequence[str], names: Sequence[str], seed: int, epoch: int = 0) -> np.ndarray:
    """Apply augmentations one after the other.

    Args:
        crops: uint8 (n, c, c).
        keys: the films' names, n of them.
        names: keys of AUGMENTATIONS, with a parameter after a colon where one is needed.
        seed, epoch: what else the draws depend on.

    Returns:
        uint8 (n, s, s); s is c unless a crop changed it.
    """
    for place, text in enumerate(names):
        function, name, parameter = read_augmentation(text)
        draws = uniform_draws(keys, [f"{place} {name} a", f"{place} {name} b"], seed, stream=epoch)
        crops = function(crops, draws, parameter)
    return crops


def plain_window(names: Sequence[str], side: int) -> tuple[int, int]:
    """Where a recipe's plain view lies in its crops.

    Args:
        names: a recipe's `plain_view`: centre crops, or nothing.
        side: of the crops in pixels.

    Returns:
        (first row and column, side of the view); crops[:, first:first + side, first:first + side] is the view, of
        arrays and of tensors.

    Raises:
        InputError: a view that draws, or that is larger than the crops.
    """
    first = 0
    for text in names:
        _, name, parameter = read_augmentation(text)
        if name != "centre_crop":
            raise InputError(f"plain_view {text!r}: expected centre_crop:PIXELS, which draws nothing")
        if parameter > side:
            raise InputError(f"plain_view {text!r}: cannot be cut out of crops of {side} pixels")
        first, side = first + (side - int(parameter) + 1) // 2, int(parameter)
    return first, side


def plain(crops: Tensor, names: Sequence[str]) -> Tensor:
    """The recipe's view of crops (n, c, c), an array or a tensor, where nothing is drawn."""
    if not names:
        return crops
    first, side = plain_window(names, int(crops.shape[1]))
    return crops[:, first:first + side, first:first + side]


def _cut(crops: np.ndarray, side: int, draws: np.ndarray) -> np.ndarray:
    spare = crops.shape[1] - side
    if spare < 0:
        raise InputError(f"augmentation: cannot cut {side} pixels out of crops of {crops.shape[1]} pixels")
    places = np.minimum((draws * (spare + 1)).astype(np.int64), spare)
    return np.stack([crop[y:y + side, x:x + side] for crop, (y, x) in zip(crops, places)])


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------- test time

def tta_views(crops: np.ndarray, keys: Sequence[str], draws: int, seed: int, composed: bool = False,
              include_original: bool = False) -> Iterator[np.ndarray]:
    """The random views over which predictions are averaged, one draw at a time.

    Per film and draw one of TTA_VIEWS, each as likely: mirrored, rotated by up to 7 degrees, scaled by up to 2 %,
    sheared by up to 5 pixels in 224; magnitudes uniform in the range, about the centre, bilinear, black outside.

    Args:
        crops: uint8 (n, c, c).
        keys: the films' names, n of them.
        draws: how many views of each film; the paper's 10.
        seed: what the draws depend on beside the film.
        composed: all of them in one view (mirrored every other time) instead of one.
        include_original: give the crops themselves first, as one view more.

    Yields:
        uint8 (n, c, c).

    Source: Pham et al. 2019, section 4.4 (deviations E3-E5).
    """
    if include_original:
        yield crops
    for draw in range(draws):
        matrices = tta_matrices(keys, draw, seed, crops.shape[1], composed)
        out = np.empty_like(crops)
        for crop, matrix, view in zip(crops, matrices, out):
            cv2.warpAffine(crop, matrix, crop.shape[::-1], view, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                           cv2.BORDER_CONSTANT, 0)
        yield out


def mirrored(amounts: np.ndarray, composed: bool) -> np.ndarray:
    """Left and right exchanged: always, or every other time where it is one of several changes."""
    return _linear(np.where((amounts > 0) | (not composed), -1.0, 1.0), 0, 0, 1)


def rotated(amounts: np.ndarray, composed: bool) -> np.ndarray:
    """Turned by up to +-ROTATION degrees."""
    angle = np.deg2rad(ROTATION) * amounts
    return _linear(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))


def scaled(amounts: np.ndarray, composed: bool) -> np.ndarray:
    """Larger or smaller by up to SCALING."""
    return _linear(1 / (1 + SCALING * amounts), 0, 0, 1 / (1 + SCALING * amounts))


def sheared(amounts: np.ndarray, composed: bool) -> np.ndarray:
    """Rows shifted against each other by up to SHEAR of the height."""
    return _linear(1, SHEAR * amounts, 0, 1)


def _linear(*parts: float | np.ndarray) -> np.ndarray:
    """Four numbers or (n,) arrays, row by row -> (n, 2, 2)."""
    return np.stack(np.broadcast_arrays(*map(np.asarray, parts)), axis=-1).astype(np.float64).reshape(-1, 2, 2)


# Pham et al. 2019, section 4.4: "a horizontal flipping, rotating +-7 degrees, scaling +-2 %, shearing +-5 pixels"
# (deviations E3); 5 pixels over a height of 224 (E4).
ROTATION = 7.0
SCALING = 0.02
SHEAR = 5 / 224
# name -> (uniform draws (n,) in [-1, 1), whether all views are composed) -> where a pixel comes from, about the centre:
# float64 (n, 2, 2)
TTA_VIEWS: dict[str, Callable[[np.ndarray, bool], np.ndarray]] = {
    "hflip": mirrored,
    "rotation": rotated,
    "scaling": scaled,
    "shear": sheared,
}


def tta_matrices(keys: Sequence[str], draw: int, seed: int, size: int, composed: bool = False) -> np.ndarray:
    """Where each pixel of a view comes from: float64 (n, 2, 3), (x, y, 1) in the view -> (x, y) in the crop."""
    drawn = uniform_draws(keys, ["kind", *TTA_VIEWS], seed, stream=draw)  # (n, 1 + views)
    kind = (drawn[:, 0] * len(TTA_VIEWS)).astype(int)
    matrices = np.broadcast_to(np.eye(2), (len(kind), 2, 2))
    for place, linear in enumerate(TTA_VIEWS.values()):
        chosen = (kind == place) | composed
        change = linear(2 * drawn[:, 1 + place] - 1, composed)
        matrices = matrices @ np.where(chosen[:, None, None], change, np.eye(2))
    centre = np.full(2, (size - 1) / 2)
    shift = centre - matrices @ centre  # the centre stays where it is
    return np.concatenate([matrices, shift[:, :, None]], axis=2)
