"""What the header of a TIFF says, and whether the file is all there. OpenCV decodes what passes.

Read is what film scanners and picture programs write: one page of 8 or 16 bits, grey, with a palette or RGB, in strips,
plain or packed without loss. Source of tags and codes: TIFF Revision 6.0 (Adobe, 1992), sections 3 to 13, and the
Deflate code of Adobe's Photoshop TIFF technical notes (2002).
"""

import zlib
from typing import Literal, NamedTuple

import numpy as np

from .grey import DamagedError, FilmError, check_size

LITTLE, BIG = b"II*\0", b"MM\0*"
PAGE, WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS = 254, 256, 257, 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, ROWS, SIZES, PLANES, TILES, FORMAT = 273, 274, 277, 278, 279, 284, 322, 339
TAGS = {PAGE, WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, STRIPS, ORIENTATION, SAMPLES, ROWS, SIZES, PLANES, TILES,
        FORMAT}
TYPES = {3: "u2", 4: "u4"}  # of the numbers in those tags
PLAIN, DEFLATE = 1, (8, 32946)
LOSSLESS = (PLAIN, 5, *DEFLATE, 32773)  # 5: LZW; 32773: PackBits
COLOURED = {0: 1, 1: 1, 2: 3, 3: 1}  # photometric interpretation: white is zero, black is zero, RGB, palette -> samples
WHITE_IS_ZERO, PALETTE = 0, 3
NO_PAGE = 5  # bits of PAGE: a smaller copy of another page, or a mask
MOST_PAGES, MOST_TAGS, MOST_STRIPS = 200, 1000, 100_000  # beyond that it is a mistake or an attack
OTHERWISE = "save it as PNG"
Directory = dict[int, list[int]]


class Tiff(NamedTuple):
    """What a TIFF's header says: sizes in pixels, channels as they are decoded, bits of each, EXIF orientation."""

    height: int
    width: int
    channels: int
    bits: int
    orientation: int
    white_is_zero: bool


def is_tiff(data: bytes) -> bool:
    """Whether a file's bytes begin as a TIFF's do."""
    return data.startswith((LITTLE, BIG))


