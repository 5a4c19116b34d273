"""From films or prepared crops to the network's inputs: normalisation, and batches for training and prediction.

decode -> rescale -> crop (uint8, `template`) -> augment (uint8, `augment`) -> normalise (float32, three channels).
Batches come as tf.data streams, or from prepared crops as a `keras.utils.PyDataset` that needs no TensorFlow.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from .augment import augmented
from .decode import read_film
from .grey import FilmError, Tensor
from .normalisation import IMAGENET, Normalisation, checked_side, normalise
from .template import Cropper

SUFFIXES = (".jpg", ".jpeg", ".png")


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

    files: Sequence[str | os.PathLike[str]]
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
        return side if self.how is None else checked_side(side, self.image_size)

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

    def __getitem__(self, number: int) -> Any:
        """Batch `number`: inputs, or (inputs, targets), or (inputs, targets, weights)."""
        start = number * self.batch_size
        parts = [self.inputs(start)]
        parts += [np.asarray(part[start:start + self.batch_size])
                  for part in (self.targets, self.weights) if part is not None]
        return tuple(parts) if len(parts) > 1 else parts[0]


def stream(batches: Batches, parallel: int = 2, ahead: int = 2) -> Any:
    """The batches as a tf.data.Dataset of the network's inputs, (inputs, targets) or (inputs, targets, weights).

    At most `parallel + ahead` batches are held. An unreadable film ends the stream; wrap what reads from it in
    `film_errors` to see the film's own error line.
    """
    import tensorflow as tf

    dtype = tf.uint8 if batches.how is None else tf.float32
    side, channels = batches.side, 1 if batches.how is None else 3

    read = _marked(batches.inputs)

    @tf.autograph.experimental.do_not_convert
    def load(start: Tensor) -> Tensor:
        inputs = tf.numpy_function(read, [start], dtype)
        inputs.set_shape([None, side, side, channels])
        return inputs

    starts = tf.data.Dataset.range(0, len(batches.rows), batches.batch_size)
    inputs = starts.map(load, num_parallel_calls=parallel, deterministic=True)
    rest = [tf.data.Dataset.from_tensor_slices(np.asarray(part)).batch(batches.batch_size)
            for part in (batches.targets, batches.weights) if part is not None]
    joined = tf.data.Dataset.zip((inputs, *rest)) if rest else inputs
    return joined.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(ahead)


def crop_batches(batches: Batches, workers: int | None = None) -> Any:
    """The batches as a keras.utils.PyDataset, for any backend and without TensorFlow.

    Give it to `fit` with shuffle=False: Keras would otherwise shuffle the batches once more. The threads that read
    ahead are its own: those of Keras 3.15 give the batches of a network's first epoch from the second one on, because
    `fit` looks at the first.

    Args:
        batches: what is read.
        workers: threads, each with a batch in hand; None for half the cores (2 to 16), which feeds several cards.
    """
    import keras

    threads = workers or min(16, max(2, (os.cpu_count() or 1) // 2))

    class CropBatches(keras.utils.PyDataset):
        """Batches in the order given, of which some are read ahead."""

        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.pool, self.coming = ThreadPoolExecutor(threads), {}

        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, number: int) -> Any:
            for ahead in range(number, min(number + threads + 2, len(batches))):
                if ahead not in self.coming:
                    self.coming[ahead] = self.pool.submit(batches.__getitem__, ahead)
            return self.coming.pop(number).result()

    return CropBatches()


BEGIN, END = "<film error>", "</film error>"


def _marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark an error line so that `film_errors` finds it again in what TensorFlow makes of it."""
    def call(*args: Any) -> Any:
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
