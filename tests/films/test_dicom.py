"""DICOM films: what the pixels mean by the standard, what is refused, and that no patient's tag gets out."""

import csv
import io
import sys
import warnings
import zlib

import cv2
import numpy as np
import pytest
from dicom_film import SECRETS, film

from chexpert_hier.films import dicom
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.grey import FilmError

pydicom = pytest.importorskip("pydicom")

def ramp(top, shape=(40, 50)):
    return np.linspace(0, top, shape[0] * shape[1]).round().astype(int).reshape(shape)


def test_a_window_by_hand():
    """PS3.3 C.11.2.1.2: centre 2048, width 4096 maps 0 to 0 and 4095 to the top."""
    values = np.zeros((32, 32), int)
    values[0, :4] = 0, 1024, 2048, 4095
    grey = read_film(film(values, WindowCenter=2048, WindowWidth=4096))
    assert grey[0, :4].tolist() == [0, 64, 128, 255]  # 255 * 1024 / 4095 = 63.8; 127.5 rounds up
    narrow = read_film(film(values, WindowCenter=1024.5, WindowWidth=2))  # a step between 1024 - 0.5 and 1024.5
    assert narrow[0, :4].tolist() == [0, 128, 255, 255]
    exact = read_film(film(values, WindowCenter=2048, WindowWidth=2048, VOILUTFunction="LINEAR_EXACT"))
    assert exact[0, :4].tolist() == [0, 0, 128, 255]
    soft = read_film(film(values, WindowCenter=2048, WindowWidth=1024, VOILUTFunction="SIGMOID"))
    assert soft[0, :4].tolist() == [0, round(255 / (1 + np.exp(4))), 128, 255]


def test_of_several_windows_the_first_counts_and_one_that_misses_the_picture_does_not():
    values = ramp(4095)
    two = read_film(film(values, WindowCenter=[2048, 100], WindowWidth=[4096, 50]))
    np.testing.assert_array_equal(two, read_film(film(values, WindowCenter=2048, WindowWidth=4096)))
    missed = read_film(film(values, WindowCenter=60000, WindowWidth=100))
    np.testing.assert_array_equal(missed, read_film(film(values)))
    assert missed.min() == 0 and missed.max() == 255


def test_monochrome1_is_the_negative():
    values = ramp(4095)
    tags = {"WindowCenter": 2048, "WindowWidth": 4096}
    one, two = (read_film(film(values, photometric=f"MONOCHROME{k}", **tags)) for k in (1, 2))
    assert np.abs(255 - one.astype(int) - two).max() <= 1  # rounding, half up on either side


def test_rescale_comes_before_the_window_and_signs_are_read():
    values = ramp(2000) - 1000
    grey = read_film(film(values, signed=True, RescaleSlope=2, RescaleIntercept=2000, WindowCenter=2000.5,
                          WindowWidth=4001))
    np.testing.assert_allclose(grey, 255 * (values * 2 + 2000) / 4000, atol=0.5 + 1e-9)
    assert read_film(film(ramp(4095), RescaleSlope=-1, RescaleIntercept=4095))[0, 0] == 255


def test_bits_above_the_stored_ones_are_no_part_of_the_picture():
    values = ramp(1023)
    marked = values.copy()
    marked[5, 5] |= 1 << 15  # an old overlay in the unused bits
    tags = {"WindowCenter": 512, "WindowWidth": 1024}
    np.testing.assert_array_equal(read_film(film(marked, bits=10, **tags)), read_film(film(values, bits=10, **tags)))


def test_a_voi_table_is_looked_up():
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table.add_new("LUTData", "US", [10, 20, 200, 250])
    values = ramp(3)
    grey = read_film(film(values, bits=12, VOILUTSequence=[table]))
    np.testing.assert_array_equal(grey, np.array([10, 20, 200, 250])[values])


def test_without_a_window_eight_bits_stay_and_deeper_films_use_the_values_present():
    values = ramp(200)
    np.testing.assert_array_equal(read_film(film(values, bits=8)), values)
    deep = ramp(300) + 500
    deep[:3] = 0  # padding
    grey = read_film(film(deep, bits=16, PixelPaddingValue=0))
    assert grey[:3].max() == 0 and grey[3:].min() < 5 and grey.max() == 255
    assert abs(int(grey[20, 25]) - round(255 * (deep[20, 25] - deep[3, 0]) / (800 - deep[3, 0]))) <= 2


