"""Headers of TIFF and WebP at their edges, read without a decoder, and the silence around OpenCV; by value."""

import logging
import struct
import warnings

import numpy as np
import pytest
from test_tiff_webp import COLOUR, DEEP, GREY, a_tiff

from chexpert_hier.films import quiet, tiff, webp
from chexpert_hier.films.grey import DamagedError, FilmError
from chexpert_hier.films.headers import read_header

# ---------------------------------------------------------------------------------------------------- TIFF

def test_what_a_tiff_leaves_out():
    assert tiff.read(a_tiff(GREY, t277=None)) == (64, 48, 1, 8, 1, False)            # one channel, if not said
    assert read_header(a_tiff(DEEP, t262=[0])) == ("TIFF", 64, 48, 1, 16, 1, (8, 8), True)
    assert tiff.read(a_tiff(GREY, t284=[2])).channels == 1            # separate colours of one channel are as any
    for tags, words in (({"t257": None}, "too small: 48x0"), ({"t256": None}, "too small: 0x64"),
                        ({"t262": None}, r"\(code -1\)"), ({"t258": None}, "a TIFF of 1 bits a channel"),
                        ({"t277": [2]}, "has 2 channels; expected 1")):
        with pytest.raises(FilmError, match=words):
            tiff.read(a_tiff(GREY, **tags))


@pytest.mark.parametrize(("code", "found"), [(0, 1), (1, 1), (2, 2), (8, 8), (9, 1)])
def test_orientations_of_a_tiff(code, found):
    assert tiff.read(a_tiff(GREY, t274=[code])).orientation == found


def test_what_a_decoder_may_hold_of_a_tiff(monkeypatch):
    asked = []
    monkeypatch.setattr(tiff, "check_size", lambda *words: asked.append(words))
    palette = a_tiff(GREY, t262=[3], t320=[0] * 768)
    for data in (a_tiff(GREY), a_tiff(DEEP), a_tiff(COLOUR), palette, a_tiff(COLOUR.astype(np.uint16))):
        tiff.read(data)
    assert asked == [(64, 48, 1, count) for count in (4, 4, 4, 4, 6)]


def test_pages_at_their_limit(monkeypatch):
    def behind(tag, more=0):
        return struct.pack("<HHHIII", 1, tag, 4, 1, 1, more)

    with pytest.raises(FilmError, match="has 2 pages"):               # what says nothing of itself is a page
        tiff.read(a_tiff(GREY, next=0, more=behind(300)))
    two = a_tiff(GREY, next=0, more=behind(254))
    third = a_tiff(GREY, next=0, more=behind(254, len(two)) + behind(254))
    monkeypatch.setattr(tiff, "MOST_PAGES", 2)
    assert tiff.read(two).height == 64
    with pytest.raises(DamagedError, match="list of pages has no end"):
        tiff.read(third)
    monkeypatch.setattr(tiff, "MOST_PAGES", 3)
    assert tiff.read(third).height == 64
    with pytest.raises(DamagedError, match="no end or no page"):
        tiff.read(b"II*\0" + bytes(4))


def test_strips_at_the_files_end_and_of_one_row():
    start = len(a_tiff(GREY))
    data = a_tiff(GREY, t273=[start]) + GREY.tobytes()
    assert tiff.read(data).width == 48
    with pytest.raises(DamagedError, match="ends before the picture does"):
        tiff.read(data[:-1])
    assert tiff.read(a_tiff(GREY, rows=1, t278=[0])).height == 64     # no rows in a strip: one
    assert tiff.read(a_tiff(GREY, t278=None)).height == 64            # not said: all of them
    long = a_tiff(GREY, packing=8)
    assert tiff._unpacks(long[8:], 64 * 48) and not tiff._unpacks(long[8:], 64 * 48 - 1)
    assert not tiff._unpacks(long[8:], 64 * 48 + 1) and not tiff._unpacks(b"x", 1)


# ---------------------------------------------------------------------------------------------------- WebP

def a_webp(*chunks, more=b""):
    body = b"".join(mark + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for mark, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body + more)) + b"WEBP" + body + more


