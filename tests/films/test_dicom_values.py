"""What the steps from a DICOM's stored values to grey do, one by one and by value; no file but where one is needed."""

import io
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_film import film

from chexpert_hier.films import dicom
from chexpert_hier.films.decode import decode_film, read_film
from chexpert_hier.films.grey import DamagedError, FilmError

pydicom = pytest.importorskip("pydicom")


def head(**tags):
    found = pydicom.Dataset()
    for name, value in tags.items():
        setattr(found, name, value)
    return found


# stored values

@pytest.mark.parametrize(("tags", "stored", "expected"), [
    ({"BitsStored": 10}, [0, 1023, 1 << 15 | 5], [0, 1023, 5]),
    ({"BitsStored": 12, "HighBit": 15}, [0x1230, 0xFFF7], [0x123, 0xFFF]),
    ({"BitsStored": 12, "HighBit": 7}, [0x1FF], [0x1FF]),                            # no bits to shift out
    ({"BitsStored": 12, "PixelRepresentation": 1}, [0x800, 0xFFF, 0x7FF, 0], [-2048, -1, 2047, 0]),
    ({"BitsStored": 12, "PixelRepresentation": 0}, [0x800], [2048]),
    ({}, [65535, 1], [65535, 1]), ({"BitsAllocated": 8}, [0x1FF], [0xFF]),
    ({"BitsStored": 16, "BitsAllocated": 8}, [0x1FF], [0xFF])])
def test_stored_bits_by_hand(tags, stored, expected):
    found = dicom._unpacked(np.array(stored, np.uint16), head(**tags))
    assert found.tolist() == expected and found.dtype == np.int32


def test_wide_stored_values_by_hand():
    assert dicom._unpacked(np.array([65536 + 3], np.uint32), head()).tolist() == [3]             # 16 bits, if not said
    high = np.array([2 ** 32 - 1, 2 ** 31 + 5], np.uint32)
    found = dicom._unpacked(high, head(BitsAllocated=32))
    assert found.tolist() == high.tolist() and found.dtype == np.int64
    assert dicom._unpacked(high, head(BitsAllocated=32, BitsStored=31)).tolist() == [2 ** 31 - 1, 5]
    found = dicom._unpacked(np.array([0.5], np.float32), head(BitsAllocated=32))
    assert found.tolist() == [0.5] and found.dtype == np.float64
    assert dicom._unpacked(np.array([0.5], np.float32), head(BitsStored=12)).tolist() == [0.5]


# windows

@pytest.mark.parametrize(("value", "expected"), [
    ("3.5", 3.5), (2, 2.0), ([7.5, 1], 7.5), (None, None), ("", None), ([], None), ("wide", None), (float("nan"), None),
    (float("inf"), None), (pydicom.valuerep.DSdecimal("4.5"), 4.5), (["x"], None)])
def test_the_first_of_several_numbers(value, expected):
    assert dicom._first(value) == expected


@pytest.mark.parametrize(("function", "width", "expected"), [
    ("LINEAR", 4, [0, 1 / 3, 2 / 3, 1]), ("LINEAR", 1, None), ("LINEAR", 2, [0, 0, 1, 1]), ("LINEAR_EXACT", 0, None),
    ("LINEAR_EXACT", 4, [0.0, 0.25, 0.5, 0.75]), ("LINEAR_EXACT", 1, [0, 0, 0.5, 1]),
    ("SIGMOID", 4, [1 / (1 + np.exp(2)), 1 / (1 + np.exp(1)), 0.5, 1 / (1 + np.exp(-1))])])
def test_windows_by_hand(function, width, expected):
    """Centre 2 (PS3.3 C.11.2.1.2: LINEAR lies half a step lower), values 0 to 3."""
    found = dicom._windowed(np.arange(4.0), head(WindowCenter=2, WindowWidth=width, VOILUTFunction=function))
    assert found is None if expected is None else found == pytest.approx(expected)


def test_a_window_needs_centre_and_width_and_stays_in_its_ends():
    values = np.array([-1e6, 1e6])
    for tags in ({"WindowCenter": 2}, {"WindowWidth": 4}, {}):
        assert dicom._windowed(values, head(**tags)) is None
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID", ""):
        ends = dicom._windowed(values, head(WindowCenter=2, WindowWidth=4, VOILUTFunction=function))
        assert ends.tolist() == pytest.approx([0, 1], abs=1e-300)


