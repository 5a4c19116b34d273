"""What the header of a film's file says, and whether the file is all there."""

import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from . import tiff, webp
from .grey import DamagedError, FilmError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
OTHER_FORMATS = {b"GIF8": "GIF", b"BM": "BMP", b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF", b"%PDF": "PDF",
                 b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\0\0\0\x0cjP  ": "JPEG 2000"}
EXPECTED = "JPEG, PNG, TIFF, WebP or DICOM"


class Header(NamedTuple):
    """What a film's header says.

    Attributes:
        kind: "JPEG", "PNG", "TIFF" or "WebP".
        height, width: pixels as they are stored.
        channels: 1 to 4.
        bits: a channel's.
        orientation: of EXIF, 1 (upright) to 8.
        piece: height and width in pixels of what a JPEG stores as one: a block, or several where colour is coarser.
        white_is_zero: of a TIFF: whether its largest value is black.
    """

    kind: str
    height: int
    width: int
    channels: int
    bits: int
    orientation: int
    piece: tuple[int, int] = (8, 8)
    white_is_zero: bool = False


def read_header(data: bytes, whole: bool = True) -> Header:
    """What the header says, after checking that the file is whole.

    Args:
        data: the file's bytes.
        whole: whether a JPEG has to be; the others always have.

    Raises:
        FilmError: empty, or none of these (the reason without the file's name).
        DamagedError: cut off or damaged.
    """
    if not data:
        raise FilmError("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(data, whole)
    if data.startswith(PNG_SIGNATURE):
        return _png_header(data)
    if tiff.is_tiff(data):
        found = tiff.read(data)
        return Header("TIFF", *found[:5], white_is_zero=found.white_is_zero)
    if webp.is_webp(data):
        height, width, channels, exif = webp.read(data)
        return Header("WebP", height, width, channels, 8, _orientation(exif, b""))
    for magic, kind in OTHER_FORMATS.items():
        if data.startswith(magic):
            raise FilmError(f"{kind} is not supported; expected {EXPECTED}. Save it as PNG")
    raise FilmError(f"not an image; expected {EXPECTED}")


def _jpeg_header(data: bytes, whole: bool) -> Header:
    """Walk the segments to the first scan, then look for the end mark, which decoders do not miss."""
    frame, place = b"", 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise FilmError("damaged: a JPEG segment does not begin where it should")
        mark = data[place + 1]
        if mark == 0xFF:  # fill byte
            place += 1
            continue
        length = int.from_bytes(data[place + 2:place + 4], "big")
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            frame = data[place + 4:place + 2 + length]
        place += 2 + length
        if mark == 0xDA:
            break
    if len(frame) < 6 or place >= len(data):
        raise FilmError("cut off: the JPEG ends before its picture begins; copy the file again")
    if whole and not data.endswith(b"\xff\xd9") and data.find(b"\xff\xd9", place) < 0:
        raise DamagedError("cut off: the JPEG ends before the picture does; copy the file again")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    coarse = frame[7] if frame[5] > 1 and len(frame) > 7 else 0x11  # the luminance's sampling, across and down
    piece = 8 * max(coarse & 15, 1), 8 * max(coarse >> 4, 1)
    return Header("JPEG", height, width, frame[5], frame[0], _orientation(data, b"Exif\0\0"), piece)


def _png_header(data: bytes) -> Header:
    """Walk the chunks and check each one's checksum: OpenCV gives a half-grey picture for a damaged PNG."""
    exif = b""
    for mark, content in _chunks(data):
        if mark == b"eXIf":
            exif = bytes(content)
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise FilmError("damaged: the PNG has no header")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(data[25], 0)
    return Header("PNG", height, width, channels, data[24], _orientation(exif, b""))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """A PNG's chunks up to its end, each with its mark; an error where one is broken."""
    place, mark, view = len(PNG_SIGNATURE), b"", memoryview(data)
    while mark != b"IEND":
        length = int.from_bytes(data[place:place + 4], "big")
        mark, end = data[place + 4:place + 8], place + 8 + length
        if len(data) < end + 4:
            raise DamagedError("cut off: the PNG ends before the picture does; copy the file again")
        if zlib.crc32(view[place + 4:end]) != int.from_bytes(data[end:end + 4], "big"):
            raise DamagedError("damaged: a checksum inside the PNG is wrong; copy the file again")
        yield mark, view[place + 8:end]
        place = end + 4


def _orientation(data: bytes, mark: bytes) -> int:
    """The EXIF orientation tag (0x0112) of the first directory after `mark`, in the first 64 KiB; 1 when none is."""
    start = data.find(mark, 0, 65536) + len(mark)
    if start < len(mark):
        return 1
    data = data[:65536]
    if len(data) < start + 8:
        return 1
    order: Literal["little", "big"] = "little" if data[start] == ord("I") else "big"
    directory = start + int.from_bytes(data[start + 4:start + 8], order)
    for entry in range(int.from_bytes(data[directory:directory + 2], order)):
        tag = data[directory + 2 + 12 * entry:directory + 14 + 12 * entry]
        if len(tag) == 12 and int.from_bytes(tag[:2], order) == 0x0112:
            code = int.from_bytes(tag[8:10], order)
            return code if 1 <= code <= 8 else 1
    return 1
