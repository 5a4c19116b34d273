"""From films or prepared crops to the network's inputs: normalisation, and batches for training and prediction.

decode -> rescale -> crop (uint8, `template`) -> augment (uint8, `augment`) -> normalise (float32, three channels).
Batches come as tf.data streams, or from prepared crops as a `keras.utils.PyDataset` that needs no TensorFlow.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from .augment import AUGMENTATIONS, augmented, read_augmentation, tta_views
from .errors import InputError, one_of
from .films import MIN_SIDE, FilmError, graph_decode, read_film
from .template import Cropper

__all__ = ["AUGMENTATIONS", "IMAGENET", "MIN_SIDE", "NATIVE", "SUFFIXES", "CropSource", "FilmError", "FilmSource",
           "Normalisation", "augmented", "crop_batches", "film_errors", "graph_decode", "graph_normalise", "normalise",
           "read_augmentation", "read_film", "stream", "tta_views"]

SUFFIXES = (".jpg", ".jpeg", ".png")


# ---------------------------------------------------------------------------------------------------- normalisation

@dataclass(frozen=True)
class Normalisation:
    """Per channel (value / 255 - mean) / std; the grey film is repeated in all three channels (ledger P3, P5).

    Attributes:
        mean, std: three numbers each, on the scale 0 to 1.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self):
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
    side = _checked_side(crops.shape[1], image_size)
    out = np.empty((len(crops), side, side, 3), np.float32)
    columns = [np.ascontiguousarray(how.table[:, channel]) for channel in range(3)]
    for crop, image in zip(crops, out):
        if side == len(crop):
            cv2.merge([cv2.LUT(crop, column) for column in columns], image)
        else:
            small = cv2.resize(crop.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
            cv2.merge([small * slope + offset for slope, offset in zip(*how.line)], image)
    return out


def graph_normalise(crops, how: Normalisation, image_size: int | None = None):
    """`normalise` in keras.ops, for the SavedModel and for normalising on the device: same arguments, a tensor back."""
    from keras import ops

    crops = crops[..., 0] if len(crops.shape) == 4 else crops
    side = _checked_side(crops.shape[1], image_size)
    if side == crops.shape[1]:
        return ops.take(ops.convert_to_tensor(how.table), ops.cast(crops, "int32"), axis=0)
    weights = ops.convert_to_tensor(_area_matrix(crops.shape[1], side))  # (s, c)
    small = ops.matmul(ops.matmul(weights, ops.cast(crops, "float32")), ops.transpose(weights))
    slope, offset = map(ops.convert_to_tensor, how.line)
    return ops.expand_dims(small, -1) * slope + offset


def _checked_side(side: int, image_size: int | None) -> int:
    if image_size is not None and not 1 <= image_size <= side:
        raise InputError(f"image size {image_size}: expected at most {side}, the size of the crops")
    return image_size or side


@lru_cache(maxsize=8)
def _area_matrix(side: int, small: int) -> np.ndarray:
    """Weights of the mean over each new pixel's area: float32 (small, side), rows sum to 1."""
    edges = np.arange(small + 1) * side / small
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(overlap, 0) * small / side).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- batches

@dataclass(frozen=True, eq=False)
class FilmSource:
    """Crops on demand, from files: `source(rows)` decodes and crops these films on all cores.

    Attributes:
        files: the films' files.
        cropper: how they are cropped; or one per film by `cropper_of`.
        names: what errors call them, e.g. "train.csv, row 12: patient00001/study1/view1_frontal.jpg".
        cropper_of: place -> the cropper's place in `cropper` when that is a sequence (frontal, lateral).
        workers: threads; None for one per core.
    """

    files: Sequence[str | os.PathLike]
    cropper: Cropper | Sequence[Cropper]
    names: Sequence[str] | None = None
    cropper_of: Sequence[int] | None = None
    workers: int | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def side(self) -> int:
        """c, the side of the crops in pixels."""
        return (self.cropper if self.cropper_of is None else self.cropper[0]).size

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows), c, c).

        Raises:
            FilmError: a film cannot be used; the line names it.
        """
        parts = np.array_split(np.asarray(rows), min(self._pool._max_workers, max(len(rows), 1)))
        return np.concatenate(list(self._pool.map(self._some, parts)))

    def _some(self, rows: np.ndarray) -> np.ndarray:
        out = []
        for row in rows:
            name = self.names[row] if self.names is not None else str(self.files[row])
            cropper = self.cropper if self.cropper_of is None else self.cropper[self.cropper_of[row]]
            out.append(cropper.crop([read_film(self.files[row], name)]).crops)
        return np.concatenate(out) if out else np.empty((0, self.side, self.side), np.uint8)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        cv2.setNumThreads(1)  # films are what is done in parallel, not the parts of a film
        return ThreadPoolExecutor(self.workers or os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class CropSource:
    """Crops that are at hand: `source(rows)` picks them from an array or memory map uint8 (films, c, c).

    Attributes:
        crops: uint8 (films, c, c).
        at: place of each film in `crops`; None when they are in order.
    """

    crops: np.ndarray
    at: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.crops if self.at is None else self.at)

    @property
    def side(self) -> int:
        """c, the side of the crops in pixels."""
        return self.crops.shape[1]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows), c, c)."""
        return np.asarray(self.crops[rows if self.at is None else self.at[rows]])


