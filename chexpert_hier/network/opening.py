"""Open a `.keras` file that somebody else made, without giving it more memory than the file itself is worth.

Keras' safe mode runs no code of the file. But a small file may unpack to gigabytes, hold an HDF5 array of any shape, or
describe layers of any size, for which Keras takes the memory before it looks for their weights. So the archive is
looked at first; while Keras builds the layers, they may not have more weights than the file holds; and what they
compute may not be much larger than the film.
"""

import io
import json
import math
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# Weights are numbers that do not compress; a configuration compresses to a tenth.
MOST_UNPACKED, ALWAYS = 2, 2 ** 25  # times the file's size, and bytes that are never too many
MOST_CONFIG = 2 ** 24  # bytes; DenseNet-121 has 0.4 million
MOST_PARTS = 30_000  # objects (layers, initializers, ...) in a configuration; DenseNet-121 has 2,070
MOST_ARRAYS = 100_000  # in an HDF5 file
# Numbers that an operation may give, as a multiple of the film's pixels; DenseNet-121 gives 17 at most.
MOST_GIVEN = 256
MOST_SIDE = 1024  # of a network's films, in pixels, as `recipes` has it
SLACK = 1000  # weights that need not be in the file
_LOADING = threading.Lock()


class TooLargeError(ValueError):
    """What a file describes is larger than the file."""


def open_keras(path: str | os.PathLike[str]) -> keras.Model:
    """Load a `.keras` file in Keras' safe mode, without its compiled state.

    Raises:
        TooLargeError, or whatever Keras, zipfile, HDF5 and JSON raise for a damaged file.
    """
    with _counted(_weights_in(Path(path))):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def _weights_in(path: Path) -> int:
    """How many numbers the file's weights are, after a look at the archive."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(ALWAYS, MOST_UNPACKED * size):
            raise TooLargeError(f"its parts unpack to {unpacked:,} bytes, the file has {size:,}")
        if archive.getinfo(CONFIG).file_size > MOST_CONFIG:
            raise TooLargeError(f"{CONFIG} has more than {MOST_CONFIG:,} bytes")
        parts = _parts(json.loads(archive.read(CONFIG)))
        if parts > MOST_PARTS:
            raise TooLargeError(f"{CONFIG} describes {parts:,} objects; expected at most {MOST_PARTS:,}")
        return check_arrays(archive.read(WEIGHTS))


def _parts(value: Any) -> int:
    if isinstance(value, dict):
        return ("class_name" in value) + sum(map(_parts, value.values()))
    return sum(map(_parts, value)) if isinstance(value, list) else 0


def check_arrays(file: bytes | Path) -> int:
    """How many numbers the arrays of an HDF5 file hold, none of which may lie elsewhere or be larger than the file.

    Raises:
        TooLargeError: they are larger than the file, or very many.
        ValueError: an array lies in another file.
    """
    import h5py

    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    count = held = numbers = 0
    with h5py.File(io.BytesIO(file) if isinstance(file, bytes) else file, "r") as root:
        waiting = [root]
        while waiting:
            group = waiting.pop()
            for name in group:
                count += 1
                if count > MOST_ARRAYS:
                    raise TooLargeError(f"its weights are in more than {MOST_ARRAYS:,} arrays and groups")
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError("its weights hold a link to somewhere else")
                found = group[name]
                if isinstance(found, h5py.Group):
                    waiting.append(found)
                    continue
                if found.external or found.is_virtual:
                    raise ValueError("its weights lie in other files")
                size_of = found.size or 0
                held, numbers = held + size_of * found.dtype.itemsize, numbers + size_of
                if held > max(ALWAYS, MOST_UNPACKED * size):
                    raise TooLargeError(f"its weights claim {held:,} bytes and more, they are in {size:,}")
    return numbers


@contextmanager
def _counted(most: int) -> Iterator[None]:
    """Within it, layers that this thread builds may have `most` weights in all; memory is taken after the count."""
    whole, thread, left = keras.layers.Layer.add_weight, threading.get_ident(), most + SLACK

    def counted(layer: Any, shape: Any = None, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        if threading.get_ident() == thread:
            left -= abs(math.prod(() if shape is None else (shape,) if isinstance(shape, int) else shape))
            if left < 0:
                raise TooLargeError(f"its layers have more weights than the {most:,} that are in the file")
        return whole(layer, shape, *arguments, **named)

    with _LOADING:
        keras.layers.Layer.add_weight = counted
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = whole


def check_given(model: keras.Model) -> None:
    """Refuse a network that makes far more of a film than the film is: memory is taken for it when it answers.

    Raises:
        TooLargeError: it does.
        ValueError: it takes no films.
    """
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(f"it takes {shape}; expected films, (None, height, width, channels)")
    if max(shape[1:3]) > MOST_SIDE:
        raise TooLargeError(f"it takes films of {shape[1]} x {shape[2]} pixels; expected at most {MOST_SIDE} a side")
    most = MOST_GIVEN * max(shape[1] * shape[2], 32 * 32)
    for operation in _operations(model):
        for given in keras.tree.flatten(operation.output):
            if math.prod(side or 1 for side in given.shape[1:]) > most:
                raise TooLargeError(f"its layer {operation.name!r} makes {tuple(given.shape[1:])} of each film")


def _operations(model: Any) -> Iterator[Any]:
    for operation in getattr(model, "operations", None) or model.layers:
        if isinstance(operation, keras.Model):
            yield from _operations(operation)
        yield operation