def test_a_table_of_grey_levels(caplog):
    caplog.set_level("WARNING", logger="chexpert_hier.films")
    table = pydicom.Dataset()
    table.LUTDescriptor = [3, 5, 12]
    table.add_new("LUTData", "US", [0, 4095, 1000])
    found = dicom._looked_up(np.array([4.0, 5.4, 5.6, 7.0, 9.0]), head(VOILUTSequence=[table]))
    np.testing.assert_allclose(found, np.array([0, 0, 4095, 1000, 1000]) / 4095)
    assert dicom._looked_up(np.zeros(1), head()) is None is dicom._looked_up(np.zeros(1), head(VOILUTSequence=[]))
    assert not caplog.records
    del table.LUTData
    assert dicom._looked_up(np.zeros(1), head(VOILUTSequence=[table])) is None
    assert "VOI LUT cannot be used" in caplog.text


# values without a window

def by_values(stored, slope=1.0, intercept=0.0, **tags):
    stored = np.asarray(stored)
    levels = np.arange(stored.min(), stored.max() + 1)
    by_level = dicom._by_values(levels, slope * levels + intercept, stored, head(**tags))[stored - stored.min()]
    by_pixel = dicom._by_values(stored[None], slope * stored[None] + intercept, stored[None], head(**tags))[0]
    np.testing.assert_allclose(by_pixel, by_level)                    # the two ways of `_read`
    return by_level


def test_eight_bits_stay_and_others_lie_between_the_ends_of_what_is_there():
    assert by_values([0, 51, 102], BitsStored=8) == pytest.approx([0, 0.2, 0.4])
    assert by_values([0, 3, 7], BitsStored=3) == pytest.approx([0, 3 / 7, 1])
    assert by_values([100, 150, 200], BitsStored=9) == pytest.approx([0, 0.5, 1])
    assert by_values([-1, 0, 3], BitsStored=8) == pytest.approx([0, 0.25, 1])        # signed: no levels of 0 to 255
    assert by_values([0, 51, 102], slope=2.0, BitsStored=8) == pytest.approx([0, 0.5, 1])        # rescaled
    assert by_values([0, 51, 102]) == pytest.approx([0, 0.5, 1])      # nothing said: 16 bits
    assert by_values([10, 20, 30], slope=-1.0, intercept=5.0, BitsStored=12) == pytest.approx([1, 0.5, 0])


def test_a_thousandth_is_cut_off_at_both_ends():
    stored = np.r_[0, 100, np.arange(200, 4200), 5000, 9000]          # 4,004 values: four at each end
    found = by_values(stored, BitsStored=16)
    assert found[:5] == pytest.approx([0, 0, 0, 0, 0]) and found[5] > 0 and found[-5:] == pytest.approx([1] * 5)
    assert found[-6] < 1 and found[2002] == pytest.approx((stored[2002] - 202) / (4197 - 202))
    few = by_values(np.r_[np.zeros(5000, int), 9], BitsStored=16)     # the ends are one level: all of them count
    assert few[0] == 0 and few[-1] == 1


def test_padding_is_no_picture():
    stored = [0, 100, 150, 200, 999, 1000]
    assert by_values(stored, BitsStored=12, PixelPaddingValue=0) == pytest.approx(
        [0, 0, 50 / 900, 100 / 900, 899 / 900, 1])
    for ends in ((999, 1001), (1001, 999)):                           # a range, in either order
        found = by_values(stored, BitsStored=12, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1])
        assert found == pytest.approx([0, 0.5, 0.75, 1, 1, 1])
    one = by_values([5, 5, 9], BitsStored=12, PixelPaddingValue=9)    # a single level is left: padding counts
    assert one == pytest.approx([0, 0, 1])
    every = by_values([5, 9], BitsStored=12, PixelPaddingValue=5, PixelPaddingRangeLimit=9)
    assert every == pytest.approx([0, 1])