LOSSY = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 300 | 1 << 14, 17 | 3 << 14)      # the scales do not count
LOSSLESS = b"\x2f" + struct.pack("<I", 299 | 16 << 14)


def test_the_two_kinds_of_webp():
    for extra in (b"", b"\xff\xff"):
        assert webp.read(a_webp((b"VP8 ", LOSSY + extra))) == (17, 300, 3, b"")
        assert webp.read(a_webp((b"VP8L", LOSSLESS + extra))) == (17, 300, 3, b"")
    opaque = b"\x2f" + struct.pack("<I", 299 | 16 << 14 | 1 << 28)
    assert webp.read(a_webp((b"VP8L", opaque))).channels == 4
    for broken in (LOSSY[:9], b"\0" + LOSSY, LOSSLESS, b""):
        with pytest.raises(DamagedError, match="holds no picture"):
            webp.read(a_webp((b"VP8 ", broken)))
    for broken in (LOSSLESS[:4], b"\0" + LOSSLESS, LOSSY):
        with pytest.raises(DamagedError, match="holds no picture"):
            webp.read(a_webp((b"VP8L", broken)))


@pytest.mark.parametrize(("flags", "chunks", "channels"), [
    (16, [(b"ALPH", b"x")], 4), (0, [(b"ALPH", b"x")], 3), (16, [], 3), (12, [(b"ALPH", b"x")], 3)])
def test_a_lossy_webp_is_transparent_where_flag_and_chunk_say_so(flags, chunks, channels):
    head = (b"VP8X", bytes([flags]) + bytes(9))
    assert webp.read(a_webp(head, *chunks, (b"VP8 ", LOSSY))).channels == channels
    with pytest.raises(FilmError, match="an animation"):
        webp.read(a_webp((b"VP8X", bytes([flags | 2]) + bytes(9)), (b"VP8 ", LOSSY)))


def test_the_chunks_of_a_webp():
    parts = [(b"VP8 ", LOSSY), (b"EXIF", b"odd"), (b"EXIF", b"two"), (b"XMP ", b"")]
    data = a_webp(*parts)
    assert list(webp._chunks(data + b"behind the end")) == parts
    assert webp.read(data).exif == b"odd"                             # the first of a kind
    assert webp.read(a_webp((b"VP8 ", LOSSY), (b"EXIF", b"Exif\0\0II"))).exif == b"II"
    for size in (1, 9, 16):                                           # a chunk's head at the end, of what is not there
        with pytest.raises(DamagedError, match="cut off"):
            list(webp._chunks(a_webp(*parts, more=b"EXIF" + struct.pack("<I", size))))
    assert list(webp._chunks(a_webp(*parts, more=b"EXIF\0\0\0"))) == parts           # seven bytes are no chunk
    assert webp.is_webp(data) and not webp.is_webp(b"RIFF1234WAVE") and not webp.is_webp(b"RIFX" + data[4:])


# ---------------------------------------------------------------------------------------------------- silence

def test_opencvs_log_is_silent_for_the_longest_of_several():
    before, silence = quiet.OPENCV_LOG.getLogLevel(), quiet._Silence()
    try:
        quiet.OPENCV_LOG.setLogLevel(3)
        with silence():
            assert quiet.OPENCV_LOG.getLogLevel() == quiet.SILENT
            with silence():
                pass
            assert quiet.OPENCV_LOG.getLogLevel() == quiet.SILENT
        assert quiet.OPENCV_LOG.getLogLevel() == 3
    finally:
        quiet.OPENCV_LOG.setLogLevel(before)


def test_libraries_that_print_tags_are_silenced():
    names, level = (*quiet.LOGGERS, "a.test.of.silence"), quiet.OPENCV_LOG.getLogLevel()
    before = {name: logging.getLogger(name).level for name in names}
    try:
        with warnings.catch_warnings():
            quiet.quiet("a.test.of.silence")
            warnings.warn("nobody sees this", stacklevel=1)           # an error otherwise
            for name in names:
                assert logging.getLogger(name).level == logging.CRITICAL
            assert quiet.OPENCV_LOG.getLogLevel() == quiet.SILENT
    finally:
        quiet.OPENCV_LOG.setLogLevel(level)
        for name in names:
            logging.getLogger(name).setLevel(before[name])
