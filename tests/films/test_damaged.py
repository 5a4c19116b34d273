"""Damaged picture data: said for JPEGs alone and in DICOM, decoded on request; whole files keep their pixels."""

import io

import cv2
import numpy as np
import pytest

from chexpert_hier.films import jpeg
from chexpert_hier.films.decode import decode_film, read_film
from chexpert_hier.films.grey import DamagedError, FilmError
from chexpert_hier.films.headers import read_header

SIZE = (240, 200)
VARIANTS = {
    "grey": ([], False), "progressive": ([cv2.IMWRITE_JPEG_PROGRESSIVE, 1], False),
    "optimised": ([cv2.IMWRITE_JPEG_OPTIMIZE, 1], False), "restarts": ([cv2.IMWRITE_JPEG_RST_INTERVAL, 5], False),
    "poor": ([cv2.IMWRITE_JPEG_QUALITY, 20], False), "colour": ([], True),
    "colour 4:4:4": ([cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444], True),
    "colour 4:2:2": ([cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422], True),
    "colour progressive": ([cv2.IMWRITE_JPEG_PROGRESSIVE, 1], True),
}


def picture(seed=0):
    """Smooth and textured, uint8 SIZE."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]]
    film = 90 + 60 * np.sin(columns / 40) * np.cos(rows / 50) + 10 * np.sin(rows / 7) + random.normal(0, 4, SIZE)
    return np.clip(film, 0, 255).astype(np.uint8)


def encode(grey, options=(), colour=False):
    image = cv2.merge([grey // 2, grey, 255 - grey]) if colour else grey
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


def scan(data):
    """Where the picture data of a JPEG begins."""
    place = data.index(b"\xff\xda")
    return place + 2 + int.from_bytes(data[place + 2:place + 4], "big")


@pytest.mark.parametrize("name", VARIANTS)
def test_whole_files_have_the_pixels_that_opencv_finds(name):
    for grey in (picture(), picture(1)[:-3, :-5], picture(2)[:33, :40], np.rot90(picture(3))):
        data = encode(grey, *VARIANTS[name])
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(read_film(data), theirs)
        assert decode_film(data, "film").damage == ""


@pytest.mark.parametrize("name", VARIANTS)
def test_a_short_or_broken_scan_is_refused_and_decoded_on_request(name):
    whole = encode(picture(), *VARIANTS[name])
    start, grey = scan(whole), read_film(whole)
    middle = (start + len(whole)) // 2
    damaged = {"cut off": whole[:middle], "ends": whole[:middle] + b"\xff\xd9",
               "a hole": whole[:middle] + whole[middle + 300:],
               "noise": whole[:middle] + np.random.default_rng(0).bytes(200) + whole[middle + 200:]}
    if "progressive" in name:  # a scan that refines takes any bits
        damaged = {what: damaged[what] for what in ("cut off", "ends")}
    for what, data in damaged.items():
        with pytest.raises(DamagedError, match=r"^case 7\.jpg: (damaged|cut off): .*; copy the file again$"):
            read_film(data, "case 7.jpg")
        found = decode_film(data, "film", accept_damaged=True)
        assert found.grey.shape == grey.shape and found.damage.startswith(("damaged", "cut off")), what
        assert "film" not in found.damage.split(":")[0]
    if "progressive" not in name:  # what came before the damage is there, but for the blocks beside it
        kept = decode_film(damaged["ends"], "film", accept_damaged=True).grey
        np.testing.assert_array_equal(kept[:80], grey[:80])


def test_what_is_no_picture_at_all_stays_refused():
    whole = encode(picture())
    for data in (whole[:100], b"", b"\xff\xd8\xff\xe0nothing", whole[:scan(whole)][:-20]):
        with pytest.raises(FilmError):
            decode_film(data, "film", accept_damaged=True)


def test_a_broken_png_is_refused_in_any_case():
    """Its decoder gives nothing back of what is behind a wrong checksum."""
    whole = cv2.imencode(".png", picture())[1].tobytes()
    place = whole.index(b"IDAT") + len(whole) // 2
    flipped = whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1:]
    for data, reason in ((flipped, "checksum"), (whole[:place], "cut off")):
        for accept in (False, True):
            with pytest.raises(DamagedError, match=reason):
                decode_film(data, "film", accept_damaged=accept)


@pytest.mark.parametrize("colour", [False, True])
def test_a_shift_without_a_warning_is_seen_where_blocks_end(colour):
    """All blocks from one on are 12 levels brighter, as after one wrong bit in a block's brightness."""
    unit = 16 if colour else 8
    grey = cv2.GaussianBlur(picture(), (0, 0), 2)
    across = SIZE[1] // unit
    for row, column in ((3, 4), (7, across - 4), (5, across // 2)):
        shifted = grey.astype(np.int16)
        shifted[row * unit:(row + 1) * unit, column * unit:] += 12
        shifted[(row + 1) * unit:] += 12
        shifted = np.clip(shifted, 0, 255).astype(np.uint8)
        assert 8 < jpeg.step(shifted, (unit, unit)) < 16
        data = encode(shifted, [cv2.IMWRITE_JPEG_QUALITY, 95], colour)
        assert read_header(data).piece == (unit, unit)
        if not colour:  # (its luminance is a mixture)
            with pytest.raises(DamagedError, match="brightness jumps"):
                read_film(data)
    assert jpeg.step(grey, (unit, unit)) < 1


def test_a_step_by_hand():
    """Four by five blocks of 8; from block (1, 2) on 10 levels brighter: 10 on both sides, 0 beside it."""
    grey = np.full((48, 40), 100, np.uint8)
    grey[8:16, 16:] = 110
    grey[16:] = 110
    assert jpeg.step(grey) == 10.0
    grey[16:24, :16] = 100  # the left part is a row late: an edge of something, not of the data
    assert jpeg.step(grey) < 1
    assert jpeg.step(np.full((40, 24), 7, np.uint8)) == jpeg.step(np.zeros((8, 8), np.uint8)) == 0
    edge = np.full((80, 80), 50, np.uint8)
    edge[40:] = 200  # the edge of a collimator, on a block's border
    assert jpeg.step(edge) <= 0 and jpeg.step(edge.T.copy()) <= 0
    capped = np.full((48, 40), 0, np.uint8)
    capped[8:16, 16:] = 255
    capped[16:] = 255
    assert jpeg.step(capped) == jpeg.MOST_JUMP


def brighter_from(row, column, shape, by=10, unit=8):
    """Grey, and `by` levels brighter from one block on."""
    grey = np.full(shape, 100, np.uint8)
    grey[row * unit:(row + 1) * unit, column * unit:] += np.uint8(by)
    grey[(row + 1) * unit:] += np.uint8(by)
    return grey


@pytest.mark.parametrize(("row", "column"), [(1, 2), (2, 2), (3, 2), (1, 3), (3, 3)])
def test_a_step_is_seen_wherever_both_its_parts_are(row, column):
    assert jpeg.step(brighter_from(row, column, (42, 40))) == 10
    assert jpeg.step(255 - brighter_from(row, column, (42, 40))) == 10  # darker
    assert jpeg.step(brighter_from(row, column, (84, 80), unit=16), (16, 16)) == 10


def test_the_fewest_blocks():
    """Four across, and four edges between rows with two lines below the last."""
    assert jpeg.step(brighter_from(1, 2, (34, 32))) == 10
    assert jpeg.step(brighter_from(1, 2, (33, 32))) == jpeg.step(brighter_from(1, 2, (34, 31))) == 0


def test_a_slope_is_no_step_and_a_jump_is_what_exceeds_it():
    rows = np.arange(48)[:, None]
    slope = np.broadcast_to((2 * rows).astype(np.uint8), (48, 40)).copy()
    assert jpeg.step(slope) == 0
    slope[8:16, 16:] += 10
    slope[16:] += 10
    assert jpeg.step(slope) == 10


def test_what_stands_beside_a_step_counts_against_it():
    """By hand: 10 in both parts; 4 levels in the left part of the upper edge leave 6."""
    grey = brighter_from(1, 2, (48, 40))
    grey[8:16, :16] += 4
    assert jpeg.step(grey) == 10 - 4 - 4  # and the lower edge's left part is 4 levels less
    far = brighter_from(2, 3, (48, 40))
    far[24:32, 24:] += 3  # behind the step, on the lower edge
    assert jpeg.step(far) == 10 - 3
    above = brighter_from(2, 3, (48, 40))
    above[:8, :16] += 8  # beside another edge than the step's
    assert jpeg.step(above) == 10


def test_the_piece_of_a_jpeg_is_its_sampling():
    grey = picture()
    assert read_header(encode(grey)).piece == (8, 8)
    assert read_header(encode(grey, [], True)).piece == (16, 16)
    assert read_header(encode(grey, *VARIANTS["colour 4:4:4"])).piece == (8, 8)
    assert read_header(encode(grey, *VARIANTS["colour 4:2:2"])).piece == (8, 16)


@pytest.mark.parametrize("syntax", ["baseline", "jpeg-ls"])
def test_damaged_pixels_in_dicom(syntax, shared_data):
    pydicom = pytest.importorskip("pydicom")
    whole = (shared_data / "awkward" / "dicom_jpeg_baseline.dcm").read_bytes()
    if syntax == "jpeg-ls":
        pytest.importorskip("jpeg_ls")
        file = pydicom.dcmread(shared_data / "awkward" / "dicom_mono2_12bit_window.dcm")
        file.compress(pydicom.uid.JPEGLSLossless)
        out = io.BytesIO()
        file.save_as(out)
        whole = out.getvalue()
    grey = read_film(whole)
    place = len(whole) - 9000
    broken = whole[:place] + np.random.default_rng(0).bytes(300) + whole[place + 300:]
    with pytest.raises(DamagedError, match=r"^x\.dcm: damaged"):
        read_film(broken, "x.dcm")
    if syntax == "baseline":
        found = decode_film(broken, "x.dcm", accept_damaged=True)
        assert found.grey.shape == grey.shape and found.damage
        np.testing.assert_allclose(found.grey[:100].astype(int), grey[:100], atol=1)  # the values present set the ends


def test_few_damaged_films_go_unseen():
    """Of damage to the picture data that changes a film by more than 10 levels on average, one in twenty at most."""
    random, seen, unseen = np.random.default_rng(4), 0, 0
    for seed in range(12):
        whole = encode(picture(seed))
        grey, start = read_film(whole).astype(int), scan(whole)
        for _ in range(20):
            data = bytearray(whole)
            place, length = random.integers(start, len(whole) - 2), random.choice([1, 16, 200])
            data[place:place + length] = random.bytes(length)
            try:
                found = read_film(bytes(data[:len(whole) - 2]) + b"\xff\xd9").astype(int)
            except FilmError:
                seen += 1
                continue
            unseen += found.shape != grey.shape or np.abs(found - grey).mean() > 10
    assert seen > 100 and unseen <= 0.05 * seen