def test_colour_becomes_luminance():
    values = np.zeros((32, 32, 3), int)
    values[0, :3] = np.eye(3, dtype=int) * 255
    assert read_film(film(values, bits=8, photometric="RGB"))[0, :4].tolist() == [76, 150, 29, 0]


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_compressed_films_are_the_same_film(syntax):
    if syntax != "RLELossless":
        pytest.importorskip("openjpeg", reason="needs pylibjpeg-openjpeg")
    values = ramp(4095)
    tags = {"WindowCenter": 2048, "WindowWidth": 4096}
    np.testing.assert_array_equal(read_film(film(values, syntax=getattr(pydicom.uid, syntax), **tags)),
                                  read_film(film(values, **tags)))


def test_a_file_without_preamble_is_known():
    data = film(ramp(255), bits=8)
    np.testing.assert_array_equal(read_film(data[132:]), read_film(data))


@pytest.mark.parametrize(("tags", "line"), [
    ({"Modality": "MR"}, "modality is MR, not CR or DX"),
    ({"BodyPartExamined": "SKULL"}, "body part is SKULL, not CHEST"),
    ({"NumberOfFrames": 3}, "3 frames")])
def test_what_is_no_chest_film_is_refused(tags, line):
    with pytest.raises(FilmError, match=f"some.dcm: .*{line}"):
        read_film(film(ramp(255), bits=8, **tags), "some.dcm")


def test_damaged_small_and_huge_films_are_refused_in_one_line():
    data = film(ramp(4095))
    small = pydicom.dcmread(io.BytesIO(data))
    small.Rows = small.Columns = 8
    for broken, line in ((data[:-900], "cannot be decoded"), (data[:400], "no pixel data"), (_written(small), "small")):
        with pytest.raises(FilmError, match=line) as caught:
            read_film(broken, "some.dcm")
        assert len(str(caught.value).splitlines()) == 1
    small.Rows = small.Columns = 60000
    with pytest.raises(FilmError, match="too large"):
        read_film(_written(small))
    with pytest.raises(FilmError, match="every pixel has the same value"):
        read_film(film(np.full((40, 40), 7)))


def _written(data):
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


def test_random_damage_never_ends_in_another_error():
    data, random = bytearray(film(ramp(4095), WindowCenter=2048, WindowWidth=4096)), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom says of damaged files is its own affair
        for _ in range(150):
            broken = bytearray(data)
            for place in random.integers(132, len(data) - 3900, 4):
                broken[place] = random.integers(256)
            try:
                grey = read_film(bytes(broken))
            except FilmError:
                continue
            assert grey.dtype == np.uint8 and grey.ndim == 2


@pytest.mark.parametrize(("tags", "view"), [
    ({"ViewPosition": "PA"}, "Frontal"), ({"ViewPosition": "LL"}, "Lateral"), ({"ViewPosition": "LATERAL"}, "Lateral"),
    ({"ViewPosition": None}, ""), ({"ViewPosition": ""}, "")])
def test_the_view_is_read(tags, view):
    assert dicom.view(film(ramp(255), bits=8, **tags)) == view


def test_the_view_may_stand_in_a_code():
    code = pydicom.Dataset()
    code.CodeMeaning = "left lateral"
    assert dicom.view(film(ramp(255), bits=8, ViewPosition=None, ViewCodeSequence=[code])) == "Lateral"


def test_no_patients_tag_is_read_or_told(caplog):
    """De-identified by construction: the data set that is opened has the technical tags only."""
    caplog.set_level(0)
    data = film(ramp(4095), Modality="DX", WindowCenter=60000, WindowWidth=100)
    found = dicom._open(data)
    assert {element.keyword for element in found} <= set(dicom.TAGS)
    assert not {*SECRETS, "StudyInstanceUID"} & set(dicom.TAGS)
    text = str(found) + caplog.text
    odd = film(ramp(255), bits=8, Modality="OTTOLINE QUILLFEATHER^B", BodyPartExamined="SKULL")
    for broken in (data[:-900], odd, film(ramp(255), bits=8, Modality="CT")):
        with pytest.raises(FilmError) as caught:
            read_film(broken, "film.dcm")
        text += str(caught.value) + caplog.text
    for secret in SECRETS.values():
        for part in secret.replace("^", " ").split():
            assert len(part) < 4 or part.lower() not in text.lower()


def test_without_pydicom_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(FilmError, match=r'film\.dcm: .*pip install ".*\[dicom\]"'):
        read_film(film_bytes, "film.dcm")


film_bytes = film(ramp(255), bits=8)


