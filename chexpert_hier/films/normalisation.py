"""From crops to the network's inputs: one normalisation for training and serving."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from ..errors import InputError, one_of
from .grey import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Per channel (value / 255 - mean) / std; the grey film is repeated in all three channels (deviations P3, P5).

    Attributes:
        mean, std: three numbers each, on the scale 0 to 1.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not np.all(np.isfinite([*self.mean, *self.std])) \
                or min(self.std) <= 0:
            raise InputError(f"normalisation: expected three finite means and three positive standard deviations, "
                             f"received {self.mean} and {self.std}")

    @classmethod
    def named(cls, how: str, native: str = "torch", dataset: tuple[float, float] | None = None) -> "Normalisation":
        """The normalisation of that name.

        Args:
            how: "imagenet", "native" (also "native:tf", "native:torch"), "dataset" or "none" (0 to 1).
            native: how the backbone's weights were trained, a key of NATIVE; used by "native".
            dataset: pixel mean and standard deviation of the training films on 0 to 1; used by "dataset".
        """
        kind, colon, value = how.partition(":")
        one_of("normalisation", kind, ("imagenet", "native", "dataset", "none"))
        if kind == "native":
            one_of("native normalisation", value if colon else native, NATIVE)
            return NATIVE[value if colon else native]
        if kind == "dataset":
            if dataset is None:
                raise InputError("normalisation 'dataset': the training films' mean and standard deviation are not "
                                 "known; prepare a cache first")
            return cls((dataset[0],) * 3, (dataset[1],) * 3)
        return IMAGENET if kind == "imagenet" else cls((0.0,) * 3, (1.0,) * 3)

    @cached_property
    def table(self) -> np.ndarray:
        """The answer for every grey level: float32 (256, 3). Looking up gives the same bits everywhere."""
        level = np.arange(256, dtype=np.float64)[:, None] / 255
        return ((level - self.mean) / self.std).astype(np.float32)

    @cached_property
    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """Slope and intercept per channel for grey levels that are no whole numbers: float32 (3,) each."""
        slope = 1 / (255 * np.array(self.std))
        return slope.astype(np.float32), (-np.array(self.mean) / self.std).astype(np.float32)


# Means and standard deviations of ImageNet's training images, in the form used by torchvision and Keras.
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# How the published ImageNet weights were trained (keras.applications.imagenet_utils.preprocess_input): "torch" for the
# DenseNets, "tf" (-1 to 1) for Inception-ResNet-v2, Xception and NASNet.
NATIVE = {"torch": IMAGENET, "tf": Normalisation((0.5,) * 3, (0.5,) * 3)}


def normalise(crops: np.ndarray, how: str | Normalisation = "imagenet", image_size: int | None = None) -> np.ndarray:
    """Turn crops into the network's inputs.

    Args:
        crops: uint8 (n, c, c) or (n, c, c, 1).
        how: a Normalisation or the name of one.
        image_size: s, side of the result; below c each new pixel is the mean over its area. None: c.

    Returns:
        float32 (n, s, s, 3).

    Raises:
        InputError: image_size is larger than the crops.
    """
    how = Normalisation.named(how) if isinstance(how, str) else how
    crops = crops[..., 0] if crops.ndim == 4 else crops
    side = checked_side(crops.shape[1], image_size)
    out = np.empty((len(crops), side, side, 3), np.float32)
    columns = [np.ascontiguousarray(how.table[:, channel]) for channel in range(3)]
    for crop, image in zip(crops, out):
        if side == len(crop):
            cv2.merge([cv2.LUT(crop, column) for column in columns], image)
        else:
            small = cv2.resize(crop.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
            cv2.merge([small * slope + offset for slope, offset in zip(*how.line)], image)
    return out


def graph_normalise(crops: Tensor, how: Normalisation, image_size: int | None = None) -> Tensor:
    """`normalise` in keras.ops, for the SavedModel and for normalising on the device: same arguments, a tensor back."""
    from keras import ops

    crops = crops[..., 0] if len(crops.shape) == 4 else crops
    side = checked_side(crops.shape[1], image_size)
    if side == crops.shape[1]:
        return ops.take(ops.convert_to_tensor(how.table), ops.cast(crops, "int32"), axis=0)
    weights = ops.convert_to_tensor(area_matrix(crops.shape[1], side))  # (s, c)
    small = ops.matmul(ops.matmul(weights, ops.cast(crops, "float32")), ops.transpose(weights))
    slope, offset = map(ops.convert_to_tensor, how.line)
    return ops.expand_dims(small, -1) * slope + offset


def checked_side(side: int, image_size: int | None) -> int:
    if image_size is not None and not 1 <= image_size <= side:
        raise InputError(f"image size {image_size}: expected at most {side}, the size of the crops")
    return image_size or side


@lru_cache(maxsize=8)
def area_matrix(side: int, small: int) -> np.ndarray:
    """Weights of the mean over each new pixel's area: float32 (small, side), rows sum to 1."""
    edges = np.arange(small + 1) * side / small
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(overlap, 0) * small / side).astype(np.float32)
