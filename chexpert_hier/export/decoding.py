"""Decode films in TensorFlow operations, for the SavedModel: the pixels of films.decode.read_film, or what is wrong.

Reads grey and colour JPEG and PNG of 8 and 16 bits with palette, colour or transparency, in any EXIF orientation. A
film that cannot be decoded gets a status (`status`) and never stops the others of its batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..films.decode import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE
from ..films.grey import MIN_SIDE, MOST_BYTES, MOST_PIXELS
from ..films.headers import PNG_SIGNATURE
from ..films.plausible import FLAGS, MOST_COLOUR
from .status import COLOURS, DAMAGED, DICOM, EMPTY, FLAT, GOOD, LARGE, OTHER, SMALL

HEAD = 65536  # bytes in which a JPEG's EXIF orientation is looked for, as films.decode does
PNG_GREY, PNG_PALETTE = 0, 3  # colour types


class Decoded(NamedTuple):
    """A film in the graph.

    Attributes:
        grey: uint8 (h, w), one black pixel where there is no picture.
        status: int32 ().
        colours: int32 (), what is odd about its colours (films.plausible.FLAGS).
    """

    grey: Any
    status: Any
    colours: Any


def decode(data: Any) -> Decoded:
    """Decode one film.

    Args:
        data: string tensor (), the file's bytes.
    """
    import tensorflow as tf

    start = tf.strings.substr(data, 0, len(PNG_SIGNATURE))
    is_jpeg = tf.strings.substr(start, 0, 3) == b"\xff\xd8\xff"

    def other():
        mark = tf.strings.substr(tf.strings.join([data, b"\0" * 132]), 128, 4)
        kind = tf.where(mark == b"DICM", DICOM, OTHER)
        return _nothing(tf.where(tf.strings.length(data) == 0, EMPTY, kind))

    return tf.case([(is_jpeg, lambda: _attempt(_jpeg, data)),
                    (start == PNG_SIGNATURE, lambda: _attempt(_png, data))], default=other)


def checked(grey: Any) -> Decoded:
    """As `decode` for pixels that were decoded already, uint8 (h, w, 1)."""
    import tensorflow as tf

    shape = tf.shape(grey)
    return _of_size(shape[0], shape[1], 1, lambda: (grey[..., 0], 0.0))


def _nothing(status: Any) -> Decoded:
    import tensorflow as tf

    return Decoded(tf.zeros([1, 1], tf.uint8), tf.convert_to_tensor(status, tf.int32), tf.constant(0))


def _attempt(read: Callable, data: Any) -> Decoded:
    """What `read` gives, or DAMAGED where a decoder raises: a graph has no try, but a data set drops what fails."""
    import tensorflow as tf

    options = tf.data.Options()  # one element: there is nothing to tune, and tuning takes half a second
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    films = tf.data.Dataset.from_tensors(data).map(read).ignore_errors()
    films = films.concatenate(tf.data.Dataset.from_tensors(_nothing(DAMAGED)))
    return films.take(1).with_options(options).get_single_element()


def _of_size(height: Any, width: Any, pixel_bytes: Any, read: Callable) -> Decoded:
    """films.grey.check_size, then what `read` gives, pixels and plausible.colour, and whether they show anything."""
    import tensorflow as tf

    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    most = tf.minimum(tf.constant(MOST_PIXELS, tf.int64), MOST_BYTES // tf.cast(pixel_bytes, tf.int64))
    status = tf.where(height * width > most, LARGE, tf.where(tf.minimum(height, width) < MIN_SIDE, SMALL, GOOD))

    def content():
        grey, colour = read()
        return Decoded(grey, tf.where(tf.reduce_min(grey) < tf.reduce_max(grey), GOOD, FLAT),
                       tf.where(colour > MOST_COLOUR, FLAGS["colour"].bit, 0))

    return tf.cond(status == GOOD, content, lambda: _nothing(status))


# ---------------------------------------------------------------------------------------------------- JPEG

def _jpeg(data: Any) -> Decoded:
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(data)

    def read():
        # The integer transform is the one that OpenCV's decoder uses: the same pixels, bit for bit.
        grey = tf.io.decode_jpeg(data, channels=1, dct_method="INTEGER_ACCURATE")[..., 0]
        colour = tf.cond(shape[2] == 1, lambda: 0.0, lambda: _spread(tf.io.decode_jpeg(data, channels=3, ratio=4)))
        return _upright(grey, _orientation(_whole_numbers(tf.strings.substr(data, 0, HEAD)))), colour

    # A progressive JPEG is held as 16-bit coefficients of all its channels.
    return tf.cond(shape[2] == 4, lambda: _nothing(COLOURS),
                   lambda: _of_size(shape[0], shape[1], 2 * tf.maximum(shape[2], 1), read))


# ---------------------------------------------------------------------------------------------------- PNG

def _png(data: Any) -> Decoded:
    import tensorflow as tf

    exif = _png_exif(data)
    header = _whole_numbers(tf.strings.substr(data, 24, 2))
    deep, kind = header[0] == 16, header[1]
    grey_only = kind == PNG_GREY  # as OpenCV does, without the transparency that a grey level may have
    channels = tf.where(grey_only, 1, 4)

    def read():
        def shade(dtype):
            def in_colour():
                image = tf.io.decode_png(data, channels=4, dtype=dtype)
                return _luminance(image), _spread(image)

            return tf.cond(grey_only, lambda: (tf.io.decode_png(data, channels=1, dtype=dtype)[..., 0], 0.0), in_colour)

        def from_16_bits():
            grey, colour = shade(tf.uint16)
            return _to_8_bits(grey), colour

        grey, colour = tf.cond(deep, from_16_bits, lambda: shade(tf.uint8))
        mark = tf.constant(list(b"Exif\0\0"))
        return _upright(grey, _orientation(tf.concat([mark, _whole_numbers(exif)], 0))), colour

    few = (kind == PNG_PALETTE) & (header[0] < 8)  # TensorFlow gives their indices for levels
    return tf.cond(few, lambda: _nothing(COLOURS),
                   lambda: _of_size(_big_endian(data, 20), _big_endian(data, 16), channels * tf.where(deep, 2, 1),
                                    read))


def _png_exif(data: Any) -> Any:
    """Walk the chunks up to the last: the EXIF chunk's body, "" without; raises where the file ends before."""
    import tensorflow as tf

    total = tf.cast(tf.strings.length(data), tf.int64)

    def step(place, mark, exif):
        length, mark, body = _big_endian(data, place), tf.strings.substr(data, place + 4, 4), place + 8
        with tf.control_dependencies([tf.debugging.Assert(body + length + 4 <= total, ["cut off"])]):
            exif = tf.cond(mark == b"eXIf", lambda: tf.strings.substr(data, body, length), lambda: exif)
        return body + length + 4, mark, exif

    start = tf.constant(len(PNG_SIGNATURE), tf.int64), tf.constant(b""), tf.constant(b"")
    return tf.while_loop(lambda place, mark, exif: mark != b"IEND", step, start, parallel_iterations=1)[2]