def read(data: bytes) -> Tiff:
    """What the header says, after a look at the strips: all there, and of their size where that can be told.

    Damage inside LZW and PackBits is found only where it breaks the format; Deflate has a checksum.

    Args:
        data: the file's bytes; of which `is_tiff` holds.

    Raises:
        FilmError: of a kind that is not read, or of several pages (the reason without the file's name).
        DamagedError: cut off or damaged.
    """
    order: Literal["<", ">"] = "<" if data.startswith(LITTLE) else ">"
    tags = _page(data, order)
    height, width = _one(tags, HEIGHT, 0), _one(tags, WIDTH, 0)
    bits, colours, samples = _one(tags, BITS, 1), _one(tags, COLOURS, -1), _one(tags, SAMPLES, 1)
    if colours not in COLOURED:
        raise FilmError(f"its colours are coded in another way than grey, palette or RGB (code {colours}); {OTHERWISE}")
    if samples != COLOURED[colours]:
        raise FilmError(f"has {samples} channels; expected {COLOURED[colours]}, without transparency; {OTHERWISE}")
    if set(tags.get(BITS, [1])) - {8, 16} or len(set(tags[BITS])) > 1 or set(tags.get(FORMAT, [1])) != {1} or (
            colours == PALETTE and bits != 8):
        raise FilmError(f"a TIFF of {bits} bits a channel or of signed or broken numbers; expected whole numbers of 8 "
                        f"or 16 bits; {OTHERWISE}")
    if TILES in tags or (samples > 1 and _one(tags, PLANES, 1) != 1):
        raise FilmError(f"a TIFF of tiles or of separate colours; {OTHERWISE}")
    channels = 3 if colours == PALETTE else samples
    # Before the strips are looked at: their number and their sizes follow from it. 4: what the decoder holds.
    check_size(height, width, 1, max(4, channels * bits // 8))
    _check_strips(data, tags, height, width * samples * bits // 8)
    turned = _one(tags, ORIENTATION, 1)
    return Tiff(height, width, channels, bits, turned if 1 <= turned <= 8 else 1, colours == WHITE_IS_ZERO)


def _page(data: bytes, order: str) -> Directory:
    """The tags of the first page, which must be the only one; smaller copies and masks behind it do not count."""
    pages: list[Directory] = []
    place, seen = _number(data, 4, order + "u4"), {0}
    while place not in seen and len(pages) < MOST_PAGES:
        seen.add(place)
        tags, place = _directory(data, place, order)
        pages.append(tags)
    if place or not pages:
        raise DamagedError("damaged: the TIFF's list of pages has no end or no page; copy the file again")
    count = 1 + sum(not _one(tags, PAGE, 0) & NO_PAGE for tags in pages[1:])
    if count > 1:
        raise FilmError(f"has {count} pages; expected one film. Save the page that is meant as a file of its own")
    return pages[0]


def _directory(data: bytes, place: int, order: str) -> tuple[Directory, int]:
    """The tags that count of the directory at `place`, and where the next one stands (0: nowhere)."""
    tags: Directory = {}
    count = _number(data, place, order + "u2")
    if count > MOST_TAGS:
        raise DamagedError(f"damaged: the TIFF's header has {count:,} tags; copy the file again")
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, many = (_number(data, entry + k, order + of) for k, of in ((0, "u2"), (2, "u2"), (4, "u4")))
        if tag in TAGS:
            # The decoder must find what is found here.
            if kind not in TYPES or not 0 < many <= MOST_STRIPS or tag in tags:
                raise DamagedError(f"damaged: tag {tag} of the TIFF's header makes no sense; copy the file again")
            of = np.dtype(order + TYPES[kind])
            at = entry + 8 if many * of.itemsize <= 4 else _number(data, entry + 8, order + "u4")
            tags[tag] = _numbers(data, at, of, many)
    return tags, _number(data, place + 2 + 12 * count, order + "u4")


def _number(data: bytes, place: int, of: str) -> int:
    return _numbers(data, place, np.dtype(of), 1)[0]


def _numbers(data: bytes, place: int, of: np.dtype, many: int) -> list[int]:
    if len(data) < place + many * of.itemsize:
        raise DamagedError("cut off: the TIFF ends before its header does; copy the file again")
    return list(map(int, np.frombuffer(data, of, many, place)))


def _one(tags: Directory, tag: int, otherwise: int) -> int:
    return tags[tag][0] if tag in tags else otherwise


def _check_strips(data: bytes, tags: Directory, height: int, row: int) -> None:
    """See that the strips are there: so many as `height` rows of `row` bytes each need, none beyond the file's end."""
    rows = min(max(_one(tags, ROWS, height), 1), height)
    places, sizes, packing = tags.get(STRIPS, []), tags.get(SIZES, []), _one(tags, COMPRESSION, PLAIN)
    if packing not in LOSSLESS:
        raise FilmError(f"a TIFF that is packed in a way that is not read (code {packing}); expected none, LZW, "
                        f"Deflate or PackBits; {OTHERWISE}")
    if not len(places) == len(sizes) == -(-height // rows):
        raise DamagedError("damaged: the TIFF does not hold as many strips as its size needs; copy the file again")
    for number, (place, size) in enumerate(zip(places, sizes)):
        full = row * min(rows, height - number * rows)
        if place + size > len(data):
            raise DamagedError("cut off: the TIFF ends before the picture does; copy the file again")
        if (packing == PLAIN and size < full) or (
                packing in DEFLATE and not _unpacks(data[place:place + size], full)):
            raise DamagedError("damaged: a strip of the TIFF is broken or short; copy the file again")


def _unpacks(strip: bytes, full: int) -> bool:
    """Whether Deflate's data are `full` bytes and their checksum is right."""
    stream = zlib.decompressobj()
    try:
        return len(stream.decompress(strip, full + 1)) == full and stream.eof
    except zlib.error:
        return False
