"""Find the chest in a film: rescale, match against the mean chest, crop.

The paper rescales to 256 x 256 and cuts a 224 x 224 piece by "template matching" (Pham et al. 2019, section 4.2). Where
the template comes from and which score is meant is not stated; here it is the pixelwise mean of centre crops of
training films and the mean-removed normalised cross-correlation (OpenCV's TM_CCOEFF_NORMED; deviations P1, P2).

One definition, two forms: OpenCV and NumPy for training and `prepare`, TensorFlow operations for the SavedModel. Both
decide in exact integers, the rounding of a rescaled pixel as well as the best place, and so give the same bytes.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..errors import InputError, one_of
from ..files import written_whole
from .grey import Tensor
from .rescaling import RESIZES, graph_rescale, half_to_even, in_numpy, rescale, scratch

MODES = ("template", "centre", "none")

# Places whose single-precision score comes this close to the best are scored again in integers.
NEAR_BEST = 1e-4
# Single precision is trusted while the film's energy is below this many times that of its flattest window.
CONTRAST_RANGE = 300.0


class Crops(NamedTuple):
    """What a `Cropper` gives, one row per film.

    Attributes:
        crops: uint8 (n, size, size).
        places: int32 (n, 2), row and column of the upper left corner in the rescaled film.
        scores: float32 (n,), normalised cross-correlation in [-1, 1] at that place; 0 where every window is flat, NaN
            where nothing was matched (modes "centre" and "none").
    """

    crops: Any
    places: Any
    scores: Any


class Best(NamedTuple):
    """The best place in a rescaled film, the upper left corner of its crop, and the score there."""

    row: int
    column: int
    score: float


def read_template(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a template that `write_template` wrote: uint8 (size, size).

    Raises:
        InputError: it is missing or no square 8-bit grey PNG.
    """
    data = Path(path).read_bytes() if Path(path).is_file() else b""
    template = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if template is None or template.dtype != np.uint8 or template.ndim != 2 or len(set(template.shape)) != 1:
        raise InputError(f"{path}: expected the template, a square 8-bit grey PNG; received "
                         f"{'nothing' if not data else 'something else'}. Is this a finished run or cache?")
    return template