@dataclass(frozen=True, eq=False)
class Batches:
    """What a batch is, for all of the forms below.

    Attributes:
        source: rows -> uint8 crops.
        rows: places in the source, in the order in which films are given (the caller shuffles).
        batch_size: films in a batch; the last one may be smaller.
        how: the normalisation; None gives uint8 (b, s, s, 1) for normalising on the device.
        image_size: s; None for the crop's own.
        targets: float32 (len(rows), L) in the order of `rows`, or None.
        weights: float32, one per row of `targets`, or None.
        augment: names of AUGMENTATIONS.
        keys: names of all the source's films, which the draws depend on; needed for `augment`.
        draw: (seed, epoch), or any further whole numbers, which the draws depend on.
    """

    source: FilmSource | CropSource
    rows: np.ndarray
    batch_size: int
    how: Normalisation | None = IMAGENET
    image_size: int | None = None
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    augment: Sequence[str] = ()
    keys: Sequence[str] | None = None
    draw: tuple[int, ...] = (0, 0)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @cached_property
    def side(self) -> int:
        """s, the side of the inputs in pixels."""
        crop = np.zeros((1, self.source.side, self.source.side), np.uint8)
        side = augmented(crop, [""], self.augment, 0).shape[1]
        return side if self.how is None else _checked_side(side, self.image_size)

    def inputs(self, start: int) -> np.ndarray:
        """The inputs of the batch that begins at place `start` of `rows`: float32 (b, s, s, 3)."""
        rows = np.asarray(self.rows[start:start + self.batch_size])
        crops = self.source(rows)
        if self.augment:
            seed, *rest = self.draw
            epoch = sum(int(number) * 1009 ** place for place, number in enumerate(reversed(rest)))
            crops = augmented(crops, [self.keys[row] for row in rows], self.augment, seed, epoch)
        if self.how is None:
            return crops[..., None]
        return normalise(crops, self.how, self.image_size)

    def __getitem__(self, number: int):
        """Batch `number`: inputs, or (inputs, targets), or (inputs, targets, weights)."""
        start = number * self.batch_size
        parts = [self.inputs(start)]
        parts += [np.asarray(part[start:start + self.batch_size])
                  for part in (self.targets, self.weights) if part is not None]
        return tuple(parts) if len(parts) > 1 else parts[0]


def stream(batches: Batches, parallel: int = 2, ahead: int = 2):
    """The batches as a tf.data.Dataset of the network's inputs, (inputs, targets) or (inputs, targets, weights).

    At most `parallel + ahead` batches are held. An unreadable film ends the stream; wrap what reads from it in
    `film_errors` to see the film's own error line.
    """
    import tensorflow as tf

    dtype = tf.uint8 if batches.how is None else tf.float32
    side, channels = batches.side, 1 if batches.how is None else 3

    read = _marked(batches.inputs)

    @tf.autograph.experimental.do_not_convert
    def load(start):
        inputs = tf.numpy_function(read, [start], dtype)
        inputs.set_shape([None, side, side, channels])
        return inputs

    starts = tf.data.Dataset.range(0, len(batches.rows), batches.batch_size)
    inputs = starts.map(load, num_parallel_calls=parallel, deterministic=True)
    rest = [tf.data.Dataset.from_tensor_slices(np.asarray(part)).batch(batches.batch_size)
            for part in (batches.targets, batches.weights) if part is not None]
    joined = tf.data.Dataset.zip((inputs, *rest)) if rest else inputs
    return joined.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(ahead)


def crop_batches(batches: Batches, workers: int = 2):
    """The batches as a keras.utils.PyDataset, for any backend and without TensorFlow.

    Give it to `fit` with shuffle=False: Keras would otherwise shuffle the batches once more.
    """
    import keras

    class CropBatches(keras.utils.PyDataset):
        """Batches in the order given."""

        def __len__(self):
            return len(batches)

        def __getitem__(self, number):
            return batches[number]

    return CropBatches(workers=workers, use_multiprocessing=False, max_queue_size=workers + 2)


BEGIN, END = "<film error>", "</film error>"


def _marked(function: Callable) -> Callable:
    """Mark an error line so that `film_errors` finds it again in what TensorFlow makes of it."""
    def call(*args):
        try:
            return function(*args)
        except InputError as error:
            raise ValueError(f"{BEGIN}{error}{END}") from None
    return call


@contextlib.contextmanager
def film_errors() -> Iterator[None]:
    """Turn TensorFlow's error about a stream whose film could not be read back into the film's own error.

    Raises:
        FilmError: one line that names the film and the reason; other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        if BEGIN in text and END in text:
            raise FilmError(text.split(BEGIN, 1)[1].split(END, 1)[0]) from None
        raise