def test_grey_levels_are_rounded_and_cut_at_the_ends():
    values = np.array([0, 1, 2, 3])
    tags = {"BitsStored": 12, "WindowCenter": 2, "WindowWidth": 4}
    assert dicom._displayed(values, values, head(**tags)).tolist() == [0, 85, 170, 255]
    white = dicom._displayed(values, values, head(**tags, PhotometricInterpretation="MONOCHROME1"))
    assert white.tolist() == [255, 170, 85, 0]
    half = dicom._displayed(np.array([0, 1, 255]), np.array([0, 255]), head(BitsStored=9, RescaleSlope=1,
                                                                            RescaleIntercept=0))
    assert half.tolist() == [0, 1, 255]
    outside = dicom._displayed(values, values, head(**{**tags, "WindowCenter": 500}))    # misses the picture
    assert outside.tolist() == [0, 85, 170, 255]


def test_a_film_of_many_levels_is_read_pixel_by_pixel(monkeypatch):
    data = film(np.zeros((32, 32)))
    for levels in ((0, 1 << 16, 1 << 17), (0, 1 << 16, (1 << 17) - 1), (7, 8, 9), (-9, -8, -7)):
        values = np.repeat(levels, (10, 11, 11))[:, None] + np.zeros(32, int)
        monkeypatch.setattr(dicom, "_stored", lambda *_, values=values: values)
        assert dicom._read(data, 32, True)[[0, 9, 10, 20, 21, 31], 5].tolist() == [0, 0, 128, 128, 255, 255]


def test_colour_by_hand():
    deep = np.zeros((1, 3, 3), np.uint16)
    deep[0, 0], deep[0, 1, 0] = 511, 511                              # white and red of 9 bits
    assert dicom._colour(deep, head(PhotometricInterpretation="RGB")).tolist() == [[255, 76, 0]]
    shallow = np.zeros((1, 2, 3), np.uint8)
    shallow[0, 0] = 100
    assert dicom._colour(shallow, head(PhotometricInterpretation="RGB")).tolist() == [[100, 0]]


def test_a_palette_is_looked_up():
    tags = {"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1, "BitsAllocated": 8, "BitsStored": 8}
    for colour, level in (("Red", 255), ("Green", 255), ("Blue", 0)):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        tags[f"{colour}PaletteColorLookupTableData"] = bytes([0, level])
    assert dicom._colour(np.array([[0, 1]], np.uint8), head(**tags)).tolist() == [[0, 226]]


# what a header says

@pytest.mark.parametrize(("data", "found"), [
    (bytes(128) + b"DICM", True), (bytes(127) + b"DICM", False), (b"\x08\0\5\0" + bytes(129), True),
    (b"\x02\0\0\0" + bytes(129), True), (b"\x08\0\5\0" + bytes(128), False), (b"\x08\0\5\1" + bytes(129), False),
    (b"\x09\0\5\0" + bytes(129), False), (b"\x08\0", False), (b"", False)])
def test_what_a_dicom_file_begins_with(data, found):
    assert dicom.is_dicom(data) == found


@pytest.mark.parametrize(("position", "meaning", "view"), [
    ("PA", None, "Frontal"), ("AP", None, "Frontal"), (" ll ", None, "Lateral"), ("", "left lateral", "Lateral"),
    ("", "Antero-posterior", ""), ("", "postero-anterior", "Frontal"), ("", "left lateral decubitus", ""),
    ("", "lateral decubitus, anterior", "Frontal"), ("RL", "postero-anterior", "Lateral"), ("XX", None, ""),
    ("PA", "left lateral", "Lateral")])
def test_the_view_by_hand(position, meaning, view):
    code = head(CodeMeaning=meaning)
    assert dicom._view(head(ViewPosition=position, ViewCodeSequence=[code] if meaning else [])) == view
    if not meaning:
        assert dicom._view(head(ViewPosition=position)) == view


def test_codes_that_an_error_line_may_quote():
    assert [dicom._shown(code) for code in ("A" * 16, "WHOLE BODY", "LEFT_RIB", "A" * 17, "DOE^JOHN", "A1", "")] == [
        "A" * 16, "WHOLE BODY", "LEFT_RIB", *["something else"] * 4]
    with pytest.raises(FilmError, match="modality is something else, not CR or DX"):
        dicom._check_kind(head(Modality="X" * 17))
    for modality in ("", " dx ", "CR"):
        dicom._check_kind(head(Modality=modality))
    dicom._check_kind(head())


def test_pixels_that_are_not_there():
    whole = {"PixelData": b"x", "Rows": 40, "Columns": 50}
    for name in whole:
        with pytest.raises(FilmError, match="no pixel data"):
            dicom._check_pixels(head(**{key: value for key, value in whole.items() if key != name}), 32)
    dicom._check_pixels(head(**whole), 40)
    dicom._check_pixels(head(**whole, NumberOfFrames=1), 32)
    with pytest.raises(FilmError, match="has 2 frames"):
        dicom._check_pixels(head(**whole, NumberOfFrames=2), 32)
    with pytest.raises(FilmError, match="expected at least 41 a side"):
        dicom._check_pixels(head(**whole), 41)


def test_values_are_worked_on_in_64_bits(monkeypatch):
    asked = []
    monkeypatch.setattr(dicom, "check_size", lambda *words: asked.append(words))
    whole = {"PixelData": b"x", "Rows": 40, "Columns": 50}
    dicom._check_pixels(head(**whole), 32)
    dicom._check_pixels(head(**whole, SamplesPerPixel=3), 32)
    assert asked == [(40, 50, 32, 8), (40, 50, 32, 24)]


def test_a_header_of_another_size_than_its_pixels(monkeypatch):
    import pydicom.pixels

    found = dicom._open(film(np.zeros((32, 40))))
    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *_, **__: np.zeros((32, 41), np.uint16))
    with pytest.raises(FilmError, match="has 41x32 pixels, its header says 40x32"):
        dicom._stored(found)


