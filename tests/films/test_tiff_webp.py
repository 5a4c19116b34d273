"""TIFF and WebP by value against OpenCV and by hand, and what is refused of them in one line; no TensorFlow."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from chexpert_hier.datasets.checks import _look
from chexpert_hier.films import plausible
from chexpert_hier.films.decode import _turn, decode_film, read_film
from chexpert_hier.films.grey import DamagedError, FilmError
from chexpert_hier.films.headers import read_header
from chexpert_hier.films.quiet import OPENCV_LOG

GREY = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8), (0, 0), 3)
DEEP = GREY.astype(np.uint16) * 257
COLOUR = np.dstack([GREY, GREY // 2, 255 - GREY])  # BGR


def encode(image, suffix, *settings):
    return cv2.imencode(suffix, image, list(settings))[1].tobytes()


def a_tiff(pixels, order="<", rows=None, packing=1, more=b"", **tags):
    """A TIFF written by hand: strips of `rows` rows, `tags` replaced, added or (None) left out, then `more`.

    Args:
        pixels: (h, w) or (h, w, 3) RGB of any type.
        tags: t273=[8], say; `next`: where the next directory stands, from this one's end.
    """
    height, width = pixels.shape[:2]
    samples, bits = pixels.shape[2] if pixels.ndim == 3 else 1, 8 * pixels.itemsize
    rows, raw = rows or height, pixels.astype(pixels.dtype.newbyteorder(order))
    strips = [raw[k:k + rows].tobytes() for k in range(0, height, rows)]
    strips = [zlib.compress(strip) for strip in strips] if packing in (8, 32946) else strips
    places = np.cumsum([8, *map(len, strips)])
    following = tags.pop("next", None)
    values = {256: [width], 257: [height], 258: [bits] * samples, 259: [packing], 262: [2 if samples == 3 else 1],
              273: places[:-1].tolist(), 277: [samples], 278: [rows], 279: list(map(len, strips))}
    values |= {int(name[1:]): value for name, value in tags.items()}
    values = dict(sorted((tag, value) for tag, value in values.items() if value is not None))
    start = int(places[-1]) + int(places[-1]) % 2
    end = start + 6 + 12 * len(values)
    directory, far = struct.pack(order + "H", len(values)), b""
    for tag, value in values.items():
        packed = struct.pack(f"{order}{len(value)}{'H' if tag == 320 else 'I'}", *value)
        directory += struct.pack(order + "HHI", tag, 3 if tag == 320 else 4, len(value))
        directory += packed if len(packed) == 4 else struct.pack(order + "I", end + len(far))
        far += packed if len(packed) > 4 else b""
    directory += struct.pack(order + "I", 0 if following is None else end + len(far) + following)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return (mark + struct.pack(order + "I", start) + b"".join(strips)).ljust(start, b"\0") + directory + far + more


# ---------------------------------------------------------------------------------------------------- what is read

@pytest.mark.parametrize("how", [(), (259, 1), (259, 5), (259, 8), (259, 32773)], ids=str)  # cv2.IMWRITE_TIFF_...
def test_what_opencv_writes_is_read_back(how):
    np.testing.assert_array_equal(read_film(encode(GREY, ".tif", *how)), GREY)
    np.testing.assert_array_equal(read_film(encode(DEEP, ".tif", *how)), GREY)
    np.testing.assert_array_equal(read_film(encode(COLOUR, ".tif", *how)), read_film(encode(COLOUR, ".png")))
    deep = COLOUR.astype(np.uint16) * 200
    np.testing.assert_array_equal(read_film(encode(deep, ".tif", *how)), read_film(encode(deep, ".png")))
    assert np.abs(read_film(encode(COLOUR, ".tif")).astype(int) - cv2.cvtColor(COLOUR, cv2.COLOR_BGR2GRAY)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packing", [1, 8, 32946])
def test_strips_by_hand(order, packing):
    for rows in (None, 7, 64, 2 ** 32 - 1):
        np.testing.assert_array_equal(read_film(a_tiff(GREY, order, rows and min(rows, 64), packing)), GREY)
        np.testing.assert_array_equal(read_film(a_tiff(DEEP, order, rows and min(rows, 64), packing)), GREY)
    rgb = a_tiff(COLOUR[..., ::-1], order, 7, packing)
    np.testing.assert_array_equal(read_film(rgb), read_film(encode(COLOUR, ".png")))
    twelve = (GREY.astype(np.uint16) << 4) | 15                       # 12 bits in 16: scaled by the depth in use
    twelve[0, 0] = 4095
    expected = np.rint(twelve / 4095 * 255)
    assert np.abs(read_film(a_tiff(twelve, order, packing=packing)).astype(int) - expected).max() <= 1


def test_white_is_zero_at_both_depths():
    for pixels in (GREY, DEEP):
        np.testing.assert_array_equal(read_film(a_tiff(pixels, t262=[0])), 255 - GREY)


def test_a_palette_gives_its_colours():
    reds, greens, blues = (np.arange(256) * 257 // k for k in (1, 2, 4))
    data = a_tiff(GREY, t262=[3], t320=[*reds, *greens, *blues])
    level = GREY.astype(float)
    expected = 0.299 * level + 0.587 * level / 2 + 0.114 * level / 4
    assert read_header(data).channels == 3 and np.abs(read_film(data) - expected).max() <= 2
    assert plausible.colour(data) == pytest.approx((level - level / 4).mean(), abs=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8", "16"])
def test_tiffs_are_laid_upright(pixels, orientation):
    data = a_tiff(pixels, t274=[orientation])
    np.testing.assert_array_equal(read_film(data), _turn(GREY, orientation))
    assert read_header(data)[1:6] == (64, 48, 1, pixels.itemsize * 8, orientation)


def test_a_smaller_copy_behind_the_film_is_no_page():
    def behind(kind):
        return struct.pack("<HHHIII", 1, 254, 4, 1, kind, 0)

    for kind in (1, 4):
        np.testing.assert_array_equal(read_film(a_tiff(GREY, next=0, more=behind(kind))), GREY)
    with pytest.raises(FilmError, match=r"^x: has 2 pages; expected one film"):
        read_film(a_tiff(GREY, next=0, more=behind(0)), "x")


@pytest.mark.parametrize("quality", [101, 80])  # 101: without loss
def test_webp_is_read_as_opencv_reads_it(quality):
    for picture in (GREY, COLOUR):
        data = encode(picture, ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)
        found = read_film(data)
        opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.abs(found.astype(int) - opencv).max() <= 1
        assert read_header(data) == ("WebP", 64, 48, 3, 8, 1, (8, 8), False)
    if quality == 101:
        np.testing.assert_array_equal(read_film(encode(GREY, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)), GREY)


def test_what_hides_in_a_transparent_webp_stays_hidden():
    opaque = np.full_like(GREY, 255)
    opaque[:, :10] = 0
    for quality in (101, 90):
        data = encode(np.dstack([GREY] * 3 + [opaque]), ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)
        found = read_film(data)
        assert read_header(data).channels == 4 and found[:, :10].max() == 0
        assert np.abs(found[:, 10:].astype(int) - GREY[:, 10:]).max() <= (0 if quality == 101 else 12)


def extended(webp, *chunks, flags=0):
    """A WebP in the extended form, with chunks behind the picture."""
    body = struct.pack("<4sIB3x", b"VP8X", 10, flags) + (47).to_bytes(3, "little") + (63).to_bytes(3, "little")
    body += webp[12:] + b"".join(mark + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2)
                                 for mark, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("before", [b"", b"Exif\0\0"])
def test_webps_are_laid_upright(orientation, before):
    exif = before + b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    data = extended(encode(GREY, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101), (b"EXIF", exif), flags=8)
    np.testing.assert_array_equal(read_film(data), _turn(GREY, orientation))


# ---------------------------------------------------------------------------------------------------- what is not

TIFF, WEBP = a_tiff(GREY, rows=16), encode(GREY, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
LOSSY = encode(GREY, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80)
MANY_PAGES = b"".join(struct.pack("<HI", 0, len(a_tiff(GREY)) + 6 * k) for k in range(1, 999)) + bytes(6)
REFUSED = {
    "head of a tiff": (TIFF[:8], "cut off: the TIFF ends before its header does"),
    "half a tiff": (TIFF[:len(TIFF) // 2], "cut off: the TIFF ends before its header does"),
    "strips at the end": (a_tiff(GREY, t273=[9000]), "cut off: the TIFF ends before the picture does"),
    "lying size of a strip": (a_tiff(GREY, t279=[2 ** 32 - 1]), "cut off: the TIFF ends before the picture does"),
    "short strip": (a_tiff(GREY, t279=[64 * 48 - 1]), "damaged: a strip of the TIFF is broken or short"),
    "too few strips": (a_tiff(GREY, t278=[16]), "does not hold as many strips"),
    "no strips": (a_tiff(GREY, t273=None), "does not hold as many strips"),
    "bomb": (a_tiff(GREY, t256=[60000], t257=[60000]), "too large: 60000x60000"),
    "bomb of colours": (a_tiff(COLOUR, t256=[9000], t257=[9000]), "too large: 9000x9000"),
    "packed bomb": (a_tiff(np.zeros((64, 48), np.uint8), packing=8, t256=[40000], t257=[1000], t278=[1000]),
                    "a strip of the TIFF"),
    "no size": (a_tiff(GREY, t256=None), "too small: 0x64"),
    "tiny": (a_tiff(GREY[:20, :20]), "too small: 20x20 pixels; expected at least 32"),
    "flat": (a_tiff(np.full((64, 48), 7, np.uint8)), "no picture content"),
    "no end of pages": (a_tiff(GREY)[:-4] + a_tiff(GREY)[4:8], "list of pages has no end"),
    "many pages": (a_tiff(GREY, next=0, more=MANY_PAGES), "list of pages has no end"),
    "two widths": (a_tiff(GREY).replace(struct.pack("<HHII", 257, 4, 1, 64), struct.pack("<HHII", 256, 4, 1, 64)),
                   "tag 256 of the TIFF's header makes no sense"),
    "odd type": (a_tiff(GREY).replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 278, 12, 1)),
                 "tag 278 of the TIFF's header makes no sense"),
    "huge count": (a_tiff(GREY).replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 2 ** 32 - 1)),
                   "tag 273 of the TIFF's header makes no sense"),
    "many tags": (b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + bytes(12 * 65535 + 4), "has 65,535 tags"),
    "values beyond the end": (a_tiff(GREY).replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 99_999)),
                              "cut off: the TIFF ends before its header does"),
    "floats": (a_tiff(GREY.astype(np.float32), t339=[3]), "a TIFF of 32 bits"),
    "signed": (a_tiff(DEEP.astype(np.int16), t339=[2]), "signed or broken numbers; expected whole numbers of 8 or 16"),
    "one bit": (a_tiff(GREY, t258=[1]), "a TIFF of 1 bits"),
    "mixed bits": (a_tiff(COLOUR, t258=[8, 8, 16]), "expected whole numbers"),
    "jpeg inside": (a_tiff(GREY, t259=[7]), "packed in a way that is not read"),
    "cmyk": (a_tiff(np.dstack([GREY] * 4), t262=[5]), "coded in another way than grey, palette or RGB"),
    "transparent tiff": (encode(np.dstack([COLOUR, GREY]), ".tif"), "has 4 channels; expected 3, without transparency"),
    "tiles": (a_tiff(GREY, t322=[16]), "a TIFF of tiles"),
    "planes": (a_tiff(COLOUR, t284=[2]), "separate colours"),
    "bigtiff": (b"II+\0\x08\0\0\0", "BigTIFF is not supported"),
    "half a webp": (WEBP[:len(WEBP) // 2], "cut off: the WebP ends before the picture does"),
    "all but a webp's last byte": (WEBP[:-1], "cut off: the WebP ends before the picture does"),
    "lying chunk": (WEBP[:16] + struct.pack("<I", 2 ** 31) + WEBP[20:], "cut off: the WebP ends before"),
    "empty webp": (b"RIFF\x04\0\0\0WEBP", "damaged: the WebP holds no picture"),
    "bomb of a webp": (WEBP[:21] + struct.pack("<I", 16382 | 16382 << 14) + WEBP[25:], "too large: 16383x16383"),
    "bomb of a lossy webp": (LOSSY[:26] + struct.pack("<HH", 16383, 16383) + LOSSY[30:], "too large: 16383x16383"),
    "broken webp": (LOSSY[:30] + b"\xff" * 8 + LOSSY[38:], "damaged: the WebP"),
    "animation": (extended(WEBP, flags=2), "an animation; expected one film"),
    "another riff": (b"RIFF\x04\0\0\0WAVE", "not an image; expected JPEG, PNG, TIFF, WebP or DICOM"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_film_is_refused_in_one_line(name, capfd):
    data, reason = REFUSED[name]
    with pytest.raises(FilmError, match=reason) as error:
        read_film(data, "x.tif")
    assert str(error.value).startswith("x.tif: ") and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""                               # nor a line of libtiff's


@pytest.mark.parametrize("whole", [a_tiff(GREY, rows=16), a_tiff(DEEP, rows=16, packing=8), WEBP, LOSSY,
                                   encode(DEEP, ".tif"), encode(GREY, ".tif")],
                         ids=["plain", "deflate", "webp", "lossy", "lzw 16", "lzw 8"])
def test_every_cut_is_seen(whole, capfd):
    for end in range(12, len(whole) - 1, 13):
        with pytest.raises(FilmError):
            read_film(whole[:end])
        with pytest.raises(FilmError):
            decode_film(whole[:end], "x", accept_damaged=True)
    assert capfd.readouterr().err == ""


def test_a_flipped_bit_in_deflate_is_seen():
    whole, draw = a_tiff(GREY, rows=16, packing=8), np.random.default_rng(1)
    for place in draw.integers(8, len(whole) - 300, 60):
        broken = bytearray(whole)
        broken[place] ^= 1 << int(draw.integers(8))
        with pytest.raises(DamagedError, match="a strip of the TIFF is broken or short"):
            read_film(bytes(broken))


# ---------------------------------------------------------------------------------------------------- what is said

def test_how_coloured_they_are():
    tinted = np.dstack([GREY, GREY // 2, GREY // 2])
    expected = (GREY - GREY // 2).mean()
    for data in (encode(tinted, ".tif"), encode(tinted, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
                 encode(tinted.astype(np.uint16) * 257, ".tif")):
        assert plausible.colour(data) == pytest.approx(expected)
    for data in (TIFF, WEBP, encode(np.dstack([DEEP] * 3), ".tif")):
        assert plausible.colour(data) == 0


def test_what_datasets_says_of_them(tmp_path):
    alpha = np.dstack([COLOUR, GREY])
    for data, expected in ((TIFF, []), (WEBP, []), (encode(DEEP, ".tif"), ["16-bit film"]),
                           (encode(COLOUR, ".tif"), ["colour film"]), (a_tiff(GREY, t274=[6]), ["rotated film (EXIF)"]),
                           (encode(alpha, ".webp"), ["transparent film"])):
        (tmp_path / "film").write_bytes(data)
        assert _look(tmp_path / "film")[1:] == ("", expected)


def test_a_missing_codec_is_named(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: None)
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: name != "film.tiff")
    with pytest.raises(FilmError, match="OpenCV is built without TIFF here"):
        read_film(TIFF)
    with pytest.raises(FilmError, match="the WebP decoder could not read it"):
        read_film(WEBP)


def test_opencvs_log_is_silent_only_while_it_decodes():
    before = OPENCV_LOG.getLogLevel()
    with pytest.raises(FilmError):
        read_film(LOSSY[:30] + b"\xff" * 8 + LOSSY[38:])
    assert OPENCV_LOG.getLogLevel() == before
