"""Films' headers, sizes, grey levels and damage at their edges, each by value; no TensorFlow."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.films import augment, grey, headers, jpeg, rescaling
from chexpert_hier.films.template import Cropper

# ---------------------------------------------------------------------------------------------------- size and grey

@pytest.mark.parametrize(("height", "width", "pixel_bytes", "words"), [
    (10_000, 20_000, 1, None), (10_000, 20_001, 1, "too large: 20001x10000 pixels; expected at most 200,000,000"),
    (2 ** 14, 2 ** 13, 2, None), (2 ** 14, 2 ** 13 + 1, 2, "at most 134,217,728"), (10_000, 20_000, 0, None),
    (32, 32, 1, None), (31, 32, 1, "too small: 32x31 pixels; expected at least 32 a side"), (32, 31, 1, "31x32")])
def test_sizes_at_their_limits(height, width, pixel_bytes, words):
    if words is None:
        grey.check_size(height, width, 32, pixel_bytes)
    else:
        with pytest.raises(grey.FilmError, match=words):
            grey.check_size(height, width, 32, pixel_bytes)
    assert grey.check_size(10_000, 20_000, 1) is None and grey.MIN_SIDE == 32
    with pytest.raises(grey.FilmError, match="expected at most 89,478,485 in all"):
        grey.check_size(10_000, 10_000, 32, 3)


def test_bands_are_the_whole_image_in_order():
    image = np.broadcast_to(np.arange(5)[:, None], (5, 2 ** 21))
    assert [band[:, 0].tolist() for band in grey.bands(image)] == [[0, 1], [2, 3], [4]]
    assert [len(band) for band in grey.bands(np.broadcast_to(np.uint8(0), (2, 2 ** 22 + 1)))] == [1, 1]


def test_luminance_by_hand():
    full, none = np.array([255], np.uint8), np.array([0], np.uint8)
    found = [int(grey.luminance(*colour)[0]) for colour in (
        (full, none, none), (none, full, none), (none, none, full), (full, full, full), (none, none, none))]
    assert found == [76, 150, 29, 255, 0]                             # 76.245, 149.685, 29.07
    assert grey.luminance(*[np.array([65535], np.uint16)] * 3).tolist() == [65535]
    nearly = [np.array([level], np.uint8) for level in (0, 183, 27)]                # 2^-16 below 110.5
    assert grey.luminance(*nearly).tolist() == [110] and grey.luminance(full, none, none).dtype == np.uint8


def test_grey_levels_are_scaled_by_the_depth_in_use():
    def scaled(*values):
        return grey.to_8_bits(np.array([values], np.uint16))[0].tolist()

    assert scaled(0, 1, 255) == [0, 1, 255]                           # 8 bits in 16
    assert scaled(0, 1, 255, 256) == [0, 0, 127, 128]                 # 9 bits: of 511; 127.25 and 127.75
    assert scaled(0, 2, 3, 1023) == [0, 0, 1, 255] and scaled(0, 0) == [0, 0]
    assert scaled(65535, 257 * 7) == [255, 7]
    same = np.zeros((1, 1), np.uint8)
    assert grey.to_8_bits(same) is same


# ---------------------------------------------------------------------------------------------------- headers

def segment(mark, body):
    return bytes([0xFF, mark]) + struct.pack(">H", len(body) + 2) + body


def frame(height=50, width=40, sampling=(0x11,), bits=8):
    parts = b"".join(bytes([k + 1, coarse, 0]) for k, coarse in enumerate(sampling))
    return struct.pack(">BHHB", bits, height, width, len(sampling)) + parts


def a_jpeg(*segments, scan=b"\x12\x34", end=b"\xff\xd9"):
    return b"\xff\xd8" + b"".join(segments) + segment(0xDA, b"\x01\x01\0\0\x3f\0") + scan + end


@pytest.mark.parametrize("mark", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xCF])
def test_every_kind_of_jpeg_frame_is_read(mark):
    data = a_jpeg(segment(0xE0, b"JFIF\0"), segment(mark, frame()), segment(0xC4, b"\0" * 20))
    assert headers.read_header(data) == headers.Header("JPEG", 50, 40, 1, 8, 1, (8, 8))


@pytest.mark.parametrize("mark", [0xC4, 0xC8, 0xCC, 0xBF, 0xD0, 0xDB])
def test_other_segments_are_no_frame(mark):
    with pytest.raises(grey.FilmError, match="cut off: the JPEG ends before its picture begins"):
        headers.read_header(a_jpeg(segment(mark, frame())))


@pytest.mark.parametrize(("sampling", "piece"), [
    ((0x22, 0x11, 0x11), (16, 16)), ((0x21, 0x11, 0x11), (8, 16)), ((0x12, 0x11, 0x11), (16, 8)),
    ((0x11, 0x11, 0x11), (8, 8)), ((0x22,), (8, 8)), ((0x00, 0x11, 0x11), (8, 8))])
def test_a_piece_is_as_large_as_the_coarsest_colour(sampling, piece):
    found = headers.read_header(a_jpeg(segment(0xC0, frame(sampling=sampling, bits=12))))
    assert found.piece == piece and found.channels == len(sampling) and found.bits == 12


def test_a_jpeg_is_walked_to_its_end():
    plain = segment(0xC0, frame())
    assert headers.read_header(b"\xff\xd8\xff" + a_jpeg(plain)[2:])[:3] == ("JPEG", 50, 40)          # a fill byte
    late = a_jpeg(plain, end=b"\xff\xd9\0\0trailing")
    assert headers.read_header(late).height == 50
    short = a_jpeg(plain, end=b"")
    with pytest.raises(grey.DamagedError, match="ends before the picture does"):
        headers.read_header(short)
    assert headers.read_header(short, whole=False).width == 40
    thumbnail = a_jpeg(segment(0xE1, b"\xff\xd9"), plain, end=b"")    # an end mark before the picture is none
    with pytest.raises(grey.DamagedError, match="ends before the picture does"):
        headers.read_header(thumbnail)
    with pytest.raises(grey.FilmError, match="a JPEG segment does not begin where it should"):
        headers.read_header(a_jpeg(plain + b"\0\0\0\0"))
    for cut in (3, 6, 20):
        with pytest.raises(grey.FilmError, match="cut off"):
            headers.read_header(a_jpeg(plain)[:cut])
    only_header = b"\xff\xd8" + plain + segment(0xDA, b"\x01\x01\0\0\x3f\0")
    with pytest.raises(grey.FilmError, match="before its picture begins"):
        headers.read_header(only_header, whole=False)


def chunk(mark, body):
    return struct.pack(">I", len(body)) + mark + body + struct.pack(">I", zlib.crc32(mark + body))


def a_png(kind=0, bits=8, extra=b"", first=b"IHDR"):
    return (headers.PNG_SIGNATURE + chunk(first, struct.pack(">IIBBBBB", 40, 50, bits, kind, 0, 0, 0)) + extra
            + chunk(b"IEND", b""))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (3, 1), (4, 2), (6, 4), (5, 0)])
def test_the_header_of_a_png(kind, channels):
    found = headers.read_header(a_png(kind, 16))
    assert found == headers.Header("PNG", 50, 40, channels, 16, 1, (8, 8))


def test_what_is_wrong_with_a_png():
    for data, words in ((a_png()[:-1], "cut off"), (a_png()[:20], "cut off"), (a_png(first=b"IHDX"), "has no header"),
                        (a_png()[:30] + b"\1" + a_png()[31:], "a checksum inside"), (headers.PNG_SIGNATURE, "cut off")):
        with pytest.raises(grey.FilmError, match=words):
            headers.read_header(data)
    assert headers.read_header(a_png() + b"more").height == 50        # what follows the end does not count


def exif(code, order="II", tag=0x0112, before=0):
    mark = "<" if order == "II" else ">"
    entries = struct.pack(mark + "HHIHH", 0x0100, 3, 1, 7, 0) * before + struct.pack(mark + "HHIHH", tag, 3, 1, code, 0)
    return order.encode() + struct.pack(mark + "HIH", 42, 8, before + 1) + entries


@pytest.mark.parametrize("order", ["II", "MM"])
def test_the_orientation_tag(order):
    plain = segment(0xC0, frame())
    for code, expected in ((0, 1), (1, 1), (2, 2), (8, 8), (9, 1)):
        for before in (0, 2):
            body = exif(code, order, before=before)
            assert headers.read_header(a_png(extra=chunk(b"eXIf", body))).orientation == expected
            assert headers.read_header(a_jpeg(segment(0xE1, b"Exif\0\0" + body), plain)).orientation == expected
    assert headers.read_header(a_png(extra=chunk(b"eXIf", exif(6, order, tag=0x0113)))).orientation == 1
    for cut in (7, 12, 20):
        assert headers.read_header(a_png(extra=chunk(b"eXIf", exif(6, order)[:cut]))).orientation == 1


def test_exif_is_looked_for_in_the_first_64_kib():
    plain, tag = segment(0xC0, frame()), segment(0xE1, b"Exif\0\0" + exif(6))
    fill = segment(0xE2, bytes(65_000))
    assert headers.read_header(a_jpeg(fill, tag, plain)).orientation == 6
    assert headers.read_header(a_jpeg(fill, segment(0xE2, bytes(1000)), tag, plain)).orientation == 1


@pytest.mark.parametrize(("last", "found"), [(65536, 6), (65537, 1)])
def test_the_first_64_kib_end_where_they_end(last, found):
    begin = 2 + 4 + 4 + 6 + len(exif(6))                              # both segments' heads, "Exif" and the directory
    data = a_jpeg(segment(0xE2, bytes(last - begin)), segment(0xE1, b"Exif\0\0" + exif(6)), segment(0xC0, frame()))
    assert data.index(exif(6)) + len(exif(6)) == last and headers.read_header(data).orientation == found


@pytest.mark.parametrize("order", ["II", "MM"])
def test_only_a_directorys_own_entries_count(order):
    stray = struct.pack("<HHIHH" if order == "II" else ">HHIHH", 0x0112, 3, 1, 6, 0)
    body = exif(6, order, tag=0x0113) + stray
    assert headers.read_header(a_png(extra=chunk(b"eXIf", body))).orientation == 1


def test_short_frames_and_large_sides():
    for cut, piece in ((6, (8, 8)), (7, (8, 8)), (8, (16, 16))):      # its first sampling is the eighth
        found = headers.read_header(a_jpeg(segment(0xC0, frame(700, 600, (0x22, 0x11, 0x11))[:cut])))
        assert found[:5] == ("JPEG", 700, 600, 3, 8) and found.piece == piece
    assert headers.read_header(a_jpeg(segment(0xC0, frame(sampling=(0x22, 0x11))))).piece == (16, 16)
    with pytest.raises(grey.FilmError, match="before its picture begins"):
        headers.read_header(a_jpeg(segment(0xC0, frame()[:5])))
    with pytest.raises(grey.FilmError, match="before its picture begins"):         # ends with the head of its scan
        headers.read_header(b"\xff\xd8" + segment(0xC0, frame()) + b"\xff\xda\0\x08", whole=False)
    tall = headers.PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 2 ** 25 + 3, 2 ** 24 + 5, 8, 0, 0, 0, 0))
    assert headers.read_header(tall + chunk(b"IEND", b""))[1:3] == (2 ** 24 + 5, 2 ** 25 + 3)


@pytest.mark.parametrize("magic", headers.OTHER_FORMATS)
def test_other_formats_are_named(magic):
    with pytest.raises(grey.FilmError, match=f"{headers.OTHER_FORMATS[magic]} is not supported"):
        headers.read_header(magic + b"rest")


# ---------------------------------------------------------------------------------------------------- damage

def broken(levels, shape=(64, 64), row=3, column=4, piece=(8, 8)):
    """A flat picture in which all pieces from one on are brighter."""
    out = np.full(shape, 100, np.uint8)
    out[row * piece[0]:(row + 1) * piece[0], column * piece[1]:] += levels
    out[(row + 1) * piece[0]:] += levels
    return out


def test_a_step_by_hand():
    assert jpeg.step(np.full((64, 64), 7, np.uint8)) == 0
    for levels, expected in ((10, 10.0), (16, 16.0), (40, 16.0)):     # one pixel's jump counts up to 16
        assert jpeg.step(broken(levels)) == pytest.approx(expected)
        assert jpeg.step(255 - broken(levels)) == pytest.approx(expected)           # down as well as up
    assert jpeg.step(broken(10, (128, 128), piece=(16, 16)), (16, 16)) == pytest.approx(10)
    assert jpeg.step(broken(10, (64, 128), piece=(8, 16)), (8, 16)) == pytest.approx(10)
    slope = np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 2, 64, 1)            # a slope is no jump
    assert jpeg.step(slope) == 0 and jpeg.step(slope + broken(10) - 100) == pytest.approx(10)
    edge = np.full((64, 64), 100, np.uint8)
    edge[24:] += 30                                                   # an edge right across is none either
    assert jpeg.step(edge) <= 0


@pytest.mark.parametrize(("shape", "enough"), [((34, 32), True), ((33, 32), False), ((34, 31), False)])
def test_few_pieces_say_nothing(shape, enough):
    assert (jpeg.step(broken(10, shape, 1, 2)) > 0) == enough


def test_a_jpeg_with_a_step_is_damaged_only_where_it_has_to_be_whole():
    for levels, kind in ((4, None), (6, None), (7, grey.DamagedError)):
        data = cv2.imencode(".jpg", broken(levels), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        header = headers.read_header(data)
        assert np.abs(jpeg.decode_jpeg(data, header, False).astype(int) - broken(levels)).max() <= 1
        if kind is None:
            jpeg.decode_jpeg(data, header, True)
        else:
            with pytest.raises(kind, match="the brightness jumps"):
                jpeg.decode_jpeg(data, header, True)
    for other in (header._replace(height=63), header._replace(width=63)):
        with pytest.raises(grey.FilmError, match="not as large as its header says"):
            jpeg.decode_jpeg(data, other, False)
    for whole, kind in ((True, grey.DamagedError), (False, grey.FilmError)):
        with pytest.raises(grey.FilmError, match="broken or short") as error:
            jpeg.decode_jpeg(b"\xff\xd8\xff\xe0", header, whole)
        assert type(error.value) is kind


# ---------------------------------------------------------------------------------------------------- views and crops

def test_augmentations_by_hand():
    crops = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    draws = np.array([[0.499, 0.9], [0.5, 0.0]])                      # the first is turned, the second stays
    np.testing.assert_array_equal(augment.hflip(crops, draws, None), [[[1, 0], [3, 2]], crops[1]])
    np.testing.assert_array_equal(augment.vflip(crops, draws, None), [[[2, 3], [0, 1]], crops[1]])
    flat = np.full((2, 2, 2), 100, np.uint8)
    ends = np.array([[0.0, 0.0], [0.75, 0.0]])
    assert augment.brightness(flat, ends, 0.2)[:, 0, 0].tolist() == [49, 126]       # 100 - 51; 100 + 25.5, to even
    assert augment.brightness(flat - 90, ends, 0.2)[0].max() == 0     # cut at black
    two = np.array([[[100, 120]], [[100, 120]]], np.uint8)
    np.testing.assert_array_equal(augment.contrast(two, ends, 0.2)[:, 0], [[102, 118], [99, 121]])


def test_cuts_are_spread_over_all_places():
    crops = np.arange(25, dtype=np.uint8).reshape(1, 5, 5)
    for draw, first in ((0.0, 0), (0.24, 0), (0.26, 1), (0.51, 2), (0.76, 3), (0.999, 3)):
        out = augment.random_crop(crops, np.array([[draw, 0.0]]), 2)
        np.testing.assert_array_equal(out[0], crops[0, first:first + 2, :2])
    np.testing.assert_array_equal(augment.centre_crop(crops, np.zeros((1, 2)), 2)[0], crops[0, 2:4, 2:4])
    np.testing.assert_array_equal(augment.centre_crop(crops, np.zeros((1, 2)), 5), crops)
    with pytest.raises(InputError, match="cannot cut 6 pixels"):
        augment.centre_crop(crops, np.zeros((1, 2)), 6)


def test_the_defaults_of_a_cropper_are_the_papers():
    chest = np.zeros((224, 224), np.uint8)
    chest[0, 0] = 1
    found = Cropper(template=chest)
    assert (found.mode, found.rescaled, found.size, found.resize, found.least, found.places) == (
        "template", 256, 224, "auto", -1.0, 33)
    whole = Cropper("centre", size=256)
    assert whole.places == 1 and Cropper("none", rescaled=512, size=64).rescaled == 64


@pytest.mark.parametrize(("height", "width", "area", "exact"), [
    (512, 512, False, True), (320, 320, False, True),                 # halves; eighths: 8 digits and 3 for either side
    (257, 320, False, True), (257, 260, False, True),                 # 512ths and 128ths: 8 + 9 + 7 digits
    (257, 258, False, False), (257, 257, False, False),               # and 256ths: one digit too many
    (256, 256, True, True), (256, 512, False, True),
    (512, 1024, True, True), (300, 512, True, False), (512, 300, True, False), (768, 768, True, False),
    (65536, 65536, True, True), (65536, 131072, True, False)])
def test_when_single_precision_rescales_exactly(height, width, area, exact):
    """To 256 pixels: where every partial sum is a whole number of parts that 24 binary digits hold."""
    assert rescaling._exact_in_float32(height, width, 256, area) is exact


def test_memory_is_kept_between_films():
    first = rescaling.scratch("a test", 5, np.float32)
    assert first.shape == (5,) and first.dtype == np.float32
    assert np.shares_memory(first, rescaling.scratch("a test", 5, np.float32))
    assert np.shares_memory(first, rescaling.scratch("a test", 3, np.float32))
    assert len(rescaling.scratch("a test", 3, np.float32)) == 3
    larger = rescaling.scratch("a test", 6, np.float32)
    assert len(larger) == 6 and not np.shares_memory(first, larger)
    assert not np.shares_memory(larger, rescaling.scratch("another", 6, np.float32))


def test_the_neighbours_of_a_place_and_their_weights():
    """Four places over six pixels, by hand: centres at 0.25, 1.75, 3.25 and 4.75, in eighths."""
    low, high, share = rescaling._neighbours(np.arange(4), 6, 4, rescaling.in_numpy())
    assert (low.tolist(), high.tolist(), share.tolist()) == ([0, 1, 3, 4], [1, 2, 4, 5], [2, 6, 2, 6])
    low, high, share = rescaling._neighbours(np.arange(4), 2, 4, rescaling.in_numpy())    # -0.25, 0.25, 0.75, 1.25
    assert (low.tolist(), high.tolist(), share.tolist()) == ([0, 0, 0, 1], [1, 1, 1, 1], [0, 2, 6, 0])
    index, weight, total = rescaling._area_weights(np.array([0, 2, 3]), 6, 4)            # pixels 0-1.5, 3-4.5, 4.5-6
    assert weight.sum(1).tolist() == [6, 6, 6] and total == 6
    found = [{int(k): int(w) for k, w in zip(*row) if w} for row in zip(index, weight)]
    assert found == [{0: 4, 1: 2}, {3: 4, 4: 2}, {4: 2, 5: 4}] and index.max() == 5
    index, weight, total = rescaling._linear_weights(np.array([1, 3]), 6, 4)
    assert (index.tolist(), weight.tolist(), total) == ([[1, 2], [4, 5]], [[2, 6], [2, 6]], 8)


def test_the_limits_of_a_cropper():
    assert Cropper("centre", size=1).places == 256 and Cropper("centre", size=256).places == 1
    for size in (0, 257):
        with pytest.raises(InputError, match="expected 1 to 256"):
            Cropper("centre", size=size)
    plain, odd = Cropper("centre"), Cropper("centre", least=-0.5)
    assert plain.identity != odd.identity and plain.identity == Cropper("centre", least=-1.0).identity
