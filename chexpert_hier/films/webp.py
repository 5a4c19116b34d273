"""What the header of a WebP says, and whether the file is all there. OpenCV decodes what passes.

Source: RFC 9649 (WebP image format), section 2; RFC 6386 (VP8), section 9.1.
"""

from collections.abc import Iterator
from typing import NamedTuple

from .grey import DamagedError, FilmError

ANIMATED, ALPHA = 2, 16  # bits of the extended header
CUT_OFF = "cut off: the WebP ends before the picture does; copy the file again"


class WebP(NamedTuple):
    """What a WebP's header says: size in pixels, channels as they are decoded, its EXIF block."""

    height: int
    width: int
    channels: int
    exif: bytes


def is_webp(data: bytes) -> bool:
    """Whether a file's bytes begin as a WebP's do."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read(data: bytes) -> WebP:
    """What the header says. WebP has no checksum: damage is found only where it breaks the format.

    Args:
        data: the file's bytes, of which `is_webp` holds.

    Raises:
        FilmError: an animation (the reason without the file's name).
        DamagedError: cut off or damaged.
    """
    chunks = dict(reversed(list(_chunks(data))))  # of several of a kind the first
    extended, lossy, lossless = (chunks.get(mark, b"") for mark in (b"VP8X", b"VP8 ", b"VP8L"))
    flags = extended[0] if extended else 0
    if flags & ANIMATED:
        raise FilmError("an animation; expected one film")
    if lossy[3:6] == b"\x9d\x01\x2a" and len(lossy) >= 10:
        width, height = (int.from_bytes(lossy[k:k + 2], "little") & 0x3FFF for k in (6, 8))
        channels = 4 if flags & ALPHA and b"ALPH" in chunks else 3
    elif lossless[:1] == b"\x2f" and len(lossless) >= 5:
        packed = int.from_bytes(lossless[1:5], "little")
        width, height, channels = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 4 if packed >> 28 & 1 else 3
    else:
        raise DamagedError("damaged: the WebP holds no picture; copy the file again")
    return WebP(height, width, channels, chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0"))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks, each with its mark."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DamagedError(CUT_OFF)
    place = 12
    while place + 8 <= end:
        size = int.from_bytes(data[place + 4:place + 8], "little")
        if place + 8 + size > end:
            raise DamagedError(CUT_OFF)
        yield data[place:place + 4], data[place + 8:place + 8 + size]
        place += 8 + size + size % 2