def test_the_awkward_collection_does_as_its_manifest_says(shared_data):
    folder = shared_data / "awkward"
    rows = list(csv.DictReader((folder / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) > 25
    for row in rows:
        file, wanted = folder / row["file"], row["what_to_do"]
        if row["file"] == "dicom_mono1_15bit_jpeg2000.dcm":
            pytest.importorskip("openjpeg", reason="needs pylibjpeg-openjpeg")
        if wanted.startswith("reject"):
            reason = wanted.rpartition(": ")[2].replace("file is ", "")
            with pytest.raises(FilmError, match=rf"{row['file']}: .*{reason.split(' (')[0]}"):
                read_film(file)
            continue
        found = read_film(file)
        twin, _, columns = row["same_picture_as"].partition(" ")
        if not twin:
            continue
        other = read_film(folder / twin)
        if columns:
            found, other = found[:, 40:472], other[:, 40:472]
        pair = [cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA).ravel() for image in (found, other)]
        assert np.corrcoef(*pair)[0, 1] > 0.98, row["file"]


# ---------------------------------------------------------------------------------------------------- against pydicom

@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (1500, 700), (100.5, 3), (4000, 9000)])
def test_windows_are_those_of_pydicom(function, centre, width):
    from pydicom.pixels import apply_windowing

    values = ramp(4095, (64, 64))
    data = film(values, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    theirs = apply_windowing(values.astype(np.uint16), pydicom.dcmread(io.BytesIO(data)))
    expected = np.floor(255 * np.asarray(theirs, float) / 4095 + 0.5)
    off = np.abs(read_film(data) - expected)
    assert off.max() <= 1 and (off > 0).mean() < 0.01  # a rounding of theirs on the way


@pytest.mark.parametrize(("photometric", "shape", "inverted"), [
    ("MONOCHROME2", None, False), ("MONOCHROME1", None, True), ("MONOCHROME2", "IDENTITY", False),
    ("MONOCHROME1", "INVERSE", True), ("MONOCHROME2", "INVERSE", True), ("MONOCHROME1", "IDENTITY", False),
    ("MONOCHROME1", "LIN OD", True)])
def test_the_presentation_lut_shape_says_whether_to_invert(photometric, shape, inverted):
    """PS3.3 C.8.11.3: IDENTITY goes with MONOCHROME2, INVERSE with MONOCHROME1; where they differ, the shape counts."""
    values = ramp(4095)
    plain = read_film(film(values, WindowCenter=2048, WindowWidth=4096))
    found = read_film(film(values, photometric=photometric, PresentationLUTShape=shape, WindowCenter=2048,
                           WindowWidth=4096))
    np.testing.assert_array_equal(found, 255 - plain if inverted else plain)


@pytest.mark.parametrize(("part", "region"), [
    ("CHEST", ""), ("", ""), ("THORAX", ""), ("PORT CHEST", ""), ("RIBCAGE", "RIBCAGE"), ("RIB", "RIB"),
    ("STERNUM", "STERNUM"), ("CHESTABDPELVIS", "CHESTABDPELVIS"), ("CHEST_ABDOMEN", "CHEST_ABDOMEN")])
def test_a_region_beside_the_chest_is_answered_with_a_word(part, region):
    data = film(ramp(4095), BodyPartExamined=part)
    assert read_film(data).shape == (40, 50) and dicom.said(data).region == region


@pytest.mark.parametrize("part", ["SKULL", "EXTREMITY", "ABDOMEN", "PELVIS", "HAND"])
def test_another_body_part_is_refused(part):
    with pytest.raises(FilmError, match=f"body part is {part}, not CHEST"):
        read_film(film(ramp(4095), BodyPartExamined=part))


def deflated(data, size=None):
    """The same file as Deflated Explicit VR Little Endian; with `size`, that many zeros behind its data set."""
    file = pydicom.dcmread(io.BytesIO(data))
    file.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    file.save_as(out)
    if size is None:
        return out.getvalue()
    start = out.getvalue().index(b"1.2.840.10008.1.2.1.99")
    meta_end = 144 + int.from_bytes(out.getvalue()[140:144], "little")
    assert start < meta_end
    squeeze = zlib.compressobj(9, wbits=-15)
    rest = zlib.decompress(out.getvalue()[meta_end:], -15)
    return out.getvalue()[:meta_end] + squeeze.compress(rest) + squeeze.compress(bytes(size)) + squeeze.flush()


def test_a_deflated_data_set_is_read_up_to_its_bound(monkeypatch):
    whole = film(ramp(4095))
    np.testing.assert_array_equal(read_film(deflated(whole)), read_film(whole))
    monkeypatch.setattr(dicom, "MOST_INFLATED", 2 ** 22)
    np.testing.assert_array_equal(read_film(deflated(whole)), read_film(whole))
    with pytest.raises(FilmError, match="too large: its data set takes more than 4 MiB when unpacked"):
        read_film(deflated(whole, 2 ** 23))


@pytest.mark.slow
def test_a_deflated_bomb_takes_little_memory():
    """1.5 MB that unpack to 1.5 GB."""
    import tracemalloc

    bomb = deflated(film(ramp(4095)), 3 * 2 ** 29)
    assert len(bomb) < 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(FilmError, match="too large"):
            read_film(bomb)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()