def write_template(path: str | os.PathLike[str], template: np.ndarray) -> None:
    """Write a template, uint8 (size, size), as PNG, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_bytes(cv2.imencode(".png", template)[1].tobytes())


def learn_template(films: Iterable[np.ndarray], size: int = 224) -> np.ndarray:
    """The mean chest: the pixelwise mean of the films' centre crops, rounded to the nearest level.

    Args:
        films: rescaled training films, uint8 (r, r) with r at least `size`; never validation or test films.
        size: side of the template in pixels.

    Returns:
        uint8 (size, size).

    Raises:
        InputError: there is no film.

    Source: Pham et al. 2019, section 4.2 ("template chest image"; its origin is not stated, deviations P2).
    """
    total, count = np.zeros((size, size), np.int64), 0
    for film in films:
        top = (film.shape[0] - size) // 2
        total += film[top:top + size, top:top + size]
        count += 1
    if not count:
        raise InputError("template: no training film to learn it from; expected at least one")
    return half_to_even(total, count, in_numpy()).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Cropper:
    """How a film becomes a crop; the same bytes come from `crop` (OpenCV) and `graph` (TensorFlow operations).

    Attributes:
        mode: "template" (best match), "centre", or "none" (rescaled to the crop's own size, nothing cut off).
        template: uint8 (size, size), needed for mode "template" only.
        rescaled: side in pixels to which films are rescaled first; `size` for mode "none".
        size: side of the crop in pixels.
        resize: see `rescale`.
        least: where the template matches less than this, the centre is cropped; -1: never (ours, off by default).

    Raises:
        InputError: the parts do not fit together, or the template is flat.
    """

    mode: str = "template"
    template: np.ndarray | None = None
    rescaled: int = 256
    size: int = 224
    resize: str = "auto"
    least: float = -1.0

    def __post_init__(self) -> None:
        one_of("crop mode", self.mode, MODES)
        one_of("resize", self.resize, RESIZES)
        if self.mode == "none":
            object.__setattr__(self, "rescaled", self.size)
        if not 1 <= self.size <= self.rescaled:
            raise InputError(f"crop size {self.size}: expected 1 to {self.rescaled}, the size films are rescaled to")
        if self.mode == "template":
            self._check_template()

    def _check_template(self) -> None:
        template = np.asarray(self.template)
        if template.dtype != np.uint8 or template.shape != (self.size, self.size):
            raise InputError(f"template: expected uint8 ({self.size}, {self.size}), received {template.dtype} "
                             f"{template.shape}; learn it again for this size")
        if template.min() == template.max():
            raise InputError("template: every pixel is the same, so it matches nothing; learn it from chest films")

    @property
    def places(self) -> int:
        """Places along one side where the crop fits: 33 for 256 and 224."""
        return self.rescaled - self.size + 1

    @property
    def identity(self) -> str:
        """sha256 in hex over everything that decides the crops."""
        parts = [self.mode, self.rescaled, self.size, self.resize, *([self.least] if self.least > -1 else [])]
        pixels = np.asarray(self.template).tobytes() if self.mode == "template" else b""
        return hashlib.sha256(repr(parts).encode() + pixels).hexdigest()

    def rescale(self, grey: np.ndarray) -> np.ndarray:
        """The whole film, uint8 (h, w), as this cropper rescales it: uint8 (rescaled, rescaled)."""
        return rescale(grey, self.rescaled, self.resize)

    def crop(self, films: Sequence[np.ndarray]) -> Crops:
        """Crop films, uint8 (h, w) each and of any sizes; arrays as `Crops` says."""
        count = len(films)
        out = Crops(np.empty((count, self.size, self.size), np.uint8), np.empty((count, 2), np.int32),
                    np.full(count, np.nan, np.float32))
        for k, grey in enumerate(films):
            film = self.rescale(grey)
            row = column = (self.places - 1) // 2
            if self.mode == "template":
                place = self.find(film)
                out.scores[k] = place[2]
                if out.scores[k] >= np.float32(self.least):
                    row, column, _ = place
            out.crops[k] = film[row:row + self.size, column:column + self.size]
            out.places[k] = row, column
        return out

    # ------------------------------------------------------------------------------------------ OpenCV form

    @cached_property
    def _spectrum(self) -> np.ndarray:
        """The mean-free template's spectrum as cv2.dft packs it, float32 (rescaled, rescaled)."""
        padded = np.zeros((self.rescaled, self.rescaled), np.float32)
        padded[:self.size, :self.size] = self.template - self.template.mean(dtype=np.float64)
        return cv2.dft(padded)

    @cached_property
    def _weights(self) -> np.ndarray:
        """The template as float64 (size * size,): sums of products of two bytes are exact in it."""
        return self.template.astype(np.float64).ravel()

    @cached_property
    def _weights_sum(self) -> float:
        return float(self._weights.sum())

    @cached_property
    def _template_energy(self) -> float:
        """size^4 times the template's variance: an integer below 2^53."""
        return float(self.size ** 2 * (self._weights @ self._weights) - self._weights_sum ** 2)

    def find(self, film: np.ndarray) -> Best:
        """The best place in one rescaled film, uint8 (rescaled, rescaled).

        One Fourier transform of the film and one back, the template's own being at hand. Places within `NEAR_BEST` of
        the best are scored again in integers; ties go to the first in row order.
        """
        places, size, side = self.places, self.size, self.rescaled
        sums, squares = self._window_sums(film)
        energy = size ** 2 * squares - np.square(sums, dtype=np.float64)  # size^4 times each window's variance, exact
        whole = (side * size * cv2.meanStdDev(film)[1][0, 0]) ** 2  # the whole film's, in the same unit
        if whole >= CONTRAST_RANGE * energy.min():
            return self._find_exactly(film, sums, energy)
        one, two = (scratch(name, side * side, np.float32).reshape(side, side) for name in ("one", "two"))
        np.subtract(film, np.float32(128), out=one, dtype=np.float32)  # small numbers, small rounding errors
        cv2.dft(one, two)
        cv2.mulSpectrums(two, self._spectrum, 0, one, conjB=True)
        # Asked for the needed rows only, OpenCV leaves its fast path and takes twice as long.
        cross = cv2.dft(one, two, cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT)[:places, :places]
        score = cross / np.sqrt(energy)
        scale = size ** 2 / self._template_energy ** 0.5
        near = np.flatnonzero(score >= score.max() - NEAR_BEST / scale)  # row order
        exact = [self._exact_score(film, *divmod(int(place), places), sums, energy) for place in near]
        best = int(np.argmax(exact))
        return Best(*divmod(int(near[best]), places), float(exact[best]))

    def _window_sums(self, film: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of values (int32) and of squares (float64, exact) over all windows, from integral images."""
        side, size = self.rescaled + 1, self.size
        sums = scratch("sums", side * side, np.int32).reshape(side, side)
        squares = scratch("squares", side * side, np.float64).reshape(side, side)
        cv2.integral2(film, sums, squares, cv2.CV_32S, cv2.CV_64F)
        return tuple(table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
                     for table in (sums, squares))

    def _exact_score(self, film: np.ndarray, row: int, column: int, sums: np.ndarray, energy: np.ndarray) -> float:
        window = scratch("window", self.size ** 2, np.float64)
        np.copyto(window.reshape(self.size, self.size), film[row:row + self.size, column:column + self.size])
        # einsum stays in this thread; BLAS would wake others for a sum this small.
        match = np.einsum("i,i->", window, self._weights)
        product = self.size ** 2 * match - float(sums[row, column]) * self._weights_sum
        return product / np.sqrt(energy[row, column]) / np.sqrt(self._template_energy)

    def _find_exactly(self, film: np.ndarray, sums: np.ndarray, energy: np.ndarray) -> Best:
        """As `find`, for films with almost flat windows, where single precision could mislead: integers everywhere."""
        shape, places = (self.rescaled, self.rescaled), self.places
        template = np.fft.rfft2(self.template.astype(np.float64), shape)
        spectrum = np.fft.rfft2(film.astype(np.float64)) * np.conj(template)
        cross = np.rint(np.fft.irfft2(spectrum, shape)[:places, :places])  # sums of products of bytes: integers
        product = self.size ** 2 * cross - sums * self._weights_sum
        seen = np.where(energy > 0, energy, 1.0)
        score = np.where(energy > 0, product / np.sqrt(seen) / np.sqrt(self._template_energy), 0.0)
        best = int(score.argmax())
        return Best(*divmod(best, places), float(score.flat[best]))

    # ------------------------------------------------------------------------------------------ TensorFlow form

    def graph(self, films: Tensor) -> Crops:
        """The same in TensorFlow operations, for the SavedModel and for tf.data.

        Args:
            films: uint8 tensor: (h, w), (h, w, 1), (n, h, w) or (n, h, w, 1); (h, w, 1) is told from (n, h, w) by its
                last side being known as 1.

        Returns:
            tensors as `Crops` says; for a single film without their first side.
        """
        import tensorflow as tf

        if films.shape[-1] == 1:
            films = films[..., 0]
        if len(films.shape) == 2:
            return Crops(*(part[0] for part in self.graph(films[None])))
        spec = tf.TensorSpec([self.rescaled] * 2, tf.int64)
        rescaled = tf.map_fn(lambda grey: graph_rescale(grey, self.rescaled, self.resize), films,
                             fn_output_signature=spec)
        count = tf.shape(films)[0]
        if self.mode == "template":
            places, scores = self._graph_find(rescaled)
            if self.least > -1:
                places = tf.where(scores[:, None] >= np.float32(self.least), places, (self.places - 1) // 2)
        else:
            places, scores = tf.fill([count, 2], (self.places - 1) // 2), tf.fill([count], np.float32(np.nan))
        rows = places[:, :1] + tf.range(self.size)  # (n, size)
        columns = places[:, 1:] + tf.range(self.size)  # (n, size)
        crops = tf.gather(tf.gather(rescaled, rows, batch_dims=1), columns, axis=2, batch_dims=1)
        return Crops(tf.cast(crops, tf.uint8), places, scores)

    def _graph_find(self, films: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (n, rescaled, rescaled) -> places int32 (n, 2), scores float32 (n,)."""
        import tensorflow as tf

        side, size, places = self.rescaled, self.size, self.places
        template = tf.pad(tf.cast(tf.constant(self.template), tf.float64), [[0, side - size]] * 2)
        spectrum = tf.signal.rfft2d(tf.cast(films, tf.float64)) * tf.math.conj(tf.signal.rfft2d(template))
        cross = tf.cast(tf.round(tf.signal.irfft2d(spectrum, [side, side])[:, :places, :places]), tf.int64)
        sums, squares = _graph_window_sums(films, size), _graph_window_sums(films * films, size)
        energy = tf.cast(size ** 2 * squares - sums * sums, tf.float64)
        product = tf.cast(size ** 2 * cross - sums * int(self._weights_sum), tf.float64)
        seen = tf.where(energy > 0, energy, tf.ones_like(energy))
        score = product / tf.sqrt(seen) / np.sqrt(self._template_energy)
        score = tf.reshape(tf.where(energy > 0, score, tf.zeros_like(score)), [-1, places * places])
        top = tf.reduce_max(score, 1, keepdims=True)
        order = tf.where(score == top, tf.range(places * places), places * places)
        best = tf.reduce_min(order, 1)  # the first of equals, on every device
        return tf.stack([best // places, best % places], 1), tf.cast(top[:, 0], tf.float32)


def _graph_window_sums(films: Tensor, size: int) -> Tensor:
    """int64 (n, r, r) -> (n, r - size + 1, r - size + 1), sums over all size x size windows."""
    import tensorflow as tf

    table = tf.pad(tf.cumsum(tf.cumsum(films, 1), 2), [[0, 0], [1, 0], [1, 0]])
    return table[:, size:, size:] - table[:, :-size, size:] - table[:, size:, :-size] + table[:, :-size, :-size]