def _luminance(image: Any) -> Any:
    """(h, w, 4) -> (h, w): films.grey.luminance on black, of the same type."""
    import tensorflow as tf

    red, green, blue, alpha = (tf.cast(image[..., k], tf.int64) for k in range(4))
    grey = (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536
    opaque = image.dtype.max
    return tf.cast((grey * alpha + opaque // 2) // opaque, image.dtype)


def _spread(image: Any) -> Any:
    """(h, w, 3 or 4) -> float32 (): plausible.colour, without what hides in transparency."""
    import tensorflow as tf

    levels = tf.cast(image[..., :3], tf.float32) * (255 / image.dtype.max)
    spread = tf.reduce_max(levels, -1) - tf.reduce_min(levels, -1)
    seen = tf.cast(image[..., 3] > 0, tf.float32) if image.shape[-1] == 4 else tf.ones_like(spread)
    return tf.reduce_sum(spread * seen) / tf.maximum(tf.reduce_sum(seen), 1)


def _to_8_bits(grey: Any) -> Any:
    """films.decode's rule: by the smallest bit depth, at least 8, that holds the largest value; rounded half up."""
    import tensorflow as tf

    depths = tf.constant([2 ** bits - 1 for bits in range(8, 17)], tf.int64)
    full = tf.reduce_min(tf.where(depths >= tf.cast(tf.reduce_max(grey), tf.int64), depths, depths[-1]))
    return tf.cast((tf.cast(grey, tf.int64) * 510 + full) // (2 * full), tf.uint8)


# ---------------------------------------------------------------------------------------------------- orientation

def _whole_numbers(data: Any) -> Any:
    """string () -> int32 (bytes,)."""
    import tensorflow as tf

    return tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32)


def _big_endian(data: Any, place: Any) -> Any:
    """The four bytes of a string from `place` on as int64 (); raises where there are not four."""
    import tensorflow as tf

    four = tf.cast(_whole_numbers(tf.strings.substr(data, place, 4)), tf.int64)
    return tf.reduce_sum(four * tf.constant([2 ** 24, 2 ** 16, 2 ** 8, 1], tf.int64))


def _upright(grey: Any, code: Any) -> Any:
    """Lay a picture upright as its EXIF orientation says (1: it is)."""
    import tensorflow as tf

    flips = (FLIP_ROWS, lambda x: x[::-1]), (FLIP_COLUMNS, lambda x: x[:, ::-1])
    for codes, turn in ((TRANSPOSE, tf.transpose), *flips):
        grey = tf.cond(tf.reduce_any(code == codes), lambda g=grey, t=turn: t(g), lambda g=grey: g)
    return grey


def _orientation(head: Any) -> Any:
    """films.decode's EXIF orientation: int32 (bytes,) -> int32 (); 1 when there is no readable tag."""
    import tensorflow as tf

    count = tf.size(head)
    found = tf.ones([tf.maximum(count - 5, 0)], tf.bool)
    for k, byte in enumerate(b"Exif\0\0"):
        found &= head[k:k + tf.size(found)] == byte
    start = tf.reduce_min(tf.where(found, tf.range(tf.size(found)), count)) + 6
    padded = tf.concat([head, tf.zeros([24], tf.int32)], 0)  # so that a cut-off tag reads as no tag

    def number(place, length):
        big = tf.reduce_sum(padded[place:place + length] * [256 ** (length - 1 - k) for k in range(length)])
        little = tf.reduce_sum(padded[place:place + length] * [256 ** k for k in range(length)])
        return tf.where(padded[tf.minimum(start, count)] == ord("I"), little, big)

    def read():
        directory = tf.clip_by_value(start + number(start + 4, 4), 0, count)
        entries = tf.clip_by_value((count - directory - 2) // 12, 0, number(directory, 2))

        def look(code, k):
            entry = directory + 2 + 12 * k
            return tf.where(number(entry, 2) == 0x0112, number(entry + 8, 2), code)

        return tf.foldr(look, tf.range(entries), 1)  # from the last, so that the first one wins

    code = tf.cond(start + 8 <= count, read, lambda: tf.constant(1))
    return tf.where((code >= 1) & (code <= 8), code, 1)