def test_only_whole_eight_bit_jpegs_are_looked_into(shared_data, monkeypatch):
    data = (shared_data / "awkward" / "dicom_jpeg_baseline.dcm").read_bytes()
    seen = []
    monkeypatch.setattr(dicom, "decode_jpeg", lambda data, header, whole: seen.append((header.bits, whole)))
    read_film(data)
    assert seen == [(8, True)]
    header = dicom.read_header
    monkeypatch.setattr(dicom, "read_header", lambda data: header(data)._replace(bits=12))
    read_film(data)
    assert seen == [(8, True)] and dicom._broken_jpeg(dicom._open(data)) is None
    monkeypatch.setattr(dicom, "read_header", lambda data: header(data)._replace(channels=3))
    assert dicom._broken_jpeg(dicom._open(data)) is None
    monkeypatch.setattr(dicom, "read_header", header)
    dicom._broken_jpeg(dicom._open(data))
    assert seen[1:] == [(8, False)]


def test_a_transfer_syntax_needs_its_decoder(shared_data, monkeypatch):
    import pydicom.pixels

    data = (shared_data / "awkward" / "dicom_jpeg_baseline.dcm").read_bytes()
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: SimpleNamespace(is_available=False))
    with pytest.raises(FilmError, match=r"no decoder for the transfer syntax JPEG Baseline .* is installed; .*dicom"):
        read_film(data)


@pytest.mark.parametrize("accept", [False, True])
def test_uncompressed_pixels_that_are_cut_off_stay_refused(accept):
    data = film(np.arange(1600).reshape(40, 40))
    with pytest.raises(DamagedError, match=r"x: damaged or cut off: its pixels \(Explicit VR .*\) cannot be decoded"):
        decode_film(data[:-900], "x", accept_damaged=accept)


def test_a_deflated_data_set_may_be_as_large_as_its_bound(monkeypatch):
    file = pydicom.dcmread(io.BytesIO(film(np.arange(1600).reshape(40, 40))))
    file.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    file.save_as(out)
    data = out.getvalue()
    rest = data[144 + int.from_bytes(data[140:144], "little"):]
    size = len(zlib.decompress(rest, -15))
    monkeypatch.setattr(dicom, "MOST_INFLATED", size)
    dicom._check_deflated(data)
    monkeypatch.setattr(dicom, "MOST_INFLATED", size - 1)
    with pytest.raises(FilmError, match="too large: its data set"):
        dicom._check_deflated(data)
    dicom._check_deflated(film(np.zeros((40, 40))))                   # not deflated
